"""Write a pool in a format of other tools: python jobs/pool_export.py pool=data/pool format=lhotse out=exports/pool"""

from seral.verbs import run_verb

if __name__ == "__main__":
    run_verb("pool-export")
