"""Every strategy against plain definitions and other libraries: python jobs/bench_selection.py rows=100000"""

from seral.bench.selection import SelectionBenchOptions, run_selection_bench
from seral.options import run_job

if __name__ == "__main__":
    run_job(SelectionBenchOptions, run_selection_bench, __doc__)
