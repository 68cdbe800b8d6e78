"""An import as its pool grows, and killed on its way: python jobs/bench_growth.py 'corpora=[~/corpora/emodb]'"""

from seral.bench.growth import GrowthOptions, run_growth_bench
from seral.options import run_job

if __name__ == "__main__":
    run_job(GrowthOptions, run_growth_bench, __doc__)
