"""What each strategy is worth on a pool: python jobs/strategies.py --config jobs/configs/strategies.yaml"""

from seral.options import run_job
from seral.studies.strategies import StrategyStudyOptions, run_strategy_study

if __name__ == "__main__":
    run_job(StrategyStudyOptions, run_strategy_study, __doc__)
