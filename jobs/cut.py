"""Cut long recordings into utterances for an import: python jobs/cut.py root=recordings out=utterances"""

from seral.options import run_job
from seral.pool.cut import CutOptions, cut_recordings

if __name__ == "__main__":
    run_job(CutOptions, cut_recordings, __doc__)
