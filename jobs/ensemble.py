"""Join the models of several runs: python jobs/ensemble.py runs=[runs/a,runs/b] run=runs/both"""

from seral.verbs import run_verb

if __name__ == "__main__":
    run_verb("ensemble")
