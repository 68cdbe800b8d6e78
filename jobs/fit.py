"""Fit the final model of a run: python jobs/fit.py of=runs/emodb run=models/emodb"""

from seral.verbs import run_verb

if __name__ == "__main__":
    run_verb("fit")
