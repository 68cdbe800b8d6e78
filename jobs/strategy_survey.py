"""Which strategy to take when: python jobs/strategy_survey.py --config jobs/configs/strategy-survey.yaml"""

from seral.options import run_job
from seral.studies.survey import StrategySurveyOptions, run_strategy_survey

if __name__ == "__main__":
    run_job(StrategySurveyOptions, run_strategy_survey, __doc__)
