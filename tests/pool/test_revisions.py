from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest
from corpus_layouts.pool_rows import row

from seral import storage
from seral.errors import StateError
from seral.pool.check import check_pool
from seral.pool.revisions import EMPTY, commit, read_entry, revision_uri
from seral.pool.shards import TABLES, open_pool, read_manifest, shard_uri


def put_shard(pool: str, shard: str, rows: Sequence[dict[str, Any]]) -> dict[str, Any]:
    for table, schema in TABLES.items():
        content = rows if table == "utterances" else []
        storage.write_table(shard_uri(pool, table, shard), pa.Table.from_pylist(content, schema))
    return read_entry(pool, shard)


def journal(pool: str, revision: int) -> dict[str, str]:
    changes = storage.read_table(revision_uri(pool, revision)).to_pylist()
    return {change["utterance_id"]: change["change"] for change in changes}


@pytest.fixture
def pool(tmp_path: Path) -> str:
    """One revision of one shard."""
    uri = str(tmp_path / "pool")
    commit(uri, EMPTY, {"s1": put_shard(uri, "s1", [row("a"), row("b"), row("c")])})
    return uri


def test_every_revision_leaves_what_came_went_and_was_marked(pool: str) -> None:
    assert journal(pool, 1) == {"a": "came", "b": "came", "c": "came"}
    before = read_manifest(pool)
    assert before is not None
    entries = {**before["shards"], "s2": put_shard(pool, "s2", [row("d")])}
    assert commit(pool, before, entries)["revision"] == 2
    assert journal(pool, 2) == {"d": "came"}
    changed = put_shard(pool, "s3", [row("b", duplicate_of="a"), row("a")])
    commit(pool, open_pool(pool).manifest, {"s2": entries["s2"], "s3": changed})
    assert journal(pool, 3) == {"b": "marked", "c": "went"}
    assert sorted(open_pool(pool).ids["utterance_id"].to_pylist()) == ["a", "b", "d"]
    assert check_pool(pool) == []


def test_the_same_shards_are_no_new_revision(pool: str) -> None:
    manifest = read_manifest(pool)
    assert manifest is not None
    assert commit(pool, manifest, manifest["shards"]) == manifest
    assert len(storage.list_names(storage.join(pool, "revisions"))) == 1


def test_what_no_manifest_lists_is_deleted(pool: str) -> None:
    manifest = read_manifest(pool)
    assert manifest is not None
    put_shard(pool, "abandoned", [row("x")])
    storage.write_bytes(storage.join(pool, "gold", "s1.parquet.12345678.partial"), b"half")
    commit(pool, manifest, manifest["shards"])
    for table in TABLES:
        assert storage.list_names(storage.join(pool, table)) == ["s1.parquet"]


def test_two_changes_at_once_do_not_overwrite_each_other(pool: str) -> None:
    before = read_manifest(pool)
    assert before is not None
    entries = {**before["shards"], "s2": put_shard(pool, "s2", [row("d")])}
    commit(pool, before, entries)
    with pytest.raises(StateError, match=r"something else changed .* meanwhile; run this again"):
        commit(pool, before, before["shards"])
    assert read_manifest(pool) == open_pool(pool).manifest
    assert open_pool(pool).rows == 4
