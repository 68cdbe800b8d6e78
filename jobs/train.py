"""Train on all labels of a pool: python jobs/train.py pool=data/pool run=runs/train classes=[anger,neutral,sadness]"""

from seral.options import run_job
from seral.train.supervised import run_train
from seral.train.training import TrainingOptions

if __name__ == "__main__":
    run_job(TrainingOptions, run_train, __doc__)
