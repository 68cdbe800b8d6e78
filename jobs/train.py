"""Train on all labels of a pool: python jobs/train.py pool=data/pool run=runs/train classes=[anger,neutral,sadness]"""

from seral.options import run_job
from seral.training.supervised import SupervisedOptions, run_train

if __name__ == "__main__":
    run_job(SupervisedOptions, run_train, __doc__)
