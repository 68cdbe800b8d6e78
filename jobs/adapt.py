"""An encoder that learns from labels of other corpora: python jobs/adapt.py --config jobs/configs/adapt-emodb.yaml"""

from seral.verbs import run_verb

if __name__ == "__main__":
    run_verb("adapt")
