"""Look for the best options of a training or a loop: python jobs/sweep.py --config jobs/configs/sweep-heads.yaml"""

from seral.verbs import run_verb

if __name__ == "__main__":
    run_verb("sweep")
