"""Import a corpus into a pool: python jobs/pool_import.py reader=emodb root=~/corpora/emodb out=data/pool"""

from seral.verbs import run_verb

if __name__ == "__main__":
    run_verb("pool-import")
