"""Commands that change one pool at the same time, held until they meet."""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from threading import Barrier, Event
from typing import Any

import pytest
from corpus_layouts.pool_rows import put_shard, row, set_shards

from seral import storage
from seral.erase.erase import EraseOptions, erase
from seral.errors import StateError
from seral.options import parse
from seral.pool import derive, ingest, snapshots
from seral.pool.check import check_pool
from seral.pool.derive import merge_pools
from seral.pool.ingest import import_corpus
from seral.pool.options import ImportOptions
from seral.pool.shards import TABLES, open_pool

PATIENCE_S = 120


def ids_of(pool: str) -> list[str]:
    return sorted(open_pool(pool).ids["utterance_id"].to_pylist())


def bring(corpus: Path, pool: str) -> dict[str, Any]:
    values = {"reader": "manifest", "root": str(corpus), "out": pool, "shard_mb": 0.1, "voice": False}
    return import_corpus(parse(ImportOptions, values))


def meeting(monkeypatch: pytest.MonkeyPatch, module: Any, writers: int) -> list[int]:
    """All writers have made their first change before any goes on; returns a list that grows with every change made."""
    together, changes, marked = Barrier(writers), list[int](), module.marked

    def held_up(*arguments: Any, **options: Any) -> Any:
        change = marked(*arguments, **options)
        changes.append(1)
        if len(changes) <= writers:
            together.wait(PATIENCE_S)
        return change

    monkeypatch.setattr(module, "marked", held_up)
    return changes


@pytest.mark.ray
def test_imports_of_two_corpora(
    tmp_path: Path, make_corpus: Callable[..., Path], ray_session: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    corpora = [make_corpus(tmp_path / name, 40, seed=seed) for seed, name in enumerate(("calls", "talks"))]
    one_after_the_other, at_once = str(tmp_path / "one"), str(tmp_path / "two")
    for corpus in corpora:
        bring(corpus, one_after_the_other)
    changes = meeting(monkeypatch, ingest, 2)
    with ThreadPoolExecutor(2) as pool:
        counts = list(pool.map(bring, corpora, [at_once] * 2))
    assert len(changes) == 3, "one of the two made its change once more"
    assert [count["utterances"] for count in counts] == [40, 40]
    assert open_pool(at_once).manifest["shards"] == open_pool(one_after_the_other).manifest["shards"]
    assert open_pool(at_once).hash == open_pool(one_after_the_other).hash
    assert check_pool(at_once) == []


@pytest.mark.ray
def test_an_erasure_beside_an_import_that_has_more_of_the_same_speaker(
    tmp_path: Path, make_corpus: Callable[..., Path], ray_session: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    pool, ready, erased, marked = str(tmp_path / "pool"), Event(), Event(), ingest.marked
    bring(make_corpus(tmp_path / "calls", 40), pool)
    corpus = make_corpus(tmp_path / "calls", 40, first=40)

    def held_up(*arguments: Any, **options: Any) -> Any:
        change = marked(*arguments, **options)
        ready.set()
        assert erased.wait(PATIENCE_S)
        return change

    monkeypatch.setattr(ingest, "marked", held_up)
    with ThreadPoolExecutor(1) as one:
        running = one.submit(bring, corpus, pool)
        assert ready.wait(PATIENCE_S)
        erase(parse(EraseOptions, {"pool": pool, "speaker": "calls/s1"}))
        erased.set()
        with pytest.raises(StateError, match=r"something was erased from .* meanwhile|has lost .*; run this again"):
            running.result()
    monkeypatch.undo()
    assert bring(corpus, pool)["utterances"] == 30
    for table in ("utterances", "quarantine"):
        for name in storage.list_names(storage.join(pool, table)):
            assert "s1" not in storage.read_table(storage.join(pool, table, name), ["speaker"])["speaker"].to_pylist()
    assert set(open_pool(pool).metadata["speaker"].to_pylist()) == {"s0", "s2", "s3"}
    assert open_pool(pool).rows == 60
    assert check_pool(pool) == []


@pytest.fixture
def sources(tmp_path: Path) -> list[str]:
    """Two pools that share a clip."""
    uris = [str(tmp_path / name) for name in ("a", "b")]
    for uri in uris:
        name = uri[-1]
        rows = [row(f"made-{name}", speaker=name), row("made-both")]
        set_shards(uri, {f"shard-{name}": put_shard(uri, f"shard-{name}", rows)})
    return uris


def test_merges_into_one_pool(sources: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    out = str(tmp_path / "out")
    set_shards(out, {"own": put_shard(out, "own", [row("made-own")])})
    changes = meeting(monkeypatch, derive, 2)
    with ThreadPoolExecutor(2) as pool:
        list(pool.map(lambda source: merge_pools([source], out), sources))
    assert len(changes) == 3
    assert ids_of(out) == ["made-a", "made-b", "made-both", "made-own"]
    assert check_pool(out) == []
    listed = [f"{shard}.parquet" for shard in open_pool(out).shards]
    assert all(storage.list_names(storage.join(out, table)) == listed for table in TABLES), "nothing is left over"


def test_an_erasure_beside_a_merge(sources: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """What was erased from the pool that is merged into does not come back from a source that still has it."""
    out, marked = str(tmp_path / "out"), derive.marked
    rows = [row("made-a", speaker="a"), row("made-own")]
    set_shards(out, {"own": put_shard(out, "own", rows)})
    erasures = []

    def held_up(*arguments: Any, **options: Any) -> Any:
        change = marked(*arguments, **options)
        if not erasures:
            erasures.append(erase(parse(EraseOptions, {"pool": out, "speaker": "made/a"})))
        return change

    monkeypatch.setattr(derive, "marked", held_up)
    merge_pools(sources, out)
    assert len(erasures) == 1
    assert ids_of(out) == ["made-b", "made-both", "made-own"]
    assert check_pool(out) == []


def test_a_snapshot_beside_a_change(sources: list[str], monkeypatch: pytest.MonkeyPatch) -> None:
    """A snapshot never names shards that a change made obsolete before the snapshot was there."""
    pool, write_json = sources[0], storage.write_json
    entry = put_shard(pool, "later", [row("made-later")])
    changed = []

    def overtaken(uri: str, value: Any) -> None:
        if not changed and "snapshots" in uri:
            changed.append(set_shards(pool, {"later": entry}))
        write_json(uri, value)

    monkeypatch.setattr(snapshots.storage, "write_json", overtaken)
    snapshots.take_snapshot(pool, "mine")
    assert changed
    assert ids_of(f"{pool}@mine") == ["made-later"]
    assert check_pool(f"{pool}@mine") == []
