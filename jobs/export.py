"""Write the model of a run for use without seral: python jobs/export.py run=runs/emodb format=hf out=exports/emodb"""

from seral.verbs import run_verb

if __name__ == "__main__":
    run_verb("export")
