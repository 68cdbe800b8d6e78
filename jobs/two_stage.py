"""Adapt from acted to natural speech: python jobs/two_stage.py --config jobs/configs/two-stage-urdu.yaml"""

from seral.verbs import run_verb

if __name__ == "__main__":
    run_verb("two-stage")
