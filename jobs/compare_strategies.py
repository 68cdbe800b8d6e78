"""Compare strategies on a pool: python jobs/compare_strategies.py --config jobs/configs/strategies.yaml"""

from seral.verbs import run_verb

if __name__ == "__main__":
    run_verb("compare-strategies")
