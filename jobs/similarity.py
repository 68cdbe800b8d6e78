"""Measure how alike layers are in two languages: python jobs/similarity.py pool=data/pool out=runs/similarity"""

from seral.verbs import run_verb

if __name__ == "__main__":
    run_verb("similarity")
