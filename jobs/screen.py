"""Find near-duplicates and outliers of a pool by encoder features: python jobs/screen.py pool=data/pool"""

from seral.options import run_job
from seral.screen import ScreenOptions, screen_pool

if __name__ == "__main__":
    run_job(ScreenOptions, screen_pool, __doc__)
