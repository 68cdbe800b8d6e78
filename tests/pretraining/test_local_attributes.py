"""Training the adapter `wap` without labels on a small pool, and fine-tuning that starts from it, through Ray."""

from __future__ import annotations

import os
import shutil
import time
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pyarrow.parquet as pq
import pytest
import torch
from safetensors.torch import load_file

from ser_models.adapters.store import load_adapter
from ser_models.adapters.wap import WapOptions, WapTransformer, wap_of
from ser_models.encoders import fingerprint, load_encoder
from seral import storage
from seral.cluster import ClusterOptions
from seral.errors import OptionError, TrainError
from seral.features.audio import extract_features
from seral.features.frames import FrameSource, averaged, survey
from seral.features.store import FeatureStore
from seral.loop.loop import run_loop
from seral.loop.options import LoopOptions
from seral.models.options import PredictOptions
from seral.models.prediction import predict
from seral.options import parse
from seral.pool.shards import Pool, open_pool
from seral.pretraining.layout import pretrained_adapters
from seral.pretraining.local_attributes import LocalAttributesPretraining, LocalAttributesSpec
from seral.pretraining.options import TaptRunOptions
from seral.pretraining.tapt import adapt_encoder
from seral.studies.compare import run_compare
from seral.studies.options import CompareOptions
from seral.training.options import TrainingOptions

SIZES = {"layers": 1, "heads": 2, "feedforward": 16}
SMALL: dict[str, Any] = {
    "objective": "local_attributes",
    "steps": 6,
    "batch_s": 12.0,
    "crop_s": 2.4,
    "lr": 5e-4,
    "clusters": 8,
    "eval_every": 3,
    "seed": 3,
    "settings": {
        "local_attributes": {"stride": 2, "mask_frames": 3, "cluster_frames": 400, "cluster_iterations": 2},
        "wap": SIZES,
    },
}

pytestmark = pytest.mark.ray


def first_ids(pool: Pool, count: int = 16) -> list[str]:
    names: list[str] = pool.metadata["utterance_id"].to_pylist()
    return names[:count]


def train(pool: Pool, folder: Path, values: dict[str, Any] | None = None, count: int = 16, **cluster: Any) -> Any:
    """Train on the first clips of the pool; what tapt.json says."""
    options = parse(TaptRunOptions, SMALL | (values or {}))
    adapt_encoder(pool, first_ids(pool, count), "seral-tiny", str(folder), options, ClusterOptions(**cluster))
    return storage.read_json(folder / "tapt.json")


def weights(folder: Path) -> dict[str, torch.Tensor]:
    return load_file(folder / "encoder" / "adapter" / "adapters.safetensors")


def same(one: Path, two: Path) -> bool:
    first, second = weights(one), weights(two)
    return first.keys() == second.keys() and all(torch.equal(first[name], second[name]) for name in first)


def test_means_of_frames_in_a_row() -> None:
    frames_TD = np.arange(10, dtype=np.float16).reshape(5, 2)
    assert averaged(frames_TD, 2).tolist() == [[1, 2], [5, 6], [8, 9]]
    assert averaged(frames_TD, 9).tolist() == [[4, 5]]
    assert averaged(frames_TD, 1) is frames_TD


def test_a_survey_counts_and_measures_the_frames_of_its_ids_alone(speech_pool: str) -> None:
    pool = open_pool(speech_pool)
    source = FrameSource(store=extract_features(pool, "seral-tiny", frames_layer=4), layer=4, stride=2)
    ids = first_ids(pool)
    result = survey(source, ids)
    frames = source.frames(ids)
    stacked_ND = np.concatenate(list(frames.values())).astype(np.float64)
    assert {n: t for shard in result.length.values() for n, t in shard.items()} == {
        n: len(f) for n, f in frames.items()
    }
    assert set(frames) == set(ids)
    assert result.total == len(stacked_ND)
    np.testing.assert_allclose(result.mean_D, stacked_ND.mean(0))
    np.testing.assert_allclose(result.std_D, stacked_ND.std(0), rtol=1e-6)
    shortest = min(len(f) for f in frames.values())
    assert survey(source, ids, minimal_frames=shortest + 1).total < result.total
    with pytest.raises(TrainError, match="none of 16 utterances has 100000 frames"):
        survey(source, ids, minimal_frames=100_000)


def test_training_repeats_itself_keeps_its_guards_and_leaves_the_encoder_as_it_is(
    speech_pool: str, tmp_path: Path
) -> None:
    pool = open_pool(speech_pool)
    facts, again = (train(pool, tmp_path / name) for name in ("a", "b"))
    assert facts == again
    assert same(tmp_path / "a", tmp_path / "b")
    encoder = load_encoder(tmp_path / "a" / "encoder")
    assert fingerprint(encoder) == fingerprint(load_encoder("seral-tiny"))
    assert pretrained_adapters(str(tmp_path / "a" / "encoder")) == {"wap": WapOptions(**SIZES)}
    state, wap = wap_of(load_adapter(encoder, tmp_path / "a" / "encoder" / "adapter"))
    fresh = WapTransformer(encoder.width, WapOptions(**SIZES), torch.Generator().manual_seed(3))
    assert state == 4
    assert not all(torch.equal(value, fresh.state_dict()[name]) for name, value in wap.state_dict().items())
    assert [row["step"] for row in facts["history"]] == [3, 6]
    assert {"z_std", "perplexity", "centre_norm"} < set(facts["history"][0])
    assert facts["held_out"] == []
    assert facts["frames"] > 0
    assert (tmp_path / "a" / "tapt.png").read_bytes().startswith(b"\x89PNG")
    assert not list(tmp_path.glob("*/.train")), "the work folder of Ray Train is left behind"


@pytest.mark.parametrize(("weight", "scalar"), [("alpha", "centre_norm"), ("beta", "perplexity")])
def test_an_ablation_leaves_out_its_loss(speech_pool: str, tmp_path: Path, weight: str, scalar: str) -> None:
    settings = {**SMALL["settings"], "local_attributes": {**SMALL["settings"]["local_attributes"], weight: 0.0}}
    facts = train(open_pool(speech_pool), tmp_path, {"settings": settings, "steps": 2})
    assert scalar not in facts["history"][0]
    assert {"centre_norm", "perplexity"} - {scalar} < set(facts["history"][0])


def test_what_is_not_a_training_utterance_has_no_influence(speech_pool: str, tmp_path: Path) -> None:
    pool = open_pool(speech_pool)
    train(pool, tmp_path / "a", count=12)
    # The same features with everything else of the pool turned to NaN.
    store = extract_features(pool, "seral-tiny", frames_layer=4)
    copied = replace(store, uri=str(tmp_path / "features"))
    for shard in store.pool.shards:
        table = storage.read_table(store.table_uri("frames-4", shard))
        rows = table.to_pylist()
        for row in rows:
            if row["utterance_id"] not in first_ids(pool, 12):
                row["frames"] = np.full(len(row["frames"]) // 2, np.nan, np.float16).tobytes()
        storage.write_table(copied.table_uri("frames-4", shard), type(table).from_pylist(rows, table.schema))

    def features(encoder: str, layer: int | None) -> FeatureStore:
        assert (encoder, layer) == ("seral-tiny", 4)
        return copied

    options = parse(TaptRunOptions, SMALL)
    adapt_encoder(pool, first_ids(pool, 12), "seral-tiny", str(tmp_path / "b"), options, ClusterOptions(), features)
    assert same(tmp_path / "a", tmp_path / "b")


def test_an_interrupted_training_goes_on_to_the_same_weights(speech_pool: str, tmp_path: Path) -> None:
    pool, messages, values = open_pool(speech_pool), list[str](), {"checkpoint_every": 2, "eval_every": 3}

    def stop_after_step_3(message: str) -> None:
        messages.append(message)
        if message.startswith("adapter step 4/6") and "adapter goes on from step 2" not in messages:
            raise KeyboardInterrupt

    whole = train(pool, tmp_path / "whole", values)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("seral.pretraining.trainer.say", stop_after_step_3)
        with pytest.raises(KeyboardInterrupt):
            train(pool, tmp_path / "cut", values)
        cut = train(pool, tmp_path / "cut", values)
    assert "adapter goes on from step 2" in messages
    assert cut == whole
    assert same(tmp_path / "whole", tmp_path / "cut")


@pytest.mark.slow
def test_a_dead_worker_is_restored_and_ends_in_the_same_weights(
    speech_pool: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pool, values = open_pool(speech_pool), {"steps": 12, "checkpoint_every": 3}

    class DiesOnce(LocalAttributesPretraining):
        """Loses its process in step 8, unless it has done so before."""

        def after_update(self, step: int) -> None:
            if not (tmp_path / "died").exists():
                if step == 8:
                    (tmp_path / "died").touch()
                    time.sleep(3)  # Ray Train has seen the checkpoints by then
                    os._exit(1)
            elif not (tmp_path / "restored").exists():
                (tmp_path / "restored").write_text(str(step))
            super().after_update(step)

    class DyingSpec(LocalAttributesSpec):
        def pretraining(self, device: torch.device) -> LocalAttributesPretraining:
            return DiesOnce(self, device)

    whole = train(pool, tmp_path / "whole", values)
    monkeypatch.setattr("seral.pretraining.tapt.LocalAttributesSpec", DyingSpec)
    cut = train(pool, tmp_path / "cut", values, train_workers=1, max_failures=1)
    assert (tmp_path / "restored").read_text() == "6", "training was not interrupted and restored"
    assert cut == whole
    assert same(tmp_path / "whole", tmp_path / "cut")


@pytest.mark.slow
def test_two_workers_train_one_adapter(speech_pool: str, tmp_path: Path) -> None:
    pool = open_pool(speech_pool)
    alone, shared = train(pool, tmp_path / "alone"), train(pool, tmp_path / "shared", train_workers=2)
    assert np.isfinite([list(row.values()) for row in shared["history"]]).all()
    assert not same(tmp_path / "alone", tmp_path / "shared")
    _, wap = wap_of(load_adapter(load_encoder("seral-tiny"), tmp_path / "shared" / "encoder" / "adapter"))
    fresh = WapTransformer(wap.width, WapOptions(**SIZES), torch.Generator().manual_seed(3)).state_dict()
    assert all(not torch.equal(fresh[name], value) for name, value in wap.state_dict().items() if ".out." in name)
    assert shared["history"][-1]["loss"] == pytest.approx(alone["history"][-1]["loss"], rel=0.2)


def compare_values(pool: str, run: Path, **row: Any) -> dict[str, Any]:
    finetune = {"adapter": "wap", "epochs": 1, "settings": {}}
    return {
        "pool": pool,
        "run": str(run),
        "classes": ["anger", "happiness", "neutral", "sadness"],
        "split": {"scheme": "k-fold", "k": 3},
        "folds": [0],
        "seeds": [0],
        "rows": [
            {"name": "fresh", "finetune": {**finetune, "settings": {"wap": SIZES}}},
            {"name": "pretrained", "finetune": finetune, "tapt": SMALL, **row},
        ],
    }


def test_fine_tuning_starts_from_the_pretrained_adapter(speech_pool: str, tmp_path: Path) -> None:
    options = parse(CompareOptions, compare_values(speech_pool, tmp_path))
    run_compare(options)
    table = pd.read_csv(tmp_path / "table.csv")
    assert {"fresh", "pretrained"} <= set(table["row"])
    cells = [storage.read_json(tmp_path / "cells" / f"{name}.fold-00.seed-0.json") for name in ("fresh", "pretrained")]
    assert cells[0]["predicted"] != cells[1]["predicted"]
    assert cells[0]["trainable"] == cells[1]["trainable"]


def test_a_pretrained_adapter_is_not_left_out_by_mistake(speech_pool: str, tmp_path: Path) -> None:
    with pytest.raises(OptionError, match=r"tapt trains the adapter wap: name it in finetune\.adapter, got 'lora'"):
        parse(CompareOptions, compare_values(speech_pool, tmp_path, finetune={"adapter": "lora"}))
    values = {"pool": speech_pool, "run": str(tmp_path), "classes": ["anger", "sadness"], "tapt": SMALL}
    with pytest.raises(OptionError, match="tapt trains the adapter wap"):
        parse(TrainingOptions, values)
    different = {"adapter": "wap", "settings": {"wap": {"layers": 2}}}
    with pytest.raises(OptionError, match=r"settings\.wap are WapOptions.*, it was pretrained with WapOptions"):
        run_compare(parse(CompareOptions, compare_values(speech_pool, tmp_path, finetune=different)))


def test_a_hidden_state_that_is_not_there_is_refused(speech_pool: str, tmp_path: Path) -> None:
    values = {"settings": {"wap": {**SIZES, "layer": 9}}}
    with pytest.raises(OptionError, match=r"layer must be a hidden state 0\.\.4 of this encoder, got 9"):
        train(open_pool(speech_pool), tmp_path, values)


def weights_of(run: str) -> dict[str, torch.Tensor]:
    """Weights of every model of a run, by file and name."""
    files = sorted(Path(run).glob("trajectories/*/rounds/*/model/**/*.safetensors"))
    return {f"{path}:{name}": weight for path in files for name, weight in load_file(path).items()}


@pytest.mark.slow
def test_a_loop_starts_every_round_from_the_pretrained_adapter_and_goes_on_where_it_was(
    run_values: dict[str, Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pretrained_on: list[str] = []

    def adapt(pool: Pool, ids: Sequence[str], *arguments: Any) -> str:
        pretrained_on.extend(ids)
        return adapt_encoder(pool, ids, *arguments)

    monkeypatch.setattr("seral.loop.loop.adapt_encoder", adapt)
    values = run_values | {
        "tapt": SMALL | {"steps": 2},
        "finetune": {"adapter": "wap", "epochs": 1},
        "budget": {"sizes": [8, 14]},
        "strategy": "margin",
        "random_arm": False,
        "full_arm": False,
    }
    run = run_loop(parse(LoopOptions, values))
    whole, rounds = weights_of(run), next(Path(run).glob("trajectories/*/rounds"))
    assert sorted(path.name for path in (rounds / "0000" / "model" / "adapter").iterdir()) == [
        "adapters.json",
        "adapters.safetensors",
    ], "of the encoder nothing is trained"
    predictions = pq.read_table(rounds / "0001" / "predictions").to_pylist()
    judged = {row["utterance_id"] for row in predictions if row["part"] == "test"}
    table = open_pool(run_values["pool"]).metadata
    speaker = dict(zip(*(table[name].to_pylist() for name in ("utterance_id", "speaker")), strict=True))
    assert judged
    assert not {speaker[name] for name in pretrained_on} & {speaker[name] for name in judged}
    assert {row["utterance_id"] for row in predictions if row["part"] == "pool"} < set(pretrained_on)
    shutil.rmtree(rounds / "0001")
    run_loop(parse(LoopOptions, values))
    again = weights_of(run)
    assert whole.keys() == again.keys()
    assert all(torch.equal(weight, again[name]) for name, weight in whole.items())
    out = str(tmp_path / "predictions.parquet")
    predict(parse(PredictOptions, {"run": run, "source": [run_values["pool"]], "out": out}))
    by_predict = {row["utterance_id"]: row for row in pq.read_table(out).to_pylist()}
    for row in predictions:  # cached fp16 features against the whole model from audio
        if row["part"] == "dev":
            continue  # by a head that has not heard the speaker
        assert row["p_anger"] == pytest.approx(by_predict[row["utterance_id"]]["p_anger"], abs=0.02)
