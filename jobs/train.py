"""Train on all labels of a pool: python jobs/train.py --config jobs/configs/train-emodb.yaml"""

from seral.verbs import run_verb

if __name__ == "__main__":
    run_verb("train")
