"""Measure both sides of every throughput claim: python jobs/bench.py corpus=~/corpora/emodb reader=emodb"""

from seral.bench import BenchOptions, run_bench
from seral.options import run_job

if __name__ == "__main__":
    run_job(BenchOptions, run_bench, __doc__)
