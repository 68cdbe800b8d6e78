"""Run or resume the active-learning loop: python jobs/loop.py --config jobs/configs/emodb-lora.yaml seeds=[0,1,2]"""

from seral.loop.loop import run_loop
from seral.loop.options import LoopOptions
from seral.options import run_job

if __name__ == "__main__":
    run_job(LoopOptions, run_loop, __doc__)
