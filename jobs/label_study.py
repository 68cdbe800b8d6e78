"""Labels that each way of learning needs: python jobs/label_study.py --config jobs/configs/labels.yaml"""

from seral.verbs import run_verb

if __name__ == "__main__":
    run_verb("label-study")
