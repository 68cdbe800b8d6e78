"""What strategies cost as pools grow, and on a cluster: python jobs/bench_scale.py 'rows=[100000,1000000]'"""

from seral.bench.scale import ScaleBenchOptions, run_scale_bench
from seral.options import run_job

if __name__ == "__main__":
    run_job(ScaleBenchOptions, run_scale_bench, __doc__)
