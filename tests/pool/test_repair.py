"""Pools with damaged, missing and unreadable files."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest
from corpus_layouts.pool_rows import put_shard, row, set_shards
from typer.testing import CliRunner

from seral import storage
from seral.cli import app
from seral.erase.erase import EraseOptions, erase
from seral.errors import PoolError
from seral.options import parse
from seral.pool.check import check_pool
from seral.pool.repair import repair_pool
from seral.pool.revisions import read_entry
from seral.pool.shards import open_pool, shard_uri
from seral.pool.snapshots import take_snapshot
from seral.schema import GOLD

IDS = {"one": ["made-a", "made-b"], "two": ["made-c", "made-d"]}


@pytest.fixture
def pool(tmp_path: Path) -> str:
    """Two shards with gold labels, of two revisions."""
    uri = str(tmp_path / "pool")
    entries: dict[str, Any] = {}
    for shard, names in IDS.items():
        put_shard(uri, shard, [row(name, speaker=name[-1]) for name in names])
        gold = [{"utterance_id": name, "emotion": "anger"} for name in names]
        storage.write_table(shard_uri(uri, "gold", shard), pa.Table.from_pylist(gold, GOLD))
        entries[shard] = read_entry(uri, shard)
        set_shards(uri, entries)
    return uri


def flip(uri: str, at: int = 40) -> None:
    """One bit of a file is another."""
    data = bytearray(Path(uri).read_bytes())
    data[at] ^= 4
    Path(uri).write_bytes(data)


def files_of(pool: str) -> dict[str, bytes]:
    return {name: (Path(pool) / name).read_bytes() for name in storage.list_files(pool)}


def ids_of(pool: str) -> list[str]:
    return sorted(open_pool(pool).ids["utterance_id"].to_pylist())


def test_a_sound_pool_stays_as_it_is(pool: str) -> None:
    before = files_of(pool)
    report = repair_pool(pool)
    assert not any(report[name] for name in ("unreadable", "restored", "adopted", "gone"))
    assert files_of(pool) == before


@pytest.mark.parametrize("table", ["utterances", "gold", "quarantine"])
@pytest.mark.parametrize("harm", [flip, storage.remove])
def test_a_backup_gives_the_same_bytes(pool: str, table: str, harm: Any, tmp_path: Path) -> None:
    before = files_of(pool)
    shutil.copytree(pool, tmp_path / "backup")
    harm(shard_uri(pool, table, "one"))
    harmed = files_of(pool)
    assert repair_pool(pool, [str(tmp_path / "backup")], dry_run=True)["restored"][0]["table"] == table
    assert files_of(pool) == harmed
    (restored,) = repair_pool(pool, [str(tmp_path / "backup")])["restored"]
    assert restored == {"shard": "one", "table": table, "from": shard_uri(str(tmp_path / "backup"), table, "one")}
    after = files_of(pool)
    assert {name: data for name, data in after.items() if not name.startswith("damaged/")} == before
    assert check_pool(pool) == []


@pytest.mark.parametrize("at", [40, -30])
def test_what_is_gone_is_named_and_leaves_the_pool(pool: str, at: int) -> None:
    flip(shard_uri(pool, "utterances", "one"), at)
    (gone,) = repair_pool(pool)["gone"]
    assert gone == {"shard": "one", "tables": ["utterances"], "rows": 2, "ids": IDS["one"]}
    assert ids_of(pool) == IDS["two"]
    assert open_pool(pool).manifest["revision"] == 3
    assert check_pool(pool) == []
    assert storage.list_files(f"{pool}/damaged") == ["utterances/one.parquet"]
    assert not any(repair_pool(pool)[name] for name in ("unreadable", "restored", "adopted", "gone"))


@pytest.mark.parametrize("at", [40, -30, -2])
def test_an_erasure_goes_through_after_a_repair(pool: str, at: int) -> None:
    flip(shard_uri(pool, "utterances", "one"), at)
    repair_pool(pool)
    assert erase(parse(EraseOptions, {"pool": pool, "speaker": "made/c"}))["finished"]
    assert not storage.list_files(f"{pool}/damaged")
    assert ids_of(pool) == ["made-d"]


def test_utterances_stay_where_only_their_labels_are_gone(pool: str) -> None:
    flip(shard_uri(pool, "gold", "one"))
    (gone,) = repair_pool(pool)["gone"]
    assert (gone["tables"], gone["ids"]) == (["gold"], IDS["one"])
    assert ids_of(pool) == sorted(IDS["one"] + IDS["two"])
    assert check_pool(pool) == []


@pytest.mark.parametrize("harm", [lambda uri: Path(uri).write_text('{"format": 2, "sha'), storage.remove])
def test_the_manifest_of_the_revision_stands_in_for_its_copy(pool: str, harm: Any) -> None:
    harm(f"{pool}/manifest.json")
    report = repair_pool(pool)
    assert not report["adopted"]
    assert not report["gone"]
    assert open_pool(pool).manifest["revision"] == 2
    assert ids_of(pool) == sorted(IDS["one"] + IDS["two"])
    assert check_pool(pool) == []


def test_shards_are_found_without_any_newest_manifest(pool: str) -> None:
    for name in ("manifest.json", "revisions/000002.json"):
        Path(pool, name).write_text("{")
    assert repair_pool(pool)["adopted"] == ["two"]
    assert ids_of(pool) == sorted(IDS["one"] + IDS["two"])
    assert check_pool(pool) == []


def test_shards_are_found_without_any_manifest_and_the_erased_stays_out(pool: str) -> None:
    before = files_of(pool)
    erase(parse(EraseOptions, {"pool": pool, "speaker": "made/a"}))
    for name in ("one.parquet",):  # of an import that was cut off before the erasure, and came back from a backup
        for table in ("utterances", "gold", "votes", "quarantine"):
            Path(pool, table, name).write_bytes(before[f"{table}/{name}"])
    storage.remove(f"{pool}/manifest.json")
    storage.remove(f"{pool}/revisions")
    report = repair_pool(pool)
    assert "one" not in report["adopted"]
    assert ids_of(pool) == ["made-b", "made-c", "made-d"]
    assert check_pool(pool) == []


def test_a_snapshot_has_what_the_newest_lost(pool: str) -> None:
    take_snapshot(pool, "mine")
    entry = put_shard(pool, "one.0123abcd", [row("made-a", speaker="a"), row("made-b", duplicate_of="made-a")])
    set_shards(pool, {"one.0123abcd": entry, "two": open_pool(pool).manifest["shards"]["two"]})
    flip(shard_uri(pool, "utterances", "one.0123abcd"), -30)
    report = repair_pool(pool)
    assert report["adopted"] == ["one"]
    assert ids_of(pool) == sorted(IDS["one"] + IDS["two"])
    assert check_pool(pool) == []
    assert ids_of(f"{pool}@mine") == ids_of(pool)


def test_the_command_says_what_it_does(pool: str, tmp_path: Path) -> None:
    storage.remove(shard_uri(pool, "utterances", "one"))
    run = CliRunner()
    shown = run.invoke(app, ["pool", "repair", pool, "--dry-run"])
    assert shown.exit_code == 1
    assert "shard one is gone, 2 utterances, such as made-a, made-b: import its corpus again" in shown.output
    done = run.invoke(app, ["pool", "repair", pool, "--ids", str(tmp_path / "gone.txt")])
    assert done.exit_code == 1
    assert (tmp_path / "gone.txt").read_text() == "made-a\nmade-b\n"
    assert "nothing to repair" in run.invoke(app, ["pool", "repair", pool]).output


def test_where_there_is_no_pool(tmp_path: Path) -> None:
    with pytest.raises(PoolError, match="there is no pool"):
        repair_pool(str(tmp_path))
