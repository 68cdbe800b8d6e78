"""How alike layers are in two languages: python jobs/layer_similarity.py pool=data/pool run=runs/similarity"""

from seral.options import run_job
from seral.studies.layer_similarity import SimilarityOptions, compare_layers

if __name__ == "__main__":
    run_job(SimilarityOptions, compare_layers, __doc__)
