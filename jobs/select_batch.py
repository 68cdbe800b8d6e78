"""Pick what to label next from Parquet files: python jobs/select_batch.py --config pick.yaml count=1000"""

from seral.verbs import run_verb

if __name__ == "__main__":
    run_verb("select-batch")
