"""Adapter training and the study of local attributes on a small pool, through a real Ray."""

from __future__ import annotations

import os
import time
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import ray.train
import ray.train.torch
import torch

from ser_models.adapters.wap import WapOptions, WapTransformer, load_wap
from ser_models.wap_classifier import WapClassifier
from seral import storage
from seral.cluster import ClusterOptions
from seral.errors import OptionError, StateError, TrainError
from seral.features.audio import extract_features
from seral.features.frames import FrameSource, averaged, survey
from seral.options import parse
from seral.pool.shards import open_pool
from seral.pool.splits import folds_of
from seral.pretraining.local_attributes import (
    STATE,
    WAP,
    AdapterSpec,
    AdapterTraining,
    AdapterTrainingOptions,
    adapter_worker,
    fresh_wap,
    train_adapter,
)
from seral.studies.local_attributes import (
    PROBES,
    ROWS,
    LocalAttributesOptions,
    adapter_cell,
    row_cell,
    run_local_attributes,
)
from seral.task.cells import Cell
from seral.task.eligibility import eligible
from seral.task.folds import fold_data
from seral.training.wap_finetune import LabelledPart, WapFinetuneOptions, finetune_wap, predict, start_classifier

SMALL = {
    "epochs": 2,
    "batch_frames": 300,
    "crop_frames": 60,
    "mask_frames": 3,
    "prototypes": 8,
    "cluster_frames": 400,
    "cluster_iterations": 2,
}
SIZES = WapOptions(layers=1, heads=2, feedforward=16)


def spec_of(pool: str, count: int = 16, **changes: Any) -> AdapterSpec:
    opened = open_pool(pool)
    store = extract_features(opened, "seral-tiny", frames_layer=4)
    made = AdapterSpec(
        source=FrameSource(store=store, layer=4, stride=2),
        ids=tuple(opened.metadata["utterance_id"].to_pylist()[:count]),
        wap=SIZES,
        alpha=1.0,
        beta=1.0,
        seed=3,
        options=parse(AdapterTrainingOptions, SMALL),
        on=ClusterOptions(),
    )
    return AdapterSpec(**{**vars(made), **changes})


def train(spec: AdapterSpec, folder: Path) -> dict[str, Any]:
    return train_adapter(spec, name="adapter", work=str(folder / "work"), target=str(folder / "wap"))


def same(first: torch.nn.Module, second: torch.nn.Module) -> bool:
    a, b = first.state_dict(), second.state_dict()
    return a.keys() == b.keys() and all(torch.equal(a[name], b[name]) for name in a)


def test_means_of_frames_in_a_row() -> None:
    frames_TD = np.arange(10, dtype=np.float16).reshape(5, 2)
    assert averaged(frames_TD, 2).tolist() == [[1, 2], [5, 6], [8, 9]]
    assert averaged(frames_TD, 9).tolist() == [[4, 5]]
    assert averaged(frames_TD, 1) is frames_TD


@pytest.mark.ray
def test_a_survey_counts_and_measures_the_frames_of_its_ids_alone(speech_pool: str) -> None:
    spec = spec_of(speech_pool)
    found = survey(spec.source, spec.ids)
    frames = spec.source.frames(spec.ids)
    stacked_ND = np.concatenate(list(frames.values())).astype(np.float64)
    assert {n: t for shard in found.length.values() for n, t in shard.items()} == {n: len(f) for n, f in frames.items()}
    assert set(frames) == set(spec.ids)
    assert found.total == len(stacked_ND)
    np.testing.assert_allclose(found.mean_D, stacked_ND.mean(0))
    np.testing.assert_allclose(found.std_D, stacked_ND.std(0), rtol=1e-6)
    shortest = min(len(f) for f in frames.values())
    assert survey(spec.source, spec.ids, minimal_frames=shortest + 1).total < found.total
    with pytest.raises(TrainError, match="none of 16 utterances has 100000 frames"):
        survey(spec.source, spec.ids, minimal_frames=100_000)


@pytest.mark.ray
def test_adapter_training_repeats_itself_and_keeps_its_guards(speech_pool: str, tmp_path: Path) -> None:
    spec = spec_of(speech_pool)
    history, again = (train(spec, tmp_path / name) for name in ("a", "b"))
    first, second = (load_wap(tmp_path / name / "wap") for name in ("a", "b"))
    assert same(first, second)
    assert history == again
    assert not same(first, fresh_wap(survey(spec.source, spec.ids, 4), SIZES, spec.seed)[0])
    assert len(history["epochs"]) == 2
    assert {"z_std", "perplexity", "centre_norm"} < set(history["epochs"][0])
    assert not list(tmp_path.glob("*/work")), "the work folder of Ray Train is left behind"


@pytest.mark.ray
def test_what_is_not_a_training_utterance_has_no_influence(speech_pool: str, tmp_path: Path) -> None:
    spec = spec_of(speech_pool, 12)
    train(spec, tmp_path / "a")
    # The same features with everything else of the pool turned to NaN.
    store = spec.source.store
    copied = type(store)(**{**vars(store), "uri": str(tmp_path / "features")})
    for shard in store.pool.shards:
        table = storage.read_table(store.table_uri("frames-4", shard))
        rows = table.to_pylist()
        for row in rows:
            if row["utterance_id"] not in spec.ids:
                row["frames"] = np.full(len(row["frames"]) // 2, np.nan, np.float16).tobytes()
        storage.write_table(copied.table_uri("frames-4", shard), type(table).from_pylist(rows, table.schema))
    train(spec_of(speech_pool, 12, source=FrameSource(store=copied, layer=4, stride=2)), tmp_path / "b")
    assert same(load_wap(tmp_path / "a" / "wap"), load_wap(tmp_path / "b" / "wap"))


class DiesOnce(AdapterTraining):
    """Loses its process in the third epoch, unless it has done so before."""

    def __init__(self, spec: AdapterSpec, folder: Path) -> None:
        super().__init__(spec)
        self.folder = folder

    def _train_epoch(self) -> dict[str, float]:
        if self.epoch == 2 and not (self.folder / "died").exists():
            (self.folder / "died").touch()
            time.sleep(3)  # Ray Train has seen the checkpoints by then
            os._exit(1)
        if (self.folder / "died").exists() and not (self.folder / "restored").exists():
            (self.folder / "restored").write_text(str(self.epoch))
        return super()._train_epoch()


def fit(worker: Any, spec: AdapterSpec, folder: Path) -> WapTransformer:
    trainer = ray.train.torch.TorchTrainer(
        worker,
        train_loop_config={"spec": spec},
        scaling_config=ray.train.ScalingConfig(num_workers=spec.on.train_workers),
        run_config=ray.train.RunConfig(
            name="fit", storage_path=str(folder), failure_config=ray.train.FailureConfig(max_failures=1)
        ),
    )
    checkpoint = trainer.fit().checkpoint
    assert checkpoint is not None
    with checkpoint.as_directory() as local:
        assert torch.load(Path(local) / STATE, weights_only=True)["epoch"] == spec.options.epochs
        return load_wap(Path(local) / WAP)


@pytest.mark.ray
@pytest.mark.slow
def test_an_interrupted_adapter_training_ends_in_the_same_weights(speech_pool: str, tmp_path: Path) -> None:
    spec = spec_of(speech_pool, options=parse(AdapterTrainingOptions, SMALL | {"epochs": 4}))
    whole = fit(adapter_worker, spec, tmp_path / "whole")
    in_worker = AdapterSpec(**{**vars(spec), "on": ClusterOptions(train_workers=1)})

    def dying_worker(config: dict[str, Any]) -> None:
        DiesOnce(config["spec"], tmp_path).run()

    cut = fit(dying_worker, in_worker, tmp_path / "cut")
    assert (tmp_path / "restored").read_text() == "2", "training was not interrupted and restored"
    assert same(whole, cut)


@pytest.mark.ray
@pytest.mark.slow
def test_two_workers_train_one_adapter(speech_pool: str, tmp_path: Path) -> None:
    spec = spec_of(speech_pool, on=ClusterOptions(train_workers=2))
    history = train(spec, tmp_path)
    assert np.isfinite([list(scalars.values()) for scalars in history["epochs"]]).all()
    assert not same(load_wap(tmp_path / "wap"), fresh_wap(survey(spec.source, spec.ids, 4), SIZES, spec.seed)[0])


@pytest.mark.ray
def test_fine_tuning_starts_at_the_fitted_layer_and_ends_in_its_best_epoch(speech_pool: str) -> None:
    spec = spec_of(speech_pool, 40)
    found = survey(spec.source, spec.ids)
    frames = spec.source.frames(spec.ids)
    label_N = np.array([len(frames[name]) % 3 for name in spec.ids])
    train_part, dev = (LabelledPart(ids=spec.ids[s], label_N=label_N[s]) for s in (slice(0, 28), slice(28, 40)))
    options = parse(WapFinetuneOptions, {"epochs": 3, "lr": 0.01, "head_lr": 0.01, "batch_size": 8})

    def tuned() -> tuple[WapClassifier, list[dict[str, float]]]:
        wap = fresh_wap(found, SIZES, 0)[0]
        model = start_classifier(
            wap, frames, train_part, unlabelled=spec.ids[:28], classes=3, pooling="attentive", seed=0, options=options
        )
        return model, finetune_wap(model, frames, train_part, dev, seed=0, options=options)

    (model, history), (again, _) = tuned(), tuned()
    assert same(model, again)
    best = min(history, key=lambda scores: scores["dev_loss"])
    predicted_N = predict(model, frames, dev.ids).argmax(1).numpy()
    recalls = [np.mean(predicted_N[dev.label_N == c] == c) for c in np.unique(dev.label_N)]
    assert best["dev_uar"] == pytest.approx(np.mean(recalls))
    assert "loss" not in history[0]
    assert len(history) <= 4
    with pytest.raises(TrainError, match=r"loss is (nan|inf).*demo-"):
        finetune_wap(model, frames, train_part, dev, seed=0, options=options.model_copy(update={"lr": 1e30}))


def study_values(pool: str, run: Path) -> dict[str, Any]:
    return {
        "pool": pool,
        "run": str(run),
        "classes": ["anger", "happiness", "neutral", "sadness"],
        "split": {"scheme": "k-fold", "k": 3},
        "folds": [0],
        "seeds": [0],
        "stride": 2,
        "layers": 1,
        "heads": 2,
        "feedforward": 16,
        "adapter": SMALL | {"epochs": 1},
        "finetune": {"epochs": 1},
    }


@pytest.mark.ray
def test_every_row_of_the_paper_gives_a_cell(speech_pool: str, tmp_path: Path) -> None:
    options = parse(LocalAttributesOptions, study_values(speech_pool, tmp_path))
    source = spec_of(speech_pool).source
    metadata = eligible(options, source.store.pool, None)
    fold = folds_of(metadata, options.split, [0])[0]
    data = fold_data(options, source.store, fold, metadata)
    assert len({row.adapter for row in ROWS}) == 4, "mean pooling shares the method's adapter"
    found = {}
    for row in ROWS:
        cell = Cell(row=row.name, fold=0, seed=0)
        weights = str(tmp_path / row.name) if row.adapter_training else None
        if weights is not None:
            spec = spec_of(speech_pool, ids=fold.train, wap=options.wap(row), alpha=row.alpha, beta=row.beta)
            history = adapter_cell(cell, str(tmp_path / "work"), spec, weights)
            assert ("perplexity" in history["epochs"][0]) is (row.beta > 0)
            assert ("centre_norm" in history["epochs"][0]) is (row.alpha > 0)
        found[row.name] = row_cell(cell, "", data, source, row, weights, options)
    assert all(0 <= values[name] <= 1 for values in found.values() for name in ("uar", "wa", "macro_f1", "dev_uar"))
    assert all(values["history"][values["epoch"]]["dev_uar"] == values["dev_uar"] for values in found.values())
    trained = {name: values["trained"] for name, values in found.items()}
    assert trained["local attributes"] - trained["last layer"] == options.layers
    width = source.store.width
    assert trained["local attributes"] - trained["mean pooling"] == 128 * (width + 2) + width * len(options.classes)
    probed = [name for name, values in found.items() if any(probe in values for probe in PROBES)]
    assert probed == [ROWS[0].name], "probes are the same for every row"


@pytest.mark.ray
@pytest.mark.slow
def test_a_study_shares_adapters_is_computed_once_and_goes_on(speech_pool: str, tmp_path: Path) -> None:
    rows = [{"name": "whole"}, {"name": "mean", "pooling": "mean"}]
    options = parse(LocalAttributesOptions, study_values(speech_pool, tmp_path) | {"rows": rows})
    shown = run_local_attributes(options)
    table = pd.read_csv(tmp_path / "table.csv")
    assert table["row"].tolist() == [*PROBES, "whole", "mean"]
    assert (tmp_path / "table.md").read_text() == shown
    assert np.isfinite(table.loc[2:, ["uar", "wa", "macro_f1", "dev_uar", "gain"]].to_numpy(float)).all()
    assert [path.name for path in (tmp_path / "adapters" / "weights").iterdir()] == [
        "alpha=1-beta=1-weighted.fold-00.seed-0"
    ]
    before = {path: path.stat().st_mtime_ns for path in tmp_path.rglob("*.json") if path.name != "environment.json"}
    (tmp_path / "cells" / "mean.fold-00.seed-0.json").unlink()
    run_local_attributes(options)
    again = pd.read_csv(tmp_path / "table.csv")
    pd.testing.assert_frame_equal(again.drop(columns="seconds"), table.drop(columns="seconds"))
    changed = [path.name for path, stamp in before.items() if path.stat().st_mtime_ns != stamp]
    assert changed == ["mean.fold-00.seed-0.json"]
    with pytest.raises(StateError, match="feedforward: was 16, now 8"):
        run_local_attributes(options.model_copy(update={"feedforward": 8}))


@pytest.mark.ray
def test_a_layer_that_is_not_there_is_refused(speech_pool: str, tmp_path: Path) -> None:
    with pytest.raises(OptionError, match=r"layer 9 does not exist: seral-tiny has hidden states 0\.\.4"):
        run_local_attributes(parse(LocalAttributesOptions, study_values(speech_pool, tmp_path) | {"layer": 9}))


def test_rows_need_names_of_their_own() -> None:
    values = study_values("pool", Path("run"))
    with pytest.raises(OptionError, match="linear probe"):
        parse(LocalAttributesOptions, values | {"rows": [{"name": "linear probe"}]})


def test_dimensions_are_refused() -> None:
    values = study_values("pool", Path("run"))
    with pytest.raises(OptionError, match="predicts no dimensions"):
        parse(LocalAttributesOptions, values | {"dimensions": ["valence"]})
