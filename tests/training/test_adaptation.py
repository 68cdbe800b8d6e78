"""An encoder that learns from labels: resumed to the same weights, taken wherever one may stand, never on its clips."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
import pytest
import torch

from ser_models.encoders import fingerprint, load_encoder, save_encoder
from seral import storage
from seral.errors import OptionError
from seral.features.provenance import check_unheard, hand_down, learnt_from
from seral.loop.loop import run_loop
from seral.loop.options import LoopOptions
from seral.options import parse
from seral.pool.shards import open_pool
from seral.studies.layer_options import LayerTransferOptions, ProbeOptions
from seral.studies.layer_probe import probe_layers
from seral.studies.layer_transfer import run_layer_transfer
from seral.training.adaptation import run_adapt
from seral.training.adaptation_steps import CorpusTraining
from seral.training.options import AdaptOptions, TransferOptions
from seral.training.transfer import run_transfer

REFUSED = r"has learnt from labels of \d+ of these clips or their speakers, e.g. (acted|natural)-"
CLASSES = ["anger", "happiness", "neutral", "sadness"]


def values_of(pool: str, run: Path, **changes: Any) -> dict[str, Any]:
    values = {"pool": pool, "run": str(run), "corpora": ["acted"], "classes": CLASSES, "checkpoint_every": 3}
    return values | {"epochs": 4, "batch_size": 8, "settings": {"lora": {"rank": 2}}} | changes


def weights(run: Path) -> dict[str, torch.Tensor]:
    return {name: part.clone() for name, part in load_encoder(run / "encoder").state_dict().items()}


@pytest.mark.ray
def test_it_goes_on_to_the_same_weights_and_stands_as_an_encoder(
    two_corpora: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run_adapt(parse(AdaptOptions, values_of(two_corpora, tmp_path / "whole")))
    history = storage.read_json(tmp_path / "whole/adapt.json")["training"]["history"]
    assert np.mean([row["loss"] for row in history[-1:]]) < history[0]["loss"]
    assert fingerprint(load_encoder(tmp_path / "whole/encoder")) != fingerprint(load_encoder("seral-tiny"))

    def cut_off(self: CorpusTraining, step: int) -> None:
        if step == 10:
            raise KeyboardInterrupt

    values = values_of(two_corpora, tmp_path / "twice")
    options = parse(AdaptOptions, values)
    monkeypatch.setattr(CorpusTraining, "after_update", cut_off)
    with pytest.raises(KeyboardInterrupt):
        run_adapt(options)
    monkeypatch.undo()
    assert not (tmp_path / "twice/encoder").exists()
    run_adapt(options)
    whole, twice = weights(tmp_path / "whole"), weights(tmp_path / "twice")
    assert all(torch.equal(part, twice[name]) for name, part in whole.items())
    made = (tmp_path / "twice/encoder/model.safetensors").stat().st_mtime_ns
    run_adapt(options)
    assert (tmp_path / "twice/encoder/model.safetensors").stat().st_mtime_ns == made, "done once"

    encoder = str(tmp_path / "whole/encoder")
    learnt = learnt_from(encoder)
    assert set(learnt["corpus"].to_pylist()) == {"acted"}
    loop = {
        "pool": two_corpora,
        "encoder": encoder,
        "classes": CLASSES,
        "split": {"scheme": "k-fold", "k": 3},
        "folds": [0],
        "seeds": [0],
        "budget": {"sizes": [8]},
        "full_arm": False,
    }
    with pytest.raises(OptionError, match=REFUSED):
        run_loop(parse(LoopOptions, loop | {"run": str(tmp_path / "leak"), "corpora": ["acted"]}))
    run = run_loop(parse(LoopOptions, loop | {"run": str(tmp_path / "loop"), "corpora": ["natural"]}))
    assert list(Path(run).glob("trajectories/random*/rounds/0000/metrics.json"))
    wrong = {"pool": two_corpora, "run": str(tmp_path / "t"), "corpora": ["acted"], "classes": CLASSES}
    wrong |= {"encoder": encoder, "sources": [{"pool": two_corpora, "corpora": ["natural"]}]}
    with pytest.raises(OptionError, match=REFUSED):
        run_transfer(parse(TransferOptions, wrong))


@pytest.mark.ray
def test_each_corpus_is_judged_by_an_encoder_that_has_not_heard_its_labels(two_corpora: str, tmp_path: Path) -> None:
    values = values_of(two_corpora, tmp_path / "run", corpora=["acted", "natural"], epochs=1)
    text = run_adapt(parse(AdaptOptions, values))
    assert "| acted |" in text
    assert "points of UAR" in text
    for left_out, other in (("acted", "natural"), ("natural", "acted")):
        folder = tmp_path / "run/left-out" / left_out
        assert set(learnt_from(str(folder / "encoder"))["corpus"].to_pylist()) == {other}
        row = storage.read_json(folder / "uar.json")
        assert all(0 <= row[kind] <= 1 for kind in ("frozen", "adapted"))
    assert (tmp_path / "run/adapt.png").stat().st_size > 1000
    assert set(learnt_from(str(tmp_path / "run/encoder"))["corpus"].to_pylist()) == {"acted", "natural"}


@pytest.mark.ray
@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"adapter": "bottleneck"}, "bottleneck cannot be merged into an encoder's weights"),
        ({"classes": ["anger", "boredom"]}, "acted has 10 clips of 1 of the classes"),
    ],
)
def test_what_cannot_be_adapted_is_named(two_corpora: str, tmp_path: Path, changes: Any, message: str) -> None:
    values = values_of(two_corpora, tmp_path / "run", **changes)
    if "adapter" in changes:
        values["settings"] = {}
    with pytest.raises(OptionError, match=message):
        run_adapt(parse(AdaptOptions, values))


def test_a_frozen_adapter_is_refused_at_once(tmp_path: Path) -> None:
    with pytest.raises(OptionError, match="'frozen' trains nothing in the encoder"):
        parse(AdaptOptions, {"pool": "p", "run": "r", "classes": CLASSES, "adapter": "frozen"})


@pytest.mark.ray
def test_studies_that_test_on_clips_whose_labels_were_heard_are_refused(two_corpora: str, tmp_path: Path) -> None:
    encoder = str(tmp_path / "encoder")
    save_encoder(load_encoder("seral-tiny"), encoder)
    metadata = open_pool(two_corpora).metadata
    hand_down(["seral-tiny"], encoder, metadata.filter(pc.equal(metadata["corpus"], "natural")))
    values = {"pool": two_corpora, "run": str(tmp_path / "run"), "classes": CLASSES}
    with pytest.raises(OptionError, match=REFUSED):
        run_layer_transfer(parse(LayerTransferOptions, values | {"encoder": encoder, "by": "corpus"}))
    with pytest.raises(OptionError, match=REFUSED):
        probe_layers(parse(ProbeOptions, values | {"encoders": ["seral-tiny", encoder]}))


@pytest.mark.ray
def test_a_prior_that_has_heard_the_labels_of_a_loop_is_refused(two_corpora: str, tmp_path: Path) -> None:
    sources = [{"pool": two_corpora, "corpora": ["natural"]}]
    values: dict[str, Any] = {"pool": two_corpora, "classes": CLASSES, "corpora": ["acted"]}
    run_transfer(parse(TransferOptions, values | {"run": str(tmp_path / "prior"), "sources": sources}))
    assert set(learnt_from(str(tmp_path / "prior/models"))["corpus"].to_pylist()) == {"natural"}
    loop = values | {"run": str(tmp_path / "loop"), "prior": str(tmp_path / "prior"), "corpora": ["natural"]}
    loop |= {"split": {"scheme": "k-fold", "k": 3}, "folds": [0], "seeds": [0], "budget": {"sizes": [8]}}
    with pytest.raises(OptionError, match=REFUSED):
        run_loop(parse(LoopOptions, loop))


def clips(*rows: tuple[str, str, str | None]) -> pa.Table:
    columns = dict(zip(("utterance_id", "corpus", "speaker"), map(list, zip(*rows, strict=True)), strict=True))
    return pa.table({name: pa.array(values, pa.string()) for name, values in columns.items()})


def test_labels_are_handed_down_and_speakers_count_as_their_clips(tmp_path: Path) -> None:
    first, second = str(tmp_path / "first"), str(tmp_path / "second")
    hand_down(["seral-tiny"], first)
    assert not Path(first).exists(), "who has learnt from none has no file"
    hand_down(["seral-tiny"], first, clips(("a/1", "a", "x"), ("a/2", "a", None)))
    hand_down([first], second, clips(("b/1", "b", "y"), ("a/1", "a", "x")))
    assert learnt_from(second)["utterance_id"].to_pylist() == ["a/1", "a/2", "b/1"]
    task = clips(("a/9", "a", "x"), ("b/9", "b", "x"), ("c/9", "c", None), ("a/2", "a", None))
    check_unheard("seral-tiny", task, ["a/9"])
    check_unheard(second, task, ["b/9", "c/9"])
    for name in ("a/9", "a/2"):
        with pytest.raises(OptionError, match=f"labels of 1 of these clips or their speakers, e.g. {name}"):
            check_unheard(second, task, [name, "b/9", "c/9"])
    assert pq.read_table(Path(second) / "labels.parquet").num_rows == 3
