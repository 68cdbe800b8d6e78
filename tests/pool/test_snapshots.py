from __future__ import annotations

from itertools import pairwise
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest
from corpus_layouts.pool_rows import put_shard, row, set_shards
from hypothesis import given, settings
from hypothesis import strategies as st

from seral import storage
from seral.erase.erase import EraseOptions, erase
from seral.errors import OptionError, PoolError, StateError
from seral.options import parse
from seral.pool.check import check_pool
from seral.pool.revisions import changes, revision_uri
from seral.pool.shards import EMPTY, open_pool, read_manifest
from seral.pool.snapshots import (
    diff_pools,
    diff_revisions,
    drop_snapshot,
    list_snapshots,
    summarise,
    take_snapshot,
)
from seral.schema import CHANGE


def ids_of(address: str) -> list[str]:
    return sorted(open_pool(address).ids["utterance_id"].to_pylist())


def change_by_id(difference: pa.Table) -> dict[str, str]:
    return {line["utterance_id"]: line["change"] for line in difference.to_pylist()}


@pytest.fixture
def pool(tmp_path: Path) -> str:
    """Three revisions: a and b; b gone and c there; d there."""
    uri = str(tmp_path / "pool")
    first = put_shard(uri, "s1", [row("m-a", speaker="Martha"), row("m-b")])
    set_shards(uri, {"s1": first})
    take_snapshot(uri, "first")
    second = put_shard(uri, "s2", [row("m-a", speaker="Martha"), row("m-c")])
    set_shards(uri, {"s2": second})
    third = put_shard(uri, "s3", [row("m-d")])
    set_shards(uri, {"s2": second, "s3": third})
    return uri


def test_a_snapshot_stays_as_it_was(pool: str) -> None:
    assert ids_of(pool) == ["m-a", "m-c", "m-d"]
    assert ids_of(f"{pool}@first") == ["m-a", "m-b"]
    assert check_pool(f"{pool}@first") == []
    assert open_pool(f"{pool}@first/").uri == pool
    assert [line["name"] for line in list_snapshots(pool)] == ["first"]
    assert list_snapshots(pool)[0]["revision"] == 1


def test_a_dropped_snapshot_takes_its_shards_along(pool: str) -> None:
    drop_snapshot(pool, "first")
    assert storage.list_names(f"{pool}/utterances") == ["s2.parquet", "s3.parquet"]
    assert list_snapshots(pool) == []
    assert check_pool(pool) == []
    with pytest.raises(PoolError, match="unknown snapshot 'first'; known: none"):
        open_pool(f"{pool}@first")


def test_names_that_would_mislead_are_refused(pool: str) -> None:
    with pytest.raises(StateError, match="another snapshot 'first'"):
        take_snapshot(pool, "first")
    take_snapshot(pool, "now")
    take_snapshot(pool, "now")
    for name in ("3", "a/b", "", "a@b"):
        with pytest.raises(OptionError, match="a snapshot's name is"):
            take_snapshot(pool, name)
    with pytest.raises(PoolError, match="a snapshot, which never changes"):
        read_manifest(f"{pool}@first")


def test_what_came_and_went_between_revisions(pool: str) -> None:
    assert change_by_id(diff_revisions(pool, "1", "2")) == {"m-b": "went", "m-c": "came"}
    assert change_by_id(diff_revisions(pool, "1")) == {"m-b": "went", "m-c": "came", "m-d": "came"}
    assert change_by_id(diff_revisions(pool, "first", "3")) == change_by_id(diff_revisions(pool, "1"))
    assert change_by_id(diff_revisions(pool, "3", "1")) == {"m-b": "came", "m-c": "went", "m-d": "went"}
    assert change_by_id(diff_revisions(pool, "0", "1")) == {"m-a": "came", "m-b": "came"}
    assert change_by_id(diff_revisions(pool, "2", "2")) == {}
    assert change_by_id(diff_pools(f"{pool}@first", pool)) == change_by_id(diff_revisions(pool, "1"))
    with pytest.raises(PoolError, match="no revision 4 yet: the newest is 3"):
        diff_revisions(pool, "1", "4")
    storage.remove(revision_uri(pool, 2))
    with pytest.raises(PoolError, match="no journal of its revision 2"):
        diff_revisions(pool, "1", "3")


def test_a_difference_in_counts(pool: str) -> None:
    counts = summarise(diff_revisions(pool, "1"))
    assert counts == {
        "came": 2, "came.m": 2, "came.such_as": ["m-c", "m-d"], "went": 1, "went.m": 1, "went.such_as": ["m-b"],
        "marked": 0,
    }  # fmt: skip


STATES = st.lists(
    st.dictionaries(st.sampled_from("abcde"), st.sampled_from([None, "a", "b"]), max_size=5), min_size=2, max_size=5
)


@settings(max_examples=60, deadline=None)
@given(states=STATES, data=st.data())
def test_journals_in_a_row_tell_what_two_tables_do(
    states: list[dict[str, Any]], data: st.DataObject, tmp_path_factory: pytest.TempPathFactory
) -> None:
    """Utterances come, go, come back and are marked in between; only marks that were taken back may stay in."""
    uri = str(tmp_path_factory.mktemp("journals"))
    schema = pa.schema([("utterance_id", pa.string()), ("duplicate_of", pa.string())])
    tables = [
        pa.Table.from_pylist([{"utterance_id": k, "duplicate_of": v} for k, v in state.items()], schema)
        for state in states
    ]
    for number, (one, other) in enumerate(pairwise(tables), start=1):
        storage.write_table(revision_uri(uri, number), changes(one, other))
    storage.write_json(f"{uri}/manifest.json", EMPTY | {"revision": len(states) - 1})
    begin, end = (data.draw(st.integers(0, len(states) - 1)) for _ in range(2))
    expected = change_by_id(changes(tables[begin], tables[end]))
    change_of = change_by_id(diff_revisions(uri, str(begin), str(end)))
    assert {k: v for k, v in change_of.items() if v != "marked"} == {k: v for k, v in expected.items() if v != "marked"}
    assert {k for k, v in expected.items() if v == "marked"} <= {k for k, v in change_of.items() if v == "marked"}


def test_an_erasure_reaches_into_snapshots_and_journals(pool: str) -> None:
    take_snapshot(pool, "later")
    erase(parse(EraseOptions, {"pool": pool, "speaker": "made/Martha"}))
    for address, expected in ((pool, ["m-c", "m-d"]), (f"{pool}@first", ["m-b"]), (f"{pool}@later", ["m-c", "m-d"])):
        assert ids_of(address) == expected
        assert check_pool(address) == []
    for revision in range(1, 5):
        assert "m-a" not in storage.read_table(revision_uri(pool, revision))["utterance_id"].to_pylist()
    assert change_by_id(diff_revisions(pool, "3", "4")) == {}
    assert CHANGE.equals(diff_revisions(pool, "0").schema)
    listed = {shard for address in (pool, f"{pool}@first") for shard in open_pool(address).shards}
    assert {name.removesuffix(".parquet") for name in storage.list_names(f"{pool}/utterances")} == listed
