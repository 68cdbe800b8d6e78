"""Clean speech, noisy speech and noise, told apart: python jobs/bench_quality.py speech=[CORPUS] noise=CORPUS"""

from seral.bench.quality import QualityBenchOptions, run_quality_bench
from seral.options import run_job

if __name__ == "__main__":
    run_job(QualityBenchOptions, run_quality_bench, __doc__)
