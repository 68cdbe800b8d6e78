"""Look for the best options of a training or a loop: python jobs/sweep.py --config jobs/configs/sweep-heads.yaml"""

from seral.options import run_job
from seral.sweep.plan import SweepOptions
from seral.sweep.run import run_sweep

if __name__ == "__main__":
    run_job(SweepOptions, run_sweep, __doc__)
