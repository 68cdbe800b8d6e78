"""A run that names its corpora: features of their shards alone, in the one store that later runs add to."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest

from seral.features.audio import extract_features
from seral.loop.loop import run_loop
from seral.loop.options import LoopOptions
from seral.options import parse
from seral.pool.shards import open_pool

pytestmark = pytest.mark.ray


def features(cache: Path) -> dict[str, int]:
    """Shard -> when its features were written."""
    (store,) = cache.iterdir()
    return {path.stem: path.stat().st_mtime_ns for path in (store / "pooled").iterdir()}


def results(run: Path) -> list[Any]:
    """Picks, predictions and metrics of every round."""
    rounds = sorted((run / "trajectories/margin.fold-00.seed-0/rounds").iterdir())
    tables = [pq.read_table(path / name).to_pylist() for path in rounds for name in ("picks.parquet", "predictions")]
    metrics = [json.loads((path / "metrics.json").read_text()) for path in rounds]
    return [*tables, *({name: made[name] for name in ("labelled", "dev", "test")} for made in metrics)]


def test_features_of_the_named_corpora_and_later_of_others(two_corpora: str, tmp_path: Path) -> None:
    def run(name: str, corpora: list[str], cache: str) -> list[Any]:
        values = {
            "pool": two_corpora,
            "run": str(tmp_path / name),
            "feature_cache": str(tmp_path / cache),
            "corpora": corpora,
            "classes": ["anger", "happiness", "neutral", "sadness"],
            "split": {"scheme": "k-fold", "k": 3},
            "folds": [0],
            "seeds": [0],
            "random_arm": False,
            "full_arm": False,
            "probe": False,
            "strategy": "margin",
            "budget": {"sizes": [8, 14]},
        }
        return results(Path(run_loop(parse(LoopOptions, values))))

    pool = open_pool(two_corpora)
    acted, natural = (set(pool.shards_of([name])) for name in ("acted", "natural"))
    assert acted
    assert natural
    assert not acted & natural
    made = run("acted", ["acted"], "part")
    first = features(tmp_path / "part")
    assert set(first) == acted
    store = extract_features(pool, "seral-tiny", uri=str(tmp_path / "part"), corpora=["acted"])
    ids, corpora = (pool.metadata[name].to_pylist() for name in ("utterance_id", "corpus"))
    assert store.index().names() == sorted(name for name, of in zip(ids, corpora, strict=True) if of == "acted")

    run("natural", ["natural"], "part")
    both = features(tmp_path / "part")
    assert set(both) == {*acted, *natural} == set(pool.shards)
    assert {shard: both[shard] for shard in first} == first, "what was there was left alone"

    extract_features(pool, "seral-tiny", uri=str(tmp_path / "whole"))
    assert run("again", ["acted"], "whole") == made
