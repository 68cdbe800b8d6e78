"""Write the report of a run: python jobs/report.py run=runs/emodb"""

from seral.verbs import run_verb

if __name__ == "__main__":
    run_verb("report")
