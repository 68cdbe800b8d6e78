"""Worsened copies of labelled clips: what they are made of, who gets them, and that models learn from them."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from seral import storage
from seral.cluster import ClusterOptions
from seral.erase.erase import EraseOptions, erase
from seral.errors import OptionError, PoolError, SplitError
from seral.features.audio import extract_features
from seral.features.batches import rows_of
from seral.features.store import FeatureStore
from seral.loop.loop import run_loop
from seral.loop.options import LoopOptions
from seral.options import parse
from seral.pool.degrade import degrade_pool
from seral.pool.derive import SelectOptions, select_from_pool
from seral.pool.ingest import import_corpus
from seral.pool.options import DegradeOptions, ImportOptions
from seral.pool.shards import open_pool
from seral.studies.compare import run_compare
from seral.studies.options import CompareOptions
from seral.sweep.plan import SweepOptions
from seral.sweep.run import run_sweep
from seral.task.examples import Targets, Utterances
from seral.training.augmented import StoreWithCopies, copy_id, with_copies
from seral.training.finetune_options import AugmentOptions, FinetuneOptions
from seral.training.options import SupervisedOptions
from seral.training.supervised import run_train

ON = ClusterOptions(train_workers=0)
NOISE = {"snr_db": [0, 10], "rt60_s": [0.2, 0.5], "codecs": ["gsm", "mp3"]}

pytestmark = pytest.mark.ray


@pytest.fixture(scope="module")
def pool(tmp_path_factory: pytest.TempPathFactory, ray_session: None, make_corpus: Callable[..., Path]) -> Path:
    """A pool of ten clips, with features."""
    root = tmp_path_factory.mktemp("copies")
    corpus = make_corpus(root / "corpus", 10, seconds=(0.5, 1.5))
    values = {"reader": "manifest", "root": str(corpus), "out": str(root / "pool"), "voice": False}
    import_corpus(parse(ImportOptions, values))
    extract_features(open_pool(str(root / "pool")), "seral-tiny", frames_layer=3)
    return root / "pool"


@pytest.fixture
def store(pool: Path, tmp_path: Path) -> FeatureStore:
    """A copy of the pool with its features, without copies of clips."""
    shutil.copytree(pool, tmp_path / "pool")
    return extract_features(open_pool(str(tmp_path / "pool")), "seral-tiny", frames_layer=3)


def examples_of(store: FeatureStore, wanted: list[str] | None = None) -> tuple[Utterances, Targets]:
    ids, mean_NLD, std_NLD = store.pooled()
    rows = rows_of(ids, wanted or ids)
    parts = (part[rows].astype(np.float32) for part in (mean_NLD, std_NLD))
    units = Utterances(ids=[ids[row] for row in rows], **dict(zip(("mean_NLD", "std_NLD"), parts, strict=True)))
    return units, Targets.of_classes(rows % 2)


def copied(
    store: FeatureStore,
    units: Utterances,
    target: Targets,
    *,
    besides: Any = (),
    layer: int | None = None,
    **more: Any,
) -> tuple[FeatureStore, Utterances, Targets]:
    options = parse(AugmentOptions, {**NOISE, **more})
    return with_copies(store, units, target, options, besides=besides, frames_layer=layer, on=ON)


def test_copies_come_after_the_clips_with_their_labels_and_sound_otherwise(store: FeatureStore) -> None:
    units, target = examples_of(store)
    weighed = replace(target, weight_N=np.linspace(0.5, 1.5, 10, dtype=np.float32))
    _, more, labels = copied(store, units, weighed, copies=2, besides=set(units.ids[:3]))
    assert more.ids[:10] == units.ids
    assert sorted(more.ids[10:]) == sorted(copy_id(name, number) for name in units.ids[3:] for number in (0, 1))
    of = [units.row_of[name.partition("#")[0]] for name in more.ids]
    np.testing.assert_array_equal(labels.label_N, target.label_N[of])
    np.testing.assert_array_equal(labels.weight_N, np.linspace(0.5, 1.5, 10, dtype=np.float32)[of])
    assert labels.value_NK.shape == (24, 0)
    apart = np.abs(more.mean_NLD[10:] - more.mean_NLD[of[10:]]).max((1, 2))
    assert (apart > 0.01).all()
    assert len(np.unique(more.mean_NLD, axis=0)) == 24


def test_a_copy_is_the_same_whoever_hears_it_first(store: FeatureStore) -> None:
    units, target = examples_of(store)
    few = examples_of(store, units.ids[4:6])
    copied(store, *few, layer=3)
    _, twice, _ = copied(store, units, target, layer=3, copies=2)
    whole, again, _ = copied(store, units, target, layer=3, copies=2)
    np.testing.assert_array_equal(twice.mean_NLD, again.mean_NLD)
    assert isinstance(whole, StoreWithCopies)
    files = storage.list_names(whole.folder)
    assert len(files) == 2
    storage.remove(whole.folder)
    fresh, anew, _ = copied(store, units, target, layer=3, copies=2)
    assert isinstance(fresh, StoreWithCopies)
    assert len(storage.list_names(fresh.folder)) == 1
    assert anew.ids == again.ids
    np.testing.assert_array_equal(anew.mean_NLD, again.mean_NLD)
    np.testing.assert_array_equal(anew.std_NLD, again.std_NLD)
    _, other, _ = copied(store, units, target, layer=3, copies=2, seed=1)
    assert not np.array_equal(anew.mean_NLD[10:], other.mean_NLD[10:])


def test_frames_of_copies_are_those_their_pooled_features_were_made_of(store: FeatureStore) -> None:
    units, target = examples_of(store)
    whole, more, _ = copied(store, units, target, layer=3)
    frames = whole.frames(3, set(more.ids))
    assert frames.keys() == set(more.ids)
    for name, frames_TD in frames.items():
        mean_D = frames_TD.astype(np.float32).mean(0)
        np.testing.assert_allclose(mean_D, more.mean_NLD[more.row_of[name], 3], atol=0.02)


def test_effects_are_drawn_and_one_of_them_at_least_is_heard(store: FeatureStore) -> None:
    units, target = examples_of(store)
    rare = copied(store, units, target, chance=0.01, copies=1)[1]
    every = copied(store, units, target, chance=1.0, copies=1)[1]
    apart = [np.abs(part.mean_NLD[10:] - units.mean_NLD).mean() for part in (rare, every)]
    assert 0 < apart[0] < apart[1]


def test_erased_clips_leave_no_copies(store: FeatureStore) -> None:
    units, target = examples_of(store)
    whole = copied(store, units, target)[0]
    assert isinstance(whole, StoreWithCopies)
    erase(EraseOptions(pool=store.pool.uri, utterance=units.ids[0]))
    left = [name for table in whole.copies({copy_id(name, 0) for name in units.ids}, []) for name in table["copy"]]
    assert copy_id(units.ids[0], 0) not in {name.as_py() for name in left}


@pytest.mark.parametrize(
    ("values", "words"),
    [
        ({"augment": {"copies": 2}}, "nothing is to be done: give one of rt60_s"),
        ({"augment": NOISE, "modalities": "text"}, "no sound to corrupt"),
    ],
)
def test_options_that_say_nothing_are_refused(values: dict[str, Any], words: str) -> None:
    with pytest.raises(OptionError, match=words):
        parse(FinetuneOptions, values)


def test_noises_that_are_not_there_are_told_before_anything_is_computed(pool: Path, tmp_path: Path) -> None:
    values = {"pool": str(pool), "run": str(tmp_path / "run"), "encoder": "seral-tiny", "classes": ["anger", "sadness"]}
    noisy = {"augment": {"noise": str(tmp_path / "nowhere"), "snr_db": [0, 10]}}
    with pytest.raises(PoolError, match=r"there is no pool at .*nowhere"):
        run_train(parse(SupervisedOptions, {**values, "finetune": noisy}))
    assert not (tmp_path / "run" / "cells").exists()


@pytest.mark.parametrize("corpus", ["made", "elsewhere"])
def test_noises_with_a_voice_that_is_judged_are_a_leak(pool: Path, tmp_path: Path, corpus: str) -> None:
    """A clip of the pool itself, or the same sound in a pool where it is nobody's and has another id."""
    part = str(tmp_path / "babble")
    select_from_pool(parse(SelectOptions, {"pool": str(pool), "out": part, "count": 2}))
    if corpus == "elsewhere":
        files = tmp_path / "files"
        files.mkdir()
        for number, (_, audio) in enumerate(open_pool(part).clips()):
            (files / f"{number}.flac").write_bytes(audio)
        part = str(tmp_path / "renamed")
        import_corpus(parse(ImportOptions, {"reader": "folder", "root": str(files), "out": part, "voice": False}))
        assert open_pool(part).metadata["speaker"].null_count == 2
    words = "their speakers must differ" if corpus == "made" else "2 clips of .*renamed are among what is learnt"
    noisy = {"augment": {"noise": part, "snr_db": [0, 10]}}
    task = {"pool": str(pool), "encoder": "seral-tiny", "folds": [0], "seeds": [0]}
    task |= {"classes": ["anger", "happiness", "neutral", "sadness"], "split": {"scheme": "k-fold", "k": 3}}
    for name, run in {"train": run_train, "loop": run_loop, "compare": run_compare}.items():
        values = {**task, "run": str(tmp_path / name)}
        values |= {"rows": [{"name": "x", "finetune": noisy}]} if name == "compare" else {"finetune": noisy}
        model = {"train": SupervisedOptions, "loop": LoopOptions, "compare": CompareOptions}[name]
        with pytest.raises(SplitError, match=words):
            run(parse(model, values))
    training = {**task, "finetune": {"augment": {"snr_db": [0, 10]}}}
    values = {"run": str(tmp_path / "sweep"), "training": training, "space": {"finetune.augment.noise": [None, part]}}
    with pytest.raises(SplitError, match=words):
        run_sweep(parse(SweepOptions, {**values, "search": "grid", "early_stopping": None}))


@pytest.mark.slow
def test_models_learn_from_copies_and_are_tested_on_variants(speech_pool: str, tmp_path: Path) -> None:
    noisy = str(tmp_path / "noisy")
    degrade_pool(parse(DegradeOptions, {"pool": speech_pool, "out": noisy, "snr_db": [0, 0], "voice": False}))
    lora = {"adapter": "lora", "top_layers": 1, "epochs": 1, "settings": {"lora": {"rank": 2}}}
    values = {
        "pool": speech_pool,
        "encoder": "seral-tiny",
        "classes": ["anger", "happiness", "neutral", "sadness"],
        "split": {"scheme": "k-fold", "k": 3},
        "folds": [0],
        "seeds": [0],
        "variants": {"noisy": noisy},
        "cluster": {"train_workers": 0},
        "finetune": {**lora, "augment": {**NOISE, "copies": 1}},
    }
    parts = []
    for name in ("one", "two"):
        run = str(tmp_path / name)
        assert "noisy_uar" in run_train(parse(SupervisedOptions, {**values, "run": run}))
        (cell,) = storage.list_names(storage.join(run, "cells"))
        parts.append(storage.read_json(storage.join(run, "cells", cell)))
    assert parts[0] == {**parts[1], "model": parts[0]["model"]}
    assert parts[0]["history"]["copies"] == parts[0]["labels"]
    assert parts[0]["noisy_uar"] != parts[0]["uar"]
    small = str(tmp_path / "other")
    import_values = {**values, "variants": {"noisy": small}, "run": str(tmp_path / "three")}
    degrade_pool(parse(DegradeOptions, {"pool": speech_pool, "out": small, "highest_hz": 2000, "voice": False}))
    victim = storage.read_json(storage.join(str(tmp_path / "one"), "cells", cell))["predicted"]
    erase(EraseOptions(pool=small, utterance=sorted(victim)[0]))
    with pytest.raises(OptionError, match=r"variants.noisy: .* lacks 1 test clips"):
        run_train(parse(SupervisedOptions, import_values))
