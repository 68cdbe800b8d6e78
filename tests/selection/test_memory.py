"""How much clustering takes above the features it is given, in a process of its own."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

from ser_models.adapters.cost import PROCESS

CONSTANT_MB = 45
SCRIPT = """
import json, sys
import numpy as np
from ser_models.adapters.cost import forget_peak_mb, peak_mb
from seral.selection.candidates import Candidates
from seral.selection.selection import StrategyOptions, select

rng = np.random.default_rng(0)
x_ND = np.concatenate([rng.normal(size=(10_000, 256)).astype(np.float16) for _ in range(12)])
pool = Candidates(
    ids=np.array([f"{row:06d}" for row in range(len(x_ND))]),
    embedding_ND=x_ND,
    surprisal_NQ=x_ND,
    labelled_ids=np.array([f"k{row:02d}" for row in range(60)]),
    labelled_embedding_MD=x_ND[:60] + np.float16(1),
)
small = pool.take(np.arange(300))
for name, options in json.loads(sys.argv[1]):
    strategy = StrategyOptions(name=name, **options)
    select(strategy, small, 4, rng)  # what is imported on the way is not counted
    before_mb = forget_peak_mb("cpu")
    select(strategy, pool, 4, rng)
    print(json.dumps([name, peak_mb("cpu") - before_mb, x_ND.nbytes / 1e6]))
"""
CASES = [
    ("k_means", {"points_per_cluster": 2000}),
    ("alps", {"points_per_cluster": 2000}),
    ("typiclust", {"points_per_cluster": 100}),
    ("random", {"wrappers": ["distinct"]}),
]


@pytest.mark.skipif(not PROCESS.is_dir(), reason="the peak is read from Linux")
def test_clustering_takes_no_copy_of_the_features() -> None:
    """Half precision: a copy would be as large as the features, one in single precision twice as large."""
    path = [str(Path(__file__).resolve().parents[2] / part) for part in ("platform", "")]
    script = f"import sys; sys.path[:0] = {path}" + SCRIPT
    done = subprocess.run([sys.executable, "-c", script, json.dumps(CASES)], capture_output=True, text=True, check=True)
    measured = [json.loads(line) for line in done.stdout.splitlines()]
    assert [name for name, *_ in measured] == [name for name, _ in CASES]
    for name, extra_mb, features_mb in measured:
        assert extra_mb < 0.3 * features_mb + CONSTANT_MB, name
