"""Memory of the commands about pools as a pool grows: bytes a row, each command in a process of its own."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest
from corpus_layouts.pool_rows import write_large_pool

PROCESS = Path("/proc/self/clear_refs")
ROWS = (20_000, 120_000)
MEASURE = """
import json, sys
import pyarrow
pyarrow.set_cpu_count(1)  # what threads have set aside differs from run to run
from pathlib import Path

def command(pool, out):
    {command}

def peak_bytes():
    line = next(line for line in open("/proc/self/status") if line.startswith("VmHWM"))
    return 1024 * int(line.split()[1])

peaks = []
out, small, large = sys.argv[1:]
for pool in (small, small, large):  # the first time is for imports
    Path("/proc/self/clear_refs").write_text("5")
    command(pool, f"{{out}}/{{len(peaks)}}")
    peaks.append(peak_bytes())
print(json.dumps(peaks))
"""
COMMANDS = {
    "stats": ("from seral.pool.stats import pool_stats; pool_stats(pool)", 400),
    "check": ("from seral.pool.check import check_pool; assert check_pool(pool) == []", 500),
    "merge": ("from seral.pool.derive import merge_pools; merge_pools([pool], out)", 800),
    "filter": (
        "from seral.pool.derive import SelectOptions, select_from_pool as select; "
        "select(SelectOptions(pool=pool, out=out, where=['snr_db > 0.5'], shard_mb=1.0))",
        800,
    ),
    "erase": (
        "import shutil; from seral.erase.erase import EraseOptions, erase; from seral.pool.shards import open_pool; "
        "shutil.copytree(pool, out); "
        "erase(EraseOptions(pool=out, utterance=open_pool(out).ids['utterance_id'][0].as_py()))",
        600,
    ),
    "folds": (
        "from seral.pool.shards import open_pool; from seral.pool.split_options import SplitOptions; "
        "from seral.pool.splits import folds_of; "
        "folds_of(open_pool(pool).metadata, SplitOptions(scheme='k-fold', k=3), [0])",
        1200,
    ),
    "page": (
        "from seral.report.pool import PoolReportOptions, write_pool_report; "
        "write_pool_report(PoolReportOptions(pool=pool, out=f'{out}.html'))",
        500,
    ),
}
"""Command -> the bytes that a row may take. Rows as Python objects take 1,000 and more; folds stand on the metadata of
the whole pool, 450 of these."""


@pytest.fixture(scope="module")
def pools(tmp_path_factory: pytest.TempPathFactory) -> list[str]:
    folder = tmp_path_factory.mktemp("pools")
    return [write_large_pool(folder / str(rows), rows) for rows in ROWS]


@pytest.mark.skipif(not PROCESS.exists(), reason="the peak is read from Linux")
@pytest.mark.parametrize(
    "name", [pytest.param(name, marks=pytest.mark.slow) if name in ("check", "page") else name for name in COMMANDS]
)
def test_memory_grows_by_little_a_row(name: str, pools: list[str], tmp_path: Path) -> None:
    code, most_bytes = COMMANDS[name]
    path = [str(Path(__file__).resolve().parents[2] / part) for part in ("platform", "")]
    script = f"import sys; sys.path[:0] = {path}" + MEASURE.format(command=code)
    done = subprocess.run(
        [sys.executable, "-c", script, str(tmp_path), *pools], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    _, small, large = json.loads(done.stdout.splitlines()[-1])
    assert (large - small) / (ROWS[1] - ROWS[0]) < most_bytes
