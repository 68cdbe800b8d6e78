"""Compare variants of training on one task: python jobs/compare.py --config jobs/configs/adapters-emodb.yaml"""

from seral.options import run_job
from seral.studies.compare import CompareOptions, run_compare

if __name__ == "__main__":
    run_job(CompareOptions, run_compare, __doc__)
