"""Compare strategies on many pools: python jobs/strategy_survey.py --config jobs/configs/strategy-survey.yaml"""

from seral.verbs import run_verb

if __name__ == "__main__":
    run_verb("strategy-survey")
