"""Compute and cache the encoder features of a pool: python jobs/features.py pool=data/pool encoder=seral-tiny"""

from seral.verbs import run_verb

if __name__ == "__main__":
    run_verb("features")
