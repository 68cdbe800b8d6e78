"""Make a small encoder from a large one: python jobs/distil.py teacher=PATH pools=[data/pool] run=runs/student"""

from seral.options import run_job
from seral.pretraining.distillation import DistilOptions, distil

if __name__ == "__main__":
    run_job(DistilOptions, distil, __doc__)
