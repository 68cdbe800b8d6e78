"""An erasure beside commands that write: whatever they were about to write of what was erased is nowhere in the end."""

from __future__ import annotations

import subprocess
import sys
import threading
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest

from seral import storage
from seral.erase.erase import EraseOptions, erase
from seral.errors import StateError
from seral.pool.shards import open_pool
from seral.pool.tombstones import read_erased
from tests.corpus_layouts.pool_rows import put_shard, row, set_shards

IDS = ["made-1", "made-2", "made-3"]


def write_pool(folder: Path, ids: Sequence[str]) -> str:
    """A pool of these utterances in one shard."""
    pool = str(folder / "pool")
    set_shards(pool, {"made-0": put_shard(pool, "made-0", [row(name) for name in ids])})
    return pool


def erase_one(pool: str, **options: Any) -> dict[str, Any]:
    return erase(EraseOptions(pool=pool, utterance="made-2", **options))


def test_what_is_published_before_an_erasure_stays(tmp_path: Path) -> None:
    opened, file = open_pool(write_pool(tmp_path, IDS)), str(tmp_path / "out.parquet")
    with opened.publishing(lambda: [file]):
        storage.write_table(file, pa.table({"utterance_id": IDS}))
    assert storage.read_table(file)["utterance_id"].to_pylist() == IDS


@pytest.mark.parametrize("moment", ["before", "during"])
def test_nothing_is_published_after_an_erasure(tmp_path: Path, moment: str) -> None:
    pool, file = write_pool(tmp_path, IDS), str(tmp_path / "out.parquet")
    opened = open_pool(pool)

    def publish() -> None:
        with opened.publishing(lambda: [file]):
            assert moment == "during"
            storage.write_table(file, pa.table({"utterance_id": IDS}))
            erase_one(pool)

    if moment == "before":
        erase_one(pool)
    with pytest.raises(StateError, match=r"something was erased from .* since this began"):
        publish()
    assert not Path(file).exists()
    with open_pool(pool).publishing(lambda: [file]):  # whoever opens it now knows
        storage.write_table(file, pa.table({"utterance_id": open_pool(pool).metadata["utterance_id"]}))
    assert storage.read_table(file)["utterance_id"].to_pylist() == ["made-1", "made-3"]


WRITER = """
import sys, time
from collections.abc import Sequence
from pathlib import Path
import pyarrow as pa
from seral import storage
from seral.errors import StateError
from seral.pool.shards import open_pool
pool, run = open_pool(sys.argv[1]), sys.argv[2]
with storage.writing_to(run):
    print("writes", flush=True)
    number = 0
    try:
        while True:
            file = storage.join(run, f"{number}.parquet")
            with pool.publishing(lambda: [file]):
                storage.write_table(file, pa.table({"utterance_id": ["made-1", "made-2"], "number": [number, number]}))
            number += 1
    except StateError as error:
        print(error, flush=True)
"""


def test_an_erasure_waits_for_a_run_that_writes_and_nothing_is_left(tmp_path: Path) -> None:
    pool, run = write_pool(tmp_path, IDS), tmp_path / "run"
    run.mkdir()
    writer = subprocess.Popen([sys.executable, "-c", WRITER, pool, str(run)], stdout=subprocess.PIPE, text=True)
    assert writer.stdout is not None
    assert writer.stdout.readline() == "writes\n"
    while len(list(run.glob("*.parquet"))) < 5:
        time.sleep(0.01)
    done = erase_one(pool, also=[str(run)])
    assert not storage.is_written_to(run)
    assert "give the command again" in writer.communicate(timeout=20)[0]
    tables = [storage.read_table(file)["utterance_id"].to_pylist() for file in run.glob("*.parquet")]
    assert len(tables) >= 5
    assert all(ids == ["made-1"] for ids in tables)
    assert done["finished"] is not None
    assert read_erased(pool).knows("utterance", "made-2")


def test_an_erasure_waits_as_long_as_the_writer_takes(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    pool, run = write_pool(tmp_path, IDS), tmp_path / "run"
    run.mkdir()
    with storage.writing_to(run):
        eraser = threading.Thread(target=erase_one, args=(pool,), kwargs={"also": [str(run)]})
        eraser.start()
        deadline = time.monotonic() + 20
        while not (tombstones := read_erased(pool).tombstones):
            assert time.monotonic() < deadline
            time.sleep(0.05)
        time.sleep(0.5)
        assert eraser.is_alive()
        assert tombstones[0]["finished"] is None
    eraser.join(20)
    assert read_erased(pool).tombstones[0]["finished"] is not None
    assert f"a command writes to {run}: it stops at its next step" in capsys.readouterr().err
