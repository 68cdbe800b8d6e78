"""Object stores that are busy, break off, say nothing, refuse or die: a real S3 server behind a door that fails."""

from __future__ import annotations

import gzip
import os
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest
from s3_server import Door, Faults, environment, s3_server, use

from seral import storage
from seral.errors import DamagedError, DeniedError, OptionError, StoreError
from seral.storage.stores import PATIENCE

LARGE = np.random.default_rng(0).bytes(25 << 20)
"""More than Arrow sends in one part."""
PACKED = gzip.compress(b"packed", mtime=0)
"""Content of a file whose suffix Arrow would unpack, or pack once more, of itself."""


@pytest.fixture(scope="module")
def server() -> Iterator[Door]:
    with s3_server() as door:
        yield door


@pytest.fixture
def door(server: Door, monkeypatch: pytest.MonkeyPatch) -> Iterator[Door]:
    """The server, to which this process is led; at the end all passes again, and what is stuck is reset."""
    use(server, monkeypatch)
    yield server
    server.faults = Faults()
    server.close()
    server.open()


def work(folder: str) -> list[object]:
    """All that is done at a store, and what comes of it."""
    table = pa.table({"n": range(1000)})
    storage.write_bytes(f"{folder}/small", b"small")
    storage.write_bytes(f"{folder}/empty", b"")
    storage.write_bytes(f"{folder}/packed.gz", PACKED)
    storage.copy_file(f"{folder}/packed.gz", f"{folder}/packed.bz2")
    storage.write_table(f"{folder}/tables/1.parquet", table, row_group_rows=100)
    storage.copy_file(f"{folder}/small", f"{folder}/copy")
    storage.copy_folder(f"{folder}/tables", f"{folder}/more")
    storage.move(f"{folder}/copy", f"{folder}/moved")
    before = storage.list_files(folder)
    storage.remove(f"{folder}/tables")
    storage.remove(f"{folder}/moved")
    return [
        before,
        storage.list_files(folder),
        storage.read_bytes(f"{folder}/small"),
        storage.read_bytes(f"{folder}/empty"),
        storage.read_bytes(f"{folder}/packed.gz"),
        storage.checksum(f"{folder}/packed.bz2"),
        storage.exists(f"{folder}/moved"),
        storage.read_rows(f"{folder}/more/1.parquet", [5, 500, 7], ["n"]).to_pydict(),
        storage.checksum(f"{folder}/more/1.parquet"),
    ]


def test_a_store_is_written_and_read_as_a_disk_is(door: Door, tmp_path: Path) -> None:
    assert work("s3://speech/as-a-disk") == work(str(tmp_path / "disk"))
    folder = "s3://speech/folder"
    storage.write_json(f"{folder}/t/b.json", {"b": 1})
    storage.copy_folder(f"{folder}/t", tmp_path / "down")
    assert storage.read_json(tmp_path / "down" / "b.json") == {"b": 1}
    with storage.local_copy(f"{folder}/t") as local:
        assert os.listdir(local) == ["b.json"]
    assert not local.exists()
    storage.publish(f"{folder}/t", f"{folder}/done", last="b.json")
    assert storage.list_files(folder) == ["done/b.json"]


@pytest.mark.parametrize("kind", ["503", "500", "429", "reset", "lost", "cut"])
def test_what_fails_now_and_then_changes_nothing(kind: str, door: Door) -> None:
    expected = work(f"s3://speech/well-{kind}")
    door.faults = Faults(share=0.2, kinds=(kind,), seed=1)
    assert work(f"s3://speech/ill-{kind}") == expected
    assert door.injected[kind] >= 5


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["stall", "half"])
def test_what_says_nothing_is_asked_again(kind: str, door: Door, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(PATIENCE, "3")
    expected = work(f"s3://speech/well-{kind}")
    door.faults = Faults(share=0.05, kinds=(kind,), seed=2)
    assert work(f"s3://speech/ill-{kind}") == expected
    assert door.injected[kind]


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["503", "reset", "lost", "stall"])
def test_an_upload_in_parts_is_whole_or_not_there(kind: str, door: Door, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(PATIENCE, "3")
    uri = f"s3://speech/parts/{kind}"
    door.faults = Faults(share=1, kinds=(kind,), path="partNumber=2")
    with pytest.raises(StoreError, match=rf"{uri}: the store does not do this, asked \d+ times"):
        storage.write_bytes(uri, LARGE)
    door.faults = Faults()
    assert not storage.exists(uri)
    storage.write_bytes(uri, LARGE)
    assert storage.read_bytes(uri) == LARGE


@pytest.mark.slow
def test_a_read_that_breaks_off_goes_on(door: Door) -> None:
    storage.write_bytes("s3://speech/large", LARGE)
    for kind in ("cut", "503"):
        door.faults = Faults(share=0.3, kinds=(kind,), methods=("GET",), seed=3)
        assert storage.read_bytes("s3://speech/large") == LARGE
        assert door.injected[kind]


def test_an_answer_that_was_cut_before_it_told_the_bytes_is_no_empty_file(door: Door) -> None:
    storage.write_bytes("s3://speech/head", b"something")
    door.injected.clear()
    door.faults = Faults(share=0.4, kinds=("cut",), methods=("HEAD",), seed=5)
    contents = {storage.read_bytes("s3://speech/head") for _ in range(8)}
    assert contents == {b"something"}
    assert door.injected["cut"]


def test_a_refusal_a_missing_bucket_and_a_missing_file(door: Door, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(FileNotFoundError):
        storage.read_bytes("s3://speech/none")
    with pytest.raises(StoreError, match=r"s3://none/file: there is no such bucket\. Make it, or mend the address"):
        storage.write_bytes("s3://none/file", b"x")
    door.faults = Faults(share=1, kinds=("403",))
    for ask in (storage.read_bytes, storage.list_names, lambda uri: storage.write_bytes(uri, b"x")):
        with pytest.raises(DeniedError, match=r"s3://speech/closed: the store refuses this .*the credentials"):
            ask("s3://speech/closed")
    assert door.injected["403"] == 3, "none of these is asked again"
    monkeypatch.setenv(PATIENCE, "soon")
    with pytest.raises(OptionError, match=r"SERAL_STORE_PATIENCE_S is a number of seconds above 0, got 'soon'"):
        storage.read_bytes("s3://speech/closed")


@pytest.mark.slow
def test_a_store_that_dies_and_comes_back(door: Door, monkeypatch: pytest.MonkeyPatch) -> None:
    storage.write_bytes("s3://speech/lasting", b"x")
    door.close()
    threading.Timer(3, door.open).start()
    assert storage.read_bytes("s3://speech/lasting") == b"x"
    monkeypatch.setenv(PATIENCE, "2")
    door.close()
    with pytest.raises(StoreError, match="The same command goes on where this one ended"):
        storage.read_bytes("s3://speech/lasting")


def test_a_damaged_table_at_a_store_is_named(door: Door, tmp_path: Path) -> None:
    storage.write_table(tmp_path / "table", pa.table({"n": range(1000)}))
    data = bytearray((tmp_path / "table").read_bytes())
    data[100] ^= 1
    storage.write_bytes("s3://speech/damaged.parquet", bytes(data))
    with pytest.raises(DamagedError, match=r"s3://speech/damaged\.parquet is damaged"):
        storage.read_table("s3://speech/damaged.parquet")


@pytest.mark.slow
@pytest.mark.parametrize("methods", [("HEAD", "GET"), ("PUT", "POST")])
def test_a_command_ends_though_a_store_says_nothing(methods: tuple[str, ...], door: Door, tmp_path: Path) -> None:
    """In one sentence, with status 1, within bounds: Arrow would wait at the end of the process too."""
    door.faults = Faults(share=1, kinds=("stall",), methods=methods)
    clip = tmp_path / "clip.wav"
    clip.write_bytes(b"no sound")
    command = [sys.executable, "-m", "seral", "pool", "import", "folder", str(tmp_path), "--out", "s3://speech/stalled"]
    since = time.monotonic()
    done = subprocess.run(
        command, env=os.environ | environment(door) | {PATIENCE: "3"}, capture_output=True, text=True, check=False
    )
    assert done.returncode == 1, done.stderr
    assert "Traceback" not in done.stderr
    assert "FinalizeS3" not in done.stderr
    last = done.stderr.strip().splitlines()[-1]
    assert last.startswith("error: s3://speech/stalled")
    assert last.endswith("The same command goes on where this one ended")
    assert "no answer within 1 s" in last
    assert time.monotonic() - since < 90
    door.faults = Faults()
