"""Find near-duplicates and outliers of a pool by encoder features: python jobs/screen.py pool=data/pool"""

from seral.verbs import run_verb

if __name__ == "__main__":
    run_verb("screen")
