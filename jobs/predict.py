"""Predict with the model of a run: python jobs/predict.py run=runs/emodb source=[data/pool] out=predictions.parquet"""

from seral.options import run_job
from seral.predict import PredictOptions, predict

if __name__ == "__main__":
    run_job(PredictOptions, predict, __doc__)
