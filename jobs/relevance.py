"""Relevance of hidden states to emotions: python jobs/relevance.py --config jobs/configs/relevance-whisper.yaml"""

from seral.verbs import run_verb

if __name__ == "__main__":
    run_verb("relevance")
