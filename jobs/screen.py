"""Find near-duplicates and outliers of a pool by encoder features: python jobs/screen.py pool=data/pool"""

from seral.features.screen import ScreenOptions, screen_pool
from seral.options import run_job

if __name__ == "__main__":
    run_job(ScreenOptions, screen_pool, __doc__)
