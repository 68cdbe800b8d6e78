"""Adapt from acted to natural speech: python jobs/two_stage.py --config jobs/configs/two-stage-urdu.yaml"""

from seral.options import run_job
from seral.studies.two_stage import TwoStageOptions, run_two_stage

if __name__ == "__main__":
    run_job(TwoStageOptions, run_two_stage, __doc__)
