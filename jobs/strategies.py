"""What each strategy is worth on a pool: python jobs/strategies.py --config jobs/configs/strategies.yaml"""

from seral.active.study import StrategyStudyOptions, run_strategy_study
from seral.options import run_job

if __name__ == "__main__":
    run_job(StrategyStudyOptions, run_strategy_study, __doc__)
