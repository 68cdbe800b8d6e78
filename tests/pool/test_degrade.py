from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from seral import storage
from seral.audio.decode import decode_flac
from seral.audio.effects import corrupt
from seral.errors import OptionError, StateError
from seral.options import parse
from seral.pool.check import check_pool
from seral.pool.degrade import degrade_pool
from seral.pool.ingest import import_corpus
from seral.pool.options import DegradeOptions, ImportOptions
from seral.pool.shards import Pool, open_pool


def options(**values: Any) -> DegradeOptions:
    return parse(DegradeOptions, {"pool": "in", "out": "out", **values})


def clips(pool: Pool) -> dict[str, np.ndarray]:
    rows = [row for shard in pool.shards for row in pool.read(shard, ["utterance_id", "audio"]).to_pylist()]
    return {row["utterance_id"]: decode_flac(row["audio"]) for row in rows}


def gold(pool: Pool) -> list[dict[str, Any]]:
    rows = [row for s in pool.shards for row in storage.read_table(pool.table_uri("gold", s)).to_pylist()]
    return sorted(rows, key=lambda row: str(row["utterance_id"]))


@pytest.mark.parametrize(
    ("values", "words"),
    [
        ({}, "nothing is to be done: give one of rt60_s"),
        ({"noise": "n", "codecs": ["mp3"]}, "give snr_db"),
        ({"snr_db": [10, 5]}, r"snr_db is \(lowest, highest\), got \(10"),
    ],
)
def test_options_that_say_nothing_are_refused(values: dict[str, Any], words: str) -> None:
    with pytest.raises(OptionError, match=words):
        options(**values)


def test_all_effects_together_leave_a_clip_of_the_same_length(speech: Callable[[float, int], np.ndarray]) -> None:
    samples = speech(1.0, 0)
    all_of_it = options(rt60_s=[0.3, 0.6], snr_db=[5, 10], gain_db=[-6, 6], highest_hz=4000, codecs=["mp3"])
    one, again, other = (corrupt(samples, [], all_of_it, np.random.default_rng(seed)) for seed in (0, 0, 1))
    assert one.shape == samples.shape
    assert np.isfinite(one).all()
    np.testing.assert_array_equal(one, again)
    assert not np.array_equal(one, other)


@pytest.mark.ray
@pytest.mark.usefixtures("ray_session")
def test_a_noisy_pool_has_the_same_utterances_and_worse_audio(tmp_path: Path, make_corpus: Callable[..., Path]) -> None:
    corpus = make_corpus(tmp_path / "corpus", 6, seconds=(1.0, 1.5))
    clean = str(tmp_path / "clean")
    import_corpus(parse(ImportOptions, {"reader": "manifest", "root": str(corpus), "out": clean}))
    settings = parse(DegradeOptions, {"pool": clean, "out": str(tmp_path / "noisy"), "snr_db": [5, 5]})
    assert degrade_pool(settings)["utterances"] == 6
    pools = [open_pool(clean), open_pool(settings.out)]
    assert check_pool(settings.out) == []
    assert gold(pools[0]) == gold(pools[1])
    before, after = (clips(pool) for pool in pools)
    assert before.keys() == after.keys()
    for name, samples in before.items():
        ratio_db = 10 * np.log10(np.mean(samples**2) / np.mean((after[name] - samples) ** 2))
        assert ratio_db == pytest.approx(5, abs=0.2)
    quality = [np.asarray(pool.metadata["quality"]) for pool in pools]
    assert (quality[1] < quality[0]).all()
    manifest = pools[1].manifest
    degrade_pool(settings)
    assert open_pool(settings.out).manifest == manifest
    with pytest.raises(StateError, match="another pool at"):
        degrade_pool(settings.model_copy(update={"seed": 1}))
    (tmp_path / "moved").mkdir()
    moved = {
        name: str(Path(uri).rename(tmp_path / "moved" / name)) for name, uri in (("pool", clean), ("out", settings.out))
    }
    degrade_pool(settings.model_copy(update=moved))
    assert open_pool(moved["out"]).manifest == manifest, "the moved pools are the same pools"
    assert pools[0].hash == pools[1].hash
    assert pools[0].tables_hash == open_pool(moved["pool"]).tables_hash != pools[1].tables_hash
