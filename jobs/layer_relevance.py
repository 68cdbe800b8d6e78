"""Which hidden states know what: python jobs/layer_relevance.py --config jobs/configs/relevance-whisper.yaml"""

from seral.options import run_job
from seral.studies.layer_relevance import RelevanceOptions, run_relevance

if __name__ == "__main__":
    run_job(RelevanceOptions, run_relevance, __doc__)
