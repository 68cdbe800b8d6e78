"""Judge encoders on the labels of a pool: python jobs/probe.py pool=data/pool classes=[anger,happiness,sadness]"""

from seral.verbs import run_verb

if __name__ == "__main__":
    run_verb("probe")
