"""An import that is killed with SIGKILL, twice, must end in the same pool as one that was left alone."""

from __future__ import annotations

import os
import signal
import subprocess
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from jobs.bench.growth import marked_processes, same_files, shard_files, start_import
from seral.options import parse
from seral.pool.check import check_pool
from seral.pool.ingest import ImportOptions, import_corpus
from seral.pool.shards import MANIFEST, open_pool

FILES = 240
SHARD_MB = 0.02
SETTINGS = (f"shard_mb={SHARD_MB}", "cluster.cpus=1")
PATIENCE_S = 120


def wait_until(condition: Callable[[], bool], what: str) -> None:
    deadline = time.monotonic() + PATIENCE_S
    while not condition():
        assert time.monotonic() < deadline, f"waited {PATIENCE_S} s in vain for {what}"
        time.sleep(0.005)


def kill_when(process: subprocess.Popen[bytes], pool: Path, shards: int) -> int:
    """Kill the whole process group once so many shards are written; returns how many there were then."""
    wait_until(lambda: shard_files(pool) >= shards or process.poll() is not None, f"{shards} shards")
    assert process.poll() is None, f"the import ended before it could be killed at {shards} shards"
    os.killpg(process.pid, signal.SIGKILL)
    process.communicate()
    return shard_files(pool)


@pytest.mark.ray
@pytest.mark.slow
@pytest.mark.skipif(not Path("/proc/self/environ").exists(), reason="finds leftover processes through /proc")
def test_an_import_killed_twice_ends_in_the_same_pool(
    tmp_path: Path, make_corpus: Callable[..., Path], ray_session: None
) -> None:
    corpus = make_corpus(tmp_path / "calls", FILES, seconds=(0.3, 0.5))
    (corpus / "audio" / "clip0100.flac").write_bytes(b"")
    pool = tmp_path / "killed"
    with marked_processes() as environment:
        first = kill_when(start_import(corpus, pool, SETTINGS, environment), pool, 3)
        assert not (pool / MANIFEST).exists()
    with marked_processes() as environment:
        second = kill_when(start_import(corpus, pool, SETTINGS, environment), pool, first + 25)
        assert second > first
        assert not (pool / MANIFEST).exists()
    with marked_processes() as environment:
        last = start_import(corpus, pool, SETTINGS, environment)
        _, errors = last.communicate(timeout=PATIENCE_S)
        assert last.returncode == 0, errors.decode()

    values = {"reader": "manifest", "root": str(corpus), "out": str(tmp_path / "whole"), "shard_mb": SHARD_MB}
    import_corpus(parse(ImportOptions, values))
    assert len(open_pool(str(pool)).shards) > second + 5, "both kills fell into the middle of the work"
    assert same_files(pool, tmp_path / "whole")
    assert check_pool(str(pool)) == []
    ids = open_pool(str(pool)).metadata["utterance_id"].to_pylist()
    assert len(set(ids)) == len(ids) == FILES - 1
    assert open_pool(str(pool)).quarantine["reason"].to_pylist() == ["empty"]
