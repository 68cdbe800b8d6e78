"""Predict with the model of a run: python jobs/predict.py run=runs/emodb source=[data/pool] out=predictions.parquet"""

from seral.infer import PredictOptions, predict
from seral.options import run_job

if __name__ == "__main__":
    run_job(PredictOptions, predict, __doc__)
