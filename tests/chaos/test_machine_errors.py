"""Errors of the machine that reach the command line: one sentence, status 1, no traceback."""

from __future__ import annotations

import errno
import os
import sqlite3
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import ray
from corpus_layouts.pool_rows import put_shard, row, set_shards

from seral.errors import PoolError
from seral.process.failures import explanation
from seral.security.tables import open_parquet


def raised(call: Callable[[], object]) -> Exception:
    try:
        call()
    except Exception as error:
        return error
    pytest.fail("nothing was raised")


def damage(file: Path, first: int, last: int) -> None:
    """Overwrite some of the bytes of a file."""
    data = bytearray(file.read_bytes())
    data[first:last] = bytes(len(data[first:last]))
    file.write_bytes(data)


def test_a_missing_file_is_named(tmp_path: Path) -> None:
    words = explanation(raised(lambda: open(tmp_path / "gone")))  # noqa: SIM115
    assert words == (
        f"{tmp_path}/gone: No such file or directory. Bring it back, or name where it is now; the same command then "
        "goes on"
    )


@pytest.mark.parametrize("number", [errno.EACCES, errno.EROFS, errno.EMFILE, errno.EIO, errno.ENOSPC])
def test_errors_of_the_system_say_what_to_do(number: int) -> None:
    words = explanation(OSError(number, os.strerror(number), "/data/pool"))
    assert words is not None
    assert words.startswith(f"/data/pool: {os.strerror(number)}. ")
    assert words.endswith("; the same command then goes on")
    assert "Set that right" not in words


@pytest.mark.parametrize(("first", "last"), [(4, -600), (-300, -200), (-60, -20), (-8, None)])
def test_a_damaged_table_is_named(tmp_path: Path, first: int, last: int | None) -> None:
    file = tmp_path / "damaged.parquet"
    pq.write_table(pa.table({"id": [str(number) for number in range(1000)]}), file)
    damage(file, first, last or file.stat().st_size)
    words = explanation(raised(lambda: open_parquet(str(file), file).read()))
    assert words is not None
    assert words.startswith(f"{file} is damaged: ")
    assert "\n" not in words


def test_a_database_that_is_none(tmp_path: Path) -> None:
    (tmp_path / "labels.sqlite").write_bytes(b"no database" * 1000)
    connection = sqlite3.connect(tmp_path / "labels.sqlite")
    words = explanation(raised(lambda: connection.execute("select * from person")))
    connection.close()
    assert words is not None
    assert "file is not a database" in words


@pytest.mark.parametrize("error", [ValueError("7"), KeyError("a"), pa.ArrowInvalid("cannot cast 3"), PoolError("gone")])
def test_errors_of_the_code_keep_their_traceback(error: Exception) -> None:
    assert explanation(error) == ("gone" if isinstance(error, PoolError) else None)


@pytest.mark.ray
def test_an_error_of_a_worker_is_what_it_was_there(ray_session: None, tmp_path: Path) -> None:
    @ray.remote
    def read(path: str) -> bytes:
        return Path(path).read_bytes()

    @ray.remote(max_retries=0)
    def die() -> None:
        os._exit(1)

    @ray.remote
    def fail() -> None:
        raise ValueError("a bug")

    words = explanation(raised(lambda: ray.get(read.remote(str(tmp_path / "gone")))))
    assert words is not None
    assert words.startswith(f"{tmp_path}/gone: No such file or directory. ")
    lost = explanation(raised(lambda: ray.get(die.remote())))
    assert lost is not None
    assert lost.startswith("Ray has lost what the work needs: ")
    assert explanation(raised(lambda: ray.get(fail.remote()))) is None


def seral(*words: str, **environment: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "seral", *words]
    return subprocess.run(
        command, capture_output=True, text=True, env=os.environ | environment, timeout=60, check=False
    )


def test_on_the_command_line(tmp_path: Path) -> None:
    pool, out = tmp_path / "pool", tmp_path / "file"
    set_shards(str(pool), {"made-1": put_shard(str(pool), "made-1", [row("made-00000000000000a1")])})
    out.write_text("in the way")
    words = ["pool", "filter", str(pool), "--where", "duration_s > 0", "--out", str(out / "pool")]
    done = seral(*words)
    assert done.returncode == 1, done.stderr
    assert done.stderr.startswith("error: ")
    assert str(out) in done.stderr
    assert len(done.stderr.splitlines()) == 1, done.stderr
    shown = seral(*words, SERAL_TRACEBACK="1")
    assert shown.returncode == 1
    assert "Traceback" in shown.stderr
    assert shown.stderr.splitlines()[-1] == done.stderr.strip()
