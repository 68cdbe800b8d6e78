"""Adapt an encoder to the audio of a pool: python jobs/pretrain.py pool=data/pool encoder=PATH out=runs/tapt"""

from seral.verbs import run_verb

if __name__ == "__main__":
    run_verb("pretrain")
