"""Labels carried over between languages: python jobs/layer_transfer.py --config jobs/configs/anchors-whisper.yaml"""

from seral.verbs import run_verb

if __name__ == "__main__":
    run_verb("layer-transfer")
