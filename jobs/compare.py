"""Compare variants of training on one task: python jobs/compare.py --config jobs/configs/adapters-emodb.yaml"""

from seral.verbs import run_verb

if __name__ == "__main__":
    run_verb("compare")
