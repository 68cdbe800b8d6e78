"""People of known quality in the loop, also through the page: python jobs/bench_people.py pool=data/pool classes=[…]"""

from seral.bench.people import PeopleBenchOptions, run_people_bench
from seral.options import run_job

if __name__ == "__main__":
    run_job(PeopleBenchOptions, run_people_bench, __doc__)
