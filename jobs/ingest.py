"""Import a corpus into a pool: python jobs/ingest.py reader=emodb root=~/corpora/emodb out=data/pool"""

from seral.options import run_job
from seral.pool.ingest import ImportOptions, import_corpus

if __name__ == "__main__":
    run_job(ImportOptions, import_corpus, __doc__)
