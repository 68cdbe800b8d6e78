"""Run or resume the active-learning loop: python jobs/loop.py --config jobs/configs/emodb-lora.yaml seeds=[0,1,2]"""

from seral.verbs import run_verb

if __name__ == "__main__":
    run_verb("loop")
