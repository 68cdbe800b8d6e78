"""Make a small encoder from a large one: python jobs/distil.py teacher=PATH pools=[data/pool] run=runs/student"""

from seral.verbs import run_verb

if __name__ == "__main__":
    run_verb("distil")
