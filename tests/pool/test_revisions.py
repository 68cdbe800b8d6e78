"""Revisions of a pool, whatever others do meanwhile."""

from __future__ import annotations

import errno
import os
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest
from corpus_layouts.pool_rows import put_shard, row, set_shards
from s3_server import s3_server, use

from seral import storage
from seral.errors import StateError
from seral.pool import exclusive, revisions
from seral.pool.check import check_pool
from seral.pool.exclusive import CLAIM
from seral.pool.revisions import KEPT_S, TRIES, Change, commit, revision_uri
from seral.pool.shards import TABLES, manifest_uri, open_pool, read_manifest, shard_uri

WRITER = """
import sys
from seral.pool.revisions import Change, commit
from corpus_layouts.pool_rows import put_shard, row
pool, name, count = sys.argv[1], sys.argv[2], int(sys.argv[3])
print("ready", flush=True)
sys.stdin.readline()
for number in range(count):
    shard = f"{name}-{number}"
    entry = put_shard(pool, shard, [row(shard)])
    commit(pool, lambda newest: Change(entries={**newest["shards"], shard: entry}, written={shard}))
"""


def journal(pool: str, revision: int) -> dict[str, str]:
    changes = storage.read_table(revision_uri(pool, revision)).to_pylist()
    return {change["utterance_id"]: change["change"] for change in changes}


@pytest.fixture
def pool(tmp_path: Path) -> str:
    """One revision of one shard."""
    uri = str(tmp_path / "pool")
    set_shards(uri, {"s1": put_shard(uri, "s1", [row("a"), row("b"), row("c")])})
    return uri


def test_every_revision_leaves_what_came_went_and_was_marked(pool: str) -> None:
    assert journal(pool, 1) == {"a": "came", "b": "came", "c": "came"}
    before = read_manifest(pool)
    assert before is not None
    entries = {**before["shards"], "s2": put_shard(pool, "s2", [row("d")])}
    assert set_shards(pool, entries)["revision"] == 2
    assert journal(pool, 2) == {"d": "came"}
    changed = put_shard(pool, "s3", [row("b", duplicate_of="a"), row("a")])
    set_shards(pool, {"s2": entries["s2"], "s3": changed})
    assert journal(pool, 3) == {"b": "marked", "c": "went"}
    assert sorted(open_pool(pool).ids["utterance_id"].to_pylist()) == ["a", "b", "d"]
    assert check_pool(pool) == []


def test_the_same_shards_are_no_new_revision(pool: str) -> None:
    manifest = read_manifest(pool)
    assert manifest is not None
    assert set_shards(pool, manifest["shards"]) == manifest
    assert storage.list_names(storage.join(pool, "revisions")) == ["000001.json", "000001.parquet"]


def age(pool: str, shard: str, seconds: float) -> None:
    for table in TABLES:
        os.utime(shard_uri(pool, table, shard), (time.time() - seconds,) * 2)


def test_what_another_writer_has_under_way_stays(pool: str) -> None:
    put_shard(pool, "under-way", [row("x")])
    put_shard(pool, "abandoned", [row("y")])
    age(pool, "under-way", KEPT_S - 100)
    age(pool, "abandoned", KEPT_S + 100)
    storage.write_bytes(storage.join(pool, "gold", "s1.parquet.12345678.partial"), b"half")
    set_shards(pool, {**open_pool(pool).manifest["shards"], "s2": put_shard(pool, "s2", [row("d")])})
    for table in TABLES:
        assert storage.list_names(storage.join(pool, table)) == ["s1.parquet", "s2.parquet", "under-way.parquet"]


def test_a_clock_that_jumps_deletes_nothing(pool: str, monkeypatch: pytest.MonkeyPatch) -> None:
    put_shard(pool, "under-way", [row("x")])
    jumped = time.time() + 10 * KEPT_S
    monkeypatch.setattr(time, "time", lambda: jumped)
    set_shards(pool, {**open_pool(pool).manifest["shards"], "s2": put_shard(pool, "s2", [row("d")])})
    assert "under-way.parquet" in storage.list_names(storage.join(pool, "utterances"))


def test_what_a_change_made_obsolete_is_deleted(pool: str) -> None:
    put_shard(pool, "step", [row("a")])
    entries = {"s2": put_shard(pool, "s2", [row("d")])}
    commit(pool, lambda _: Change(entries=entries, written={"step", "s2"}))
    for table in TABLES:
        assert storage.list_names(storage.join(pool, table)) == ["s2.parquet"]


def test_a_change_is_made_anew_of_what_came_meanwhile(pool: str) -> None:
    entries = {name: put_shard(pool, name, [row(name)]) for name in ("s2", "s3")}
    revisions_before = []

    def change(newest: dict[str, Any]) -> Change:
        if not revisions_before:
            set_shards(pool, {**newest["shards"], "s2": entries["s2"]})
        revisions_before.append(newest["revision"])
        return Change(entries={**newest["shards"], "s3": entries["s3"]})

    assert commit(pool, change)["revision"] == 3
    assert revisions_before == [1, 2]
    assert open_pool(pool).shards == ["s1", "s2", "s3"]
    assert journal(pool, 3) == {"s3": "came"}
    assert check_pool(pool) == []


def test_a_change_that_others_outrun_for_ever_ends_in_a_sentence(pool: str) -> None:
    entries = {f"t{number}": put_shard(pool, f"t{number}", [row(f"t{number}")]) for number in range(TRIES)}
    names = [*entries]

    def change(newest: dict[str, Any]) -> Change:
        name = names.pop()
        set_shards(pool, {**newest["shards"], name: entries[name]})
        return Change(entries={})

    with pytest.raises(StateError, match=r"others changed .* meanwhile; run this again"):
        commit(pool, change)
    assert open_pool(pool).shards == ["s1", *sorted(entries)]


def dies(*_: object, **__: object) -> None:
    raise KeyboardInterrupt


@pytest.mark.parametrize("step", ["write_table", "write_json"])
def test_what_a_writer_left_to_do_is_done_by_the_next(pool: str, step: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Stopped before its journal, or before the copy of its manifest: readers have its revision all the same."""
    entries = {**open_pool(pool).manifest["shards"], "s2": put_shard(pool, "s2", [row("d")])}
    monkeypatch.setattr(revisions.storage, step, dies)
    with pytest.raises(KeyboardInterrupt):
        set_shards(pool, entries)
    monkeypatch.undo()
    assert storage.read_json(storage.join(pool, "manifest.json"))["revision"] == 1
    assert open_pool(pool).shards == ["s1", "s2"]
    set_shards(pool, entries)
    assert storage.read_json(storage.join(pool, "manifest.json")) == open_pool(pool).manifest
    assert journal(pool, 2) == {"d": "came"}


def test_a_pool_of_an_earlier_version_goes_on(pool: str) -> None:
    storage.remove(manifest_uri(pool, 1))
    set_shards(pool, {**open_pool(pool).manifest["shards"], "s2": put_shard(pool, "s2", [row("d")])})
    assert open_pool(pool).manifest["revision"] == 2
    assert check_pool(pool) == []


def write_at_once(pool: str, writers: int, count: int) -> None:
    """So many processes, each of which adds so many shards of one row."""
    start = [sys.executable, "-c", WRITER, pool]
    environment = os.environ | {"PYTHONPATH": os.pathsep.join(sys.path)}
    processes = [
        subprocess.Popen(
            [*start, f"w{number}", str(count)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            env=environment,
            text=True,
        )
        for number in range(writers)
    ]
    for process in processes:
        assert process.stdout is not None
        assert process.stdout.readline() == "ready\n"
    for process in processes:
        process.communicate("go\n", timeout=300)
    assert [process.returncode for process in processes] == [0] * writers


def assert_nothing_lost(pool: str, writers: int, count: int) -> None:
    assert open_pool(pool).shards == sorted(f"w{w}-{n}" for w in range(writers) for n in range(count))
    assert open_pool(pool).manifest["revision"] == writers * count
    came = [name for number in range(1, writers * count + 1) for name in journal(pool, number)]
    assert sorted(came) == sorted(open_pool(pool).ids["utterance_id"].to_pylist())
    assert check_pool(pool) == []


def test_processes_that_write_at_once_lose_nothing(tmp_path: Path) -> None:
    write_at_once(str(tmp_path / "pool"), 4, 8)
    assert_nothing_lost(str(tmp_path / "pool"), 4, 8)


@pytest.mark.slow
def test_so_do_processes_at_a_store(monkeypatch: pytest.MonkeyPatch) -> None:
    with s3_server() as door:
        use(door, monkeypatch)
        write_at_once("s3://speech/pool", 3, 4)
        assert_nothing_lost("s3://speech/pool", 3, 4)
        names = storage.list_names("s3://speech/pool/revisions")
        assert not [name for name in names if name.endswith(CLAIM)]


@pytest.mark.slow
def test_a_claim_at_a_store(monkeypatch: pytest.MonkeyPatch) -> None:
    """Nobody writes beside a living claim; one of a writer that died is taken away after a while."""
    with s3_server() as door:
        use(door, monkeypatch)
        uri = "s3://speech/pool/revisions/000001.json"
        storage.write_bytes(f"{uri}.other{CLAIM}", b"")
        monkeypatch.setattr(exclusive, "LEASE_S", 2.0)
        since = time.monotonic()
        assert exclusive.create(uri, b"mine")
        assert time.monotonic() - since > 1
        assert not exclusive.create(uri, b"another's")
        assert storage.read_bytes(uri) == b"mine"
        assert storage.list_names("s3://speech/pool/revisions") == ["000001.json"]


def test_a_file_system_without_links(pool: str, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: object) -> None:
        raise OSError(errno.EPERM, "Operation not permitted")

    monkeypatch.setattr(os, "link", refuse)
    uri = storage.join(pool, "revisions", "000009.json")
    assert exclusive.create(uri, b"mine")
    assert not exclusive.create(uri, b"another's")
    assert storage.read_bytes(uri) == b"mine"
