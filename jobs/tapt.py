"""Adapt an encoder to the audio of a pool: python jobs/tapt.py pool=data/pool encoder=PATH run=runs/tapt"""

from seral.options import run_job
from seral.pretraining.tapt import TaptJobOptions, pretrain

if __name__ == "__main__":
    run_job(TaptJobOptions, pretrain, __doc__)
