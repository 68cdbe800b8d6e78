"""A disk that fills up: the error names the file, nothing is half done, and the same command goes on."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from seral import storage
from seral.pool.shards import open_pool

pytestmark = [pytest.mark.slow, pytest.mark.ray]


@pytest.fixture
def disk(tmp_path: Path) -> Iterator[Path]:
    """A disk of 300 kB."""
    mounted = tmp_path / "disk"
    mounted.mkdir()
    command = ["mount", "-t", "tmpfs", "-o", "size=300k", "tmpfs", str(mounted)]
    if subprocess.run(command, capture_output=True, check=False).returncode:
        pytest.skip("mounting a small disk is for root")
    yield mounted
    subprocess.run(["umount", "-l", str(mounted)], check=True)


def grow(disk: Path) -> None:
    subprocess.run(["mount", "-o", "remount,size=60m", str(disk)], check=True)


def seral(*words: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "seral", *words]
    return subprocess.run(command, capture_output=True, text=True, timeout=300, check=False)


def test_an_import_goes_on_where_there_was_no_room(
    make_corpus: Callable[..., Path], disk: Path, tmp_path: Path
) -> None:
    corpus = make_corpus(tmp_path / "calls", 80)
    words = ["pool", "import", "manifest", str(corpus), "--set", "voice=false", "--out"]
    full = seral(*words, str(disk / "pool"))
    assert full.returncode == 1
    (line,) = [line for line in full.stderr.splitlines() if line.startswith("error:")]
    assert line.startswith(f"error: {disk}/pool/")
    assert line.endswith(
        ".parquet cannot be written: No space left on device. Make room; the same command then goes on"
    )
    assert not storage.half_written(disk)
    assert not (disk / "pool" / "manifest.json").exists()
    grow(disk)
    for pool in (disk / "pool", tmp_path / "pool"):
        done = seral(*words, str(pool))
        assert done.returncode == 0, done.stderr
    assert open_pool(str(disk / "pool")).tables_hash == open_pool(str(tmp_path / "pool")).tables_hash


def test_a_loop_goes_on_where_there_was_no_room(speech_pool: str, disk: Path, tmp_path: Path) -> None:
    settings = {
        "pool": speech_pool,
        "encoder": "seral-tiny",
        "classes": ["anger", "neutral"],
        "budget": {"sizes": [8, 12, 16]},
        "random_arm": False,
        "full_arm": False,
        "folds": [0],
        "seeds": [0],
    }
    (tmp_path / "run.yaml").write_text(json.dumps(settings))

    def loop(run: Path) -> subprocess.CompletedProcess[str]:
        return seral("loop", "run", str(tmp_path / "run.yaml"), "--set", f"run={run}")

    full = loop(disk / "run")
    assert full.returncode == 1
    assert f"{disk}/run/" in full.stderr
    assert "cannot be written: No space left on device" in full.stderr
    grow(disk)
    for run in (disk / "run", tmp_path / "run"):
        done = loop(run)
        assert done.returncode == 0, done.stderr
    rounds = [sorted((run / "trajectories").rglob("metrics.json")) for run in (disk / "run", tmp_path / "run")]
    assert len(rounds[0]) == 3
    assert [path.read_bytes() for path in rounds[0]] == [path.read_bytes() for path in rounds[1]]
