"""Pick what to label next from Parquet files: python jobs/pick.py --config pick.yaml count=1000"""

from seral.options import run_job
from seral.selection.batch import BatchOptions, run_batch

if __name__ == "__main__":
    run_job(BatchOptions, run_batch, __doc__)
