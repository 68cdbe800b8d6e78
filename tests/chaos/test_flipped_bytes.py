"""One byte flipped in every kind of file: whoever reads it says so, and names it."""

from __future__ import annotations

import random
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest

from ser_models.checksums import SUMS
from seral import storage
from seral.errors import DamagedError, PoolError
from seral.loop.loop import run_loop
from seral.loop.options import LoopOptions
from seral.options import parse
from seral.pool.check import check_pool
from seral.pool.snapshots import take_snapshot
from seral.storage.tables import check_table
from seral.synthesis.corpus import EMOTIONS
from seral.verbs.check_run import check_run

SCHEMA = pa.schema(
    [
        ("utterance_id", pa.string()),
        ("audio", pa.large_binary()),
        ("order", pa.int32()),
        ("values", pa.list_(pa.float32())),
        ("half", pa.binary(4)),
    ]
).with_metadata({"encoder": "abcdef"})
FOR_EYES = {".png", ".html", ".csv", ".md"}
"""Ends of names of files that seral writes for people and never reads."""


def flips(data: bytes) -> Iterator[bytes]:
    """Every version of some bytes with one bit of one byte changed, two bits each."""
    for at in range(len(data)):
        for bit in (at % 8, (at + 5) % 8):
            yield data[:at] + bytes([data[at] ^ (1 << bit)]) + data[at + 1 :]


def test_a_table_with_any_byte_flipped_is_refused_or_the_same(tmp_path: Path) -> None:
    file = tmp_path / "table.parquet"
    rows = [
        {"utterance_id": f"clip-{n % 5}", "audio": b"\0" * 40, "order": n, "values": [0.5, 2.0], "half": b"abcd"}
        for n in range(20)
    ]
    table = pa.Table.from_pylist(rows, SCHEMA)
    storage.write_table(file, table, row_group_rows=8)
    whole, refused = file.read_bytes(), 0
    for data in flips(whole):
        file.write_bytes(data)
        with pytest.raises(DamagedError, match=str(file)):
            check_table(file)
        try:
            read = storage.read_table(file)
        except PoolError as error:
            refused += int(str(file) in str(error))
        else:
            assert read.cast(SCHEMA).equals(table)
    assert refused > len(whole), "more than half of all flips"


@pytest.mark.parametrize(
    ("write", "read"),
    [
        (lambda file: storage.write_json(file, {"b": [1, None], "a": "ä"}), storage.read_json),
        (lambda file: storage.write_json(file, {}), storage.read_json),
        (lambda file: storage.write_yaml(file, "verb: loop\nseeds: [0, 1]\n"), storage.read_yaml),
        (lambda file: storage.write_bytes(file, storage.seal(b"\0state" * 5)), storage.read_sealed),
    ],
    ids=["record", "nothing", "configuration", "state"],
)
def test_a_record_with_any_byte_flipped_is_refused(
    tmp_path: Path, write: Callable[[Path], None], read: Callable[[Path], Any]
) -> None:
    file = tmp_path / "file"
    write(file)
    read(file)
    for data in flips(file.read_bytes()):
        file.write_bytes(data)
        with pytest.raises(PoolError, match=str(file)):
            read(file)


def test_records_of_older_releases_are_read_without_a_checksum(tmp_path: Path) -> None:
    (tmp_path / "a.json").write_text('{\n  "pool_hash": "' + "a" * 64 + '"\n}\n')
    (tmp_path / "b.json").write_text("[1, 2]")
    (tmp_path / "c.yaml").write_text("verb: loop\n")
    assert storage.read_json(tmp_path / "a.json") == {"pool_hash": "a" * 64}
    assert storage.read_json(tmp_path / "b.json") == [1, 2]
    assert storage.read_yaml(tmp_path / "c.yaml") == "verb: loop\n"


@pytest.fixture(scope="module")
def work(speech_pool: str, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A pool with features and a snapshot, and a run of the loop on it."""
    folder = tmp_path_factory.mktemp("flipped")
    shutil.copytree(speech_pool, folder / "pool")
    take_snapshot(str(folder / "pool"), "first")
    run_loop(loop_options(folder))
    return folder


def loop_options(folder: Path) -> LoopOptions:
    values = {"pool": str(folder / "pool"), "run": str(folder / "run"), "feature_cache": str(folder / "features")}
    values |= {"encoder": "seral-tiny", "folds": [0], "seeds": [0], "classes": list(EMOTIONS)}
    values |= {"split": {"scheme": "k-fold", "k": 3}, "finetune": {"adapter": "frozen"}}
    return parse(LoopOptions, values | {"full_arm": False, "budget": {"sizes": [8, 12]}})


def test_what_is_sound_is_said_to_be(work: Path) -> None:
    assert check_pool(str(work / "pool")) == []
    outcome = check_run(str(work / "run"))
    assert outcome.problems == []
    assert outcome.without == []
    assert outcome.files > 20


def test_a_flipped_byte_in_any_file_of_a_pool_or_a_run_is_named(work: Path) -> None:
    rng, tried, silent = random.Random(0), 0, []
    files = [file for file in sorted(work.rglob("*")) if file.is_file() and file.stat().st_size]
    for file in files:
        if file.suffix in FOR_EYES or file.name.startswith("."):
            continue
        data = file.read_bytes()
        at = rng.randrange(len(data))
        file.write_bytes(data[:at] + bytes([data[at] ^ 1 << rng.randrange(8)]) + data[at + 1 :])
        if file.is_relative_to(work / "pool"):
            problems = problems_of(check_pool, work / "pool")
        else:
            problems = problems_of(lambda run: check_run(run).problems, work / "run")
        tried += 1
        named = str(file.parent if file.name == SUMS else file)
        if not any(named in problem or file.stem in problem for problem in problems):
            silent.append(f"{file.relative_to(work)} at {at}")
        file.write_bytes(data)
    assert tried > 30
    assert silent == []


def problems_of(check: Callable[[str], list[str]], folder: Path) -> list[str]:
    try:
        return check(str(folder))
    except PoolError as error:
        return [str(error)]


@pytest.mark.parametrize("suffix", [".safetensors", ".parquet"])
def test_a_run_does_not_go_on_from_a_round_that_is_damaged(work: Path, tmp_path: Path, suffix: str) -> None:
    shutil.copytree(work, tmp_path / "work")
    (rounds,) = (tmp_path / "work/run/trajectories").glob("auto*/rounds")
    shutil.rmtree(rounds / "0001")
    name = {".safetensors": "model/head.safetensors", ".parquet": "labels.parquet"}[suffix]
    file = rounds / "0000" / name
    data = file.read_bytes()
    at = len(data) // 10 if suffix == ".parquet" else len(data) // 2  # in what is read of it
    file.write_bytes(data[:at] + bytes([data[at] ^ 4]) + data[at + 1 :])
    with pytest.raises((DamagedError, PoolError), match="is damaged"):
        run_loop(loop_options(tmp_path / "work"))
