"""Predict with the model of a run: python jobs/predict.py run=runs/emodb source=[data/pool] out=predictions.parquet"""

from seral.verbs import run_verb

if __name__ == "__main__":
    run_verb("predict")
