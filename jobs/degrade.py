"""Make a noisy variant of a pool: python jobs/degrade.py pool=data/pool out=data/noisy noise=data/noises"""

from seral.verbs import run_verb

if __name__ == "__main__":
    run_verb("degrade")
