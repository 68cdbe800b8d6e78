"""Labels of other corpora for a pool without any: python jobs/transfer.py --config jobs/configs/transfer-emodb.yaml"""

from seral.verbs import run_verb

if __name__ == "__main__":
    run_verb("transfer")
