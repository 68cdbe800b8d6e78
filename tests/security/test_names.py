"""Pools whose names are paths: nothing is read or written outside of a folder."""

from __future__ import annotations

from contextlib import closing
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from corpus_layouts.pool_rows import row, set_shards

from seral import storage
from seral.errors import PoolError
from seral.labels.exchange import ExportOptions, export_labels
from seral.labels.ledger import Ledger
from seral.labels.records import Project
from seral.pool.check import check_pool
from seral.pool.derive import SelectOptions, merge_pools, select_from_pool
from seral.pool.revisions import read_entry
from seral.pool.shards import TABLES, open_pool, shard_uri
from seral.security.paths import check_name, check_names

IDS = ["../../x", "a/b", "/etc/x", "..", ".x", "a\\b", "a\nb", "x" * 300, ""]


@pytest.mark.parametrize("name", ["a\n", "x" * 201, "\x7f", "ü\n"])
def test_one_name_and_a_column_of_them_are_judged_alike(name: str) -> None:
    for check in (check_name(fine, "a clip") for fine in ("a", "x" * 200, "ü" * 200, "a b", "a.b")):
        check_names(pa.array([check]), "a clip")
    with pytest.raises(PoolError, match="a name has no"):
        check_name(name, "a clip")
    with pytest.raises(PoolError, match="a name has no"):
        check_names(pa.array(["a", name]), "a clip")


def write_pool(folder: Path, ids: list[str], shard: str = "made-1", corpus: str = "made") -> str:
    pool = str(folder / "pool")
    rows = [row(f"clip{number}", corpus=corpus) | {"utterance_id": name} for number, name in enumerate(ids)]
    for table, schema in TABLES.items():
        storage.write_table(
            shard_uri(pool, table, shard), pa.Table.from_pylist(rows if table == "utterances" else [], schema)
        )
    set_shards(pool, {shard: read_entry(pool, shard)})
    return pool


def files(folder: Path) -> set[Path]:
    return {path for path in folder.rglob("*") if path.is_file()}


@pytest.mark.parametrize("name", IDS)
def test_an_id_that_is_a_path_opens_no_pool(name: str, tmp_path: Path) -> None:
    """Also where the ids of a sound pool are changed after it was made."""
    folder = tmp_path / "deep" / "down"
    pool = write_pool(folder, ["made-1", "made-2"])
    file = folder / "pool/utterances/made-1.parquet"
    table = pq.read_table(file)
    ids = pa.array(["made-1", name], pa.string())
    pq.write_table(table.set_column(table.column_names.index("utterance_id"), "utterance_id", ids), file)
    with closing(Ledger.create(str(folder / "labels.sqlite"), Project(classes=("anger", "joy")))) as ledger:
        ledger.ask("round-0", ["made-1", name or "made-2"], purpose="round")
        before = files(tmp_path)
        with pytest.raises(PoolError, match="a name has no"):
            export_labels(ledger, folder / "out" / "labels.csv", "csv", ExportOptions(pool=pool))
    assert files(tmp_path) - before <= files(folder / "pool" / "derived")
    for read in (lambda: open_pool(pool).ids, lambda: open_pool(pool).metadata, lambda: list(open_pool(pool).clips())):
        with pytest.raises(PoolError, match="a name has no"):
            read()
    with pytest.raises(PoolError, match="a name has no"):
        select_from_pool(SelectOptions(pool=pool, out=str(folder / "part"), where=["duration_s > 0"]))
    with pytest.raises(PoolError, match="a name has no"):
        merge_pools([pool], str(folder / "whole"))


@pytest.mark.parametrize("shard", ["../../secret", "/etc/x", "..", "a/b"])
def test_a_shard_that_is_a_path_is_not_followed(shard: str, tmp_path: Path) -> None:
    pool = write_pool(tmp_path / "deep", ["made-1"])
    manifest = storage.read_json(storage.join(pool, "manifest.json"))
    entry = next(iter(manifest["shards"].values()))
    storage.write_json(storage.join(pool, "manifest.json"), manifest | {"shards": {shard: entry}})
    with pytest.raises(PoolError, match=r"manifest\.json, shard .*a name has no"):
        open_pool(pool)
    with pytest.raises(PoolError, match="a name has no"):
        check_pool(pool)


def test_a_corpus_that_is_a_path_names_no_shard(tmp_path: Path) -> None:
    pool = write_pool(tmp_path / "deep", ["made-1"], corpus="../../x")
    before = files(tmp_path)
    with pytest.raises(PoolError, match=r"corpus '\.\./\.\./x': a name has no"):
        select_from_pool(SelectOptions(pool=pool, out=str(tmp_path / "deep/part"), where=["duration_s > 0"]))
    assert {path for path in files(tmp_path) - before if "derived" not in path.parts} == set()


@pytest.mark.parametrize("text", ["[" * 100_000, "[1]", "{", '{"format": 2}', '{"format": 2, "shards": 3}'])
def test_a_manifest_that_is_none_is_named(text: str, tmp_path: Path) -> None:
    (tmp_path / "pool").mkdir()
    (tmp_path / "pool/manifest.json").write_text(text)
    with pytest.raises(PoolError, match=r"manifest\.json"):
        open_pool(str(tmp_path / "pool"))


def test_clips_for_another_tool_say_where_they_are_from(tmp_path: Path) -> None:
    pool = write_pool(tmp_path, ["made-1", "made-2"])
    with closing(Ledger.create(str(tmp_path / "labels.sqlite"), Project(classes=("anger", "joy")))) as ledger:
        ledger.ask("round-0", ["made-1"], purpose="round")
        export_labels(ledger, tmp_path / "out/labels.csv", "csv", ExportOptions(pool=pool))
    record = storage.read_json(tmp_path / "out/clips/derived-from.json")
    assert record == {"pool": pool, "pool_hash": open_pool(pool).hash}
    assert (tmp_path / "out/clips/made-1.flac").is_file()
