"""An import that is killed with SIGKILL, twice, must end in the same pool as one that was left alone."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
import uuid
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from seral.options import parse
from seral.pool.ingest import ImportOptions, import_corpus
from seral.pool.shards import MANIFEST, check_pool, open_pool

MARK = "SERAL_TEST_MARK"
FILES = 240
SHARD_MB = 0.02
PATIENCE_S = 120


@contextmanager
def marked_processes() -> Iterator[dict[str, str]]:
    """An environment whose processes, Ray's own included, are found by a mark; those still alive at the end are killed.

    Killing the process group ends the driver and Ray's own services; workers notice a little later. All carry the
    environment of the process that started them, so none is left behind, and nobody else's Ray is touched.
    """
    mark = uuid.uuid4().hex
    try:
        yield os.environ | {MARK: mark}
    finally:
        for process in carriers(mark):
            os.kill(process, signal.SIGKILL)
        wait_until(lambda: not carriers(mark), "the processes of the killed imports to be gone")


def carriers(mark: str) -> list[int]:
    found = []
    for folder in Path("/proc").glob("[0-9]*"):
        try:
            environment = (folder / "environ").read_bytes()
        except OSError:  # the process has ended, or is not ours
            continue
        if f"{MARK}={mark}".encode() in environment.split(b"\0"):
            found.append(int(folder.name))
    return found


def wait_until(condition: Callable[[], bool], what: str) -> None:
    deadline = time.monotonic() + PATIENCE_S
    while not condition():
        assert time.monotonic() < deadline, f"waited {PATIENCE_S} s in vain for {what}"
        time.sleep(0.005)


def start_import(corpus: Path, pool: Path, environment: dict[str, str]) -> subprocess.Popen[bytes]:
    arguments = ["pool", "import", "manifest", str(corpus), "--out", str(pool)]
    settings = ["--set", f"shard_mb={SHARD_MB}", "--set", "cluster.cpus=1"]
    return subprocess.Popen(
        [sys.executable, "-m", "seral.cli", *arguments, *settings],
        env=environment,
        start_new_session=True,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
    )


def kill_when(process: subprocess.Popen[bytes], pool: Path, shards: int) -> int:
    """Kill the whole process group once so many shards are written; returns how many there were then."""

    def written() -> int:
        return len(list((pool / "utterances").glob("*.parquet")))

    wait_until(lambda: written() >= shards or process.poll() is not None, f"{shards} shards")
    assert process.poll() is None, f"the import ended before it could be killed at {shards} shards"
    os.killpg(process.pid, signal.SIGKILL)
    process.communicate()
    return written()


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
        first = kill_when(start_import(corpus, pool, environment), pool, 3)
        assert not (pool / MANIFEST).exists()
    with marked_processes() as environment:
        second = kill_when(start_import(corpus, pool, environment), pool, first + 25)
        assert second > first
        assert not (pool / MANIFEST).exists()
    with marked_processes() as environment:
        last = start_import(corpus, pool, environment)
        _, errors = last.communicate(timeout=PATIENCE_S)
        assert last.returncode == 0, errors.decode()

    values = {"reader": "manifest", "root": str(corpus), "out": str(tmp_path / "whole"), "shard_mb": SHARD_MB}
    import_corpus(parse(ImportOptions, values))
    assert len(open_pool(str(pool)).shards) > second + 5, "both kills fell into the middle of the work"
    names = {path.relative_to(pool).as_posix() for path in pool.rglob("*") if path.is_file()}
    assert names == {path.relative_to(tmp_path / "whole").as_posix() for path in (tmp_path / "whole").rglob("*.*")}
    for name in sorted(names):
        assert (pool / name).read_bytes() == (tmp_path / "whole" / name).read_bytes(), name
    assert check_pool(str(pool)) == []
    ids = open_pool(str(pool)).metadata["utterance_id"].to_pylist()
    assert len(set(ids)) == len(ids) == FILES - 1
    assert open_pool(str(pool)).quarantine["reason"].to_pylist() == ["empty"]
