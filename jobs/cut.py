"""Cut long recordings into utterances for an import: python jobs/cut.py root=recordings out=utterances"""

from seral.verbs import run_verb

if __name__ == "__main__":
    run_verb("cut")
