"""Many annotators at once before one server, killed on the way: python jobs/bench_labels.py pool=POOL"""

from seral.bench.labels import LabelsBenchOptions, run_labels_bench
from seral.options import run_job

if __name__ == "__main__":
    run_job(LabelsBenchOptions, run_labels_bench, __doc__)
