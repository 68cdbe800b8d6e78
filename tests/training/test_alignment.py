"""A labelled language beside an unlabelled one: aligned, weighed, anchored, in single trainings and in the loop."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq
import pytest
import torch

from ser_models.alignment import Anchors
from ser_models.heads import LayerPool
from seral import storage
from seral.cluster import ClusterOptions
from seral.errors import OptionError, TrainError
from seral.features.audio import extract_features
from seral.loop.loop import run_loop
from seral.loop.options import LoopOptions
from seral.models.options import PredictOptions
from seral.models.prediction import predict
from seral.options import parse
from seral.pool.shards import open_pool
from seral.pool.splits import folds_of
from seral.studies.layer_options import LayerTransferOptions
from seral.studies.layer_transfer import run_layer_transfer
from seral.task.eligibility import eligible
from seral.task.examples import Targets, Unlabelled, Utterances
from seral.task.folds import FoldData, fold_data
from seral.training.alignment import DomainAdaptation
from seral.training.data import Labelled, Source, TrainingData
from seral.training.finetune import finetune
from seral.training.finetune_options import AnchorOptions, FinetuneOptions

CLASSES = ["anger", "happiness", "neutral", "sadness"]


def made(count: int, prefix: str, seed: int, shift: float = 0.0) -> Utterances:
    rng = np.random.default_rng(seed)
    mean_NLD = (shift + (1 + shift) * rng.standard_normal((count, 3, 6))).astype(np.float32)
    std_NLD = rng.uniform(1, 2 + shift, (count, 3, 6)).astype(np.float32)
    return Utterances(ids=[f"{prefix}{row:03d}" for row in range(count)], mean_NLD=mean_NLD, std_NLD=std_NLD)


def test_only_clips_of_the_source_are_aligned_and_both_languages_weigh_the_same() -> None:
    source, target = made(40, "s", 0, shift=3.0), made(30, "t", 1)
    adaptation = DomainAdaptation.between(source, Unlabelled.of(target), None)
    mixed = target.rows(np.arange(30) < 5).with_others(source)
    aligned = adaptation.aligned(mixed)
    np.testing.assert_array_equal(aligned.mean_NLD[:5], target.mean_NLD[:5])
    for now, wanted in ((aligned.mean_NLD[5:], target.mean_NLD), (aligned.std_NLD[5:], target.std_NLD)):
        np.testing.assert_allclose(now.mean(0), wanted.mean(0), atol=1e-4)
        np.testing.assert_allclose(now.std(0, ddof=1), wanted.std(0, ddof=1), rtol=1e-4)
    label_N = np.zeros(45, np.int64)
    label_N[0] = -1  # nobody knows
    weight_N = adaptation.weighed(mixed, Targets.of_classes(label_N)).weight_N
    assert weight_N is not None
    assert weight_N[1:5].sum() == pytest.approx(weight_N[5:].sum())
    assert weight_N[1:].mean() == pytest.approx(1)
    assert adaptation.weighed(source, Targets.of_classes(np.zeros(40, np.int64))).weight_N is None
    assert adaptation.aligned(target) is target


def test_coral_takes_a_bounded_number_of_clips_and_never_a_label() -> None:
    source, target = made(40, "s", 0, shift=3.0), made(30, "t", 1)
    adaptation = DomainAdaptation.between(
        source, Unlabelled.of(target), AnchorOptions(anchors="group", size=2, clips=12, projection=4)
    )
    pool = LayerPool(3, 6)
    pool.fit(torch.from_numpy(target.mean_NLD), torch.from_numpy(target.std_NLD))
    coral = adaptation.of_batches(pool, seed=0).coral
    assert coral is not None
    assert len(coral.speech.ids) == 12
    assert set(coral.speech.ids) <= set(target.ids)
    assert coral.queue.anchors == adaptation.anchors().layers
    assert len(adaptation.anchors().layers) == 2
    drawn = coral.draw(5, np.random.default_rng(0))
    assert len(set(drawn)) == 5
    standard_BLU = torch.randn(9, 3, 12, generator=torch.Generator().manual_seed(0))
    from_source_B = torch.tensor([True, True, False, True, False, False, False, False, False])
    expected = adaptation.of_batches(pool, seed=0).coral
    assert expected is not None
    alone = expected.queue(standard_BLU[:4][[0, 1, 3]], standard_BLU[4:])
    torch.testing.assert_close(coral.loss(standard_BLU, from_source_B, 4), 10 * alone)
    for nothing in (None, AnchorOptions(weight=0)):
        sent = DomainAdaptation.between(source, Unlabelled.of(target), nothing).of_batches(pool, seed=0)
        assert sent.coral is None
        assert sent.is_source(["s001", "t001"]).tolist() == [True, False]


def test_a_longer_list_keeps_its_order_and_has_nobody_twice() -> None:
    some, others = made(3, "a", 0), made(4, "a", 1)
    both = some.with_others(others)
    assert both.ids == ["a000", "a001", "a002", "a003"]
    np.testing.assert_array_equal(both.mean_NLD[:3], some.mean_NLD)
    np.testing.assert_array_equal(both.mean_NLD[3], others.mean_NLD[3])


@pytest.fixture
def loop_values(two_corpora: str, tmp_path: Path) -> dict[str, Any]:
    return {
        "pool": two_corpora,
        "run": str(tmp_path / "run"),
        "classes": CLASSES,
        "corpora": ["natural"],
        "source_corpora": ["acted"],
        "split": {"scheme": "k-fold", "k": 3},
        "folds": [0],
        "seeds": [0],
        "budget": {"sizes": [6, 12]},
        "full_arm": False,
        "random_arm": False,
    }


def rounds_of(run: str) -> list[dict[str, Any]]:
    records = []
    for folder in sorted(Path(run).glob("trajectories/auto.*/rounds/*")):
        picks = pq.read_table(folder / "picks.parquet")["utterance_id"].to_pylist()
        tested = pq.read_table(folder / "predictions").sort_by("utterance_id").to_pylist()
        records.append(
            {"picks": picks, "predictions": tested, "head": (folder / "model/head.safetensors").read_bytes()}
        )
    return records


@pytest.mark.ray
@pytest.mark.slow
def test_a_floor_is_held_against_the_classes_that_a_source_predicts(
    loop_values: dict[str, Any], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr("seral.pool.quality_filter.SIGNIFICANCE", 1e6)  # every comparison is told
    floor = float(np.quantile(open_pool(loop_values["pool"]).metadata["quality"].to_numpy(), 0.4))
    run_loop(parse(LoopOptions, loop_values | {"min_quality": floor}))
    told_lines = [line for line in capsys.readouterr().err.splitlines() if "of predicted class" in line]
    assert {line.split(" of predicted class ")[1].split(",")[0] for line in told_lines} <= set(CLASSES)
    assert told_lines
    assert all(f": min_quality {floor:g} leaves out " in line for line in told_lines)


@pytest.mark.ray
@pytest.mark.slow
def test_a_loop_learns_from_another_language_and_spends_nothing_on_it(
    loop_values: dict[str, Any], tmp_path: Path
) -> None:
    pool = open_pool(loop_values["pool"])
    corpus = dict(zip(*(pool.metadata[c].to_pylist() for c in ("utterance_id", "corpus")), strict=True))
    runs = {}
    anchor = {"anchors": "last", "weight": 100.0, "projection": 8}
    for name, change in (("plain", {"source_corpora": None}), ("carried", {}), ("anchored", {"anchor": anchor})):
        runs[name] = rounds_of(run_loop(parse(LoopOptions, loop_values | {"run": str(tmp_path / name)} | change)))
        predicted_ids = {row["utterance_id"] for done in runs[name] for row in done["predictions"]}
        assert {corpus[utterance] for utterance in predicted_ids} == {"natural"}
        assert [len(done["picks"]) for done in runs[name]] == [6, 6]
    assert runs["plain"][0]["picks"] == runs["anchored"][0]["picks"], "the first set is chosen before there is a model"
    assert runs["plain"][0]["picks"] != runs["carried"][0]["picks"], "the first set is chosen by the source"
    heads = [runs[name][0]["head"] for name in runs]
    assert len(set(heads)) == 3
    again = rounds_of(run_loop(parse(LoopOptions, loop_values | {"run": str(tmp_path / "again")})))
    assert again == runs["carried"]


class Side:
    """A training of adapters on the source, with dev speakers of the source."""

    def __init__(self, pool: str) -> None:
        options = parse(LayerTransferOptions, {"pool": pool, "run": "none", "classes": CLASSES, "by": "corpus"})
        opened = open_pool(pool)
        store = extract_features(opened, options.encoder, frames_layer=3)
        split = parse(LayerTransferOptions, options.model_dump() | {"split": {"scheme": "k-fold", "k": 3}}).split
        folds = [folds_of(eligible(options, opened, [name]), split, [0])[0] for name in ("acted", "natural")]
        self.data: FoldData = fold_data(options, store, folds[1], eligible(options, opened, None))
        self.source = self.data.utterances([*folds[0].train, *folds[0].dev])
        self.parts = (folds[0].train, folds[0].dev)

    def train(self, folder: Path, anchor: AnchorOptions | None, **changes: Any) -> tuple[dict[str, Any], bytes]:
        oracle = self.data.oracle()
        parts = [(self.data.utterances(ids), oracle.targets(ids)) for ids in self.parts]
        training = {"adapter": "lora", "top_layers": 1, "epochs": 2, "mixup": 0.0} | changes
        data = TrainingData(
            train=Labelled(*parts[0]),
            dev=Labelled(*parts[1]),
            unlabelled=self.data.unlabelled,
            store=self.data.store,
            classes=CLASSES,
            source=Source(units=self.source, anchor=anchor),
        )
        history = finetune(data, parse(FinetuneOptions, training), str(folder), seed=0, on=ClusterOptions())
        weights = sorted((folder / "model" / "adapter").rglob("*.safetensors"))
        return history, b"".join(path.read_bytes() for path in weights)


@pytest.mark.ray
@pytest.mark.slow
def test_adapters_are_trained_with_both_languages_held_together(two_corpora: str, tmp_path: Path) -> None:
    side = Side(two_corpora)
    anchor = AnchorOptions(weight=50.0, projection=8)
    plain, free = side.train(tmp_path / "plain", None)
    history, aligned = side.train(tmp_path / "held", anchor)
    _, same = side.train(tmp_path / "same", anchor)
    assert aligned == same
    assert aligned != free
    losses = [record["adapter"]["epochs"][1]["loss"] for record in (plain, history)]
    assert losses[1] > losses[0], "CORAL is part of the loss"


@pytest.mark.ray
def test_adapters_above_all_anchors_are_refused_by_name(
    two_corpora: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(DomainAdaptation, "anchors", lambda _: Anchors(layers=[1]))
    with pytest.raises(TrainError, match="heard up to 1 of 4, and lora would train above it: let a higher state"):
        Side(two_corpora).train(tmp_path / "low", AnchorOptions(weight=5.0, projection=8))


@pytest.mark.ray
def test_a_transfer_may_train_adapters_too(two_corpora: str, tmp_path: Path) -> None:
    values = {
        "pool": two_corpora,
        "run": str(tmp_path / "run"),
        "classes": CLASSES,
        "by": "corpus",
        "split": {"scheme": "k-fold", "k": 3},
        "folds": [0],
        "seeds": [0],
        "weights": [10.0],
        "anchors": ["single", "last"],
        "projection": 8,
        "finetune": {"adapter": "gate", "top_layers": 1, "epochs": 1},
    }
    text = run_layer_transfer(parse(LayerTransferOptions, values))
    rows = [line.split(" | ")[0].strip("| ") for line in text.splitlines()[2:]]
    assert rows == ["source only", "rescaled", "single", "last", "chosen", "chosen, adapters", "target, supervised"]
    for path in (tmp_path / "run" / "cells").iterdir():
        record = storage.read_json(path)
        reaching = [kind for kind in ("single", "last") if max(record["anchors"][kind]["layers"]) > 3]
        assert record["anchors"]["chosen, adapters"]["anchors"] in reaching
        assert len(record["rows"]["chosen, adapters"]["told"]) == len(record["truth"])
    with pytest.raises(OptionError, match="finetune is for adapters"):
        parse(LayerTransferOptions, values | {"finetune": {"adapter": "frozen"}})


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"source_corpora": None, "anchor": {}}, "name the source_corpora"),
        ({"source_corpora": ["natural"]}, "natural is among the corpora and among the source_corpora"),
        ({"anchor": {}, "text_encoder": "t", "finetune": {"modalities": "both"}}, "linear .*, got both, 0 and sum"),
        ({"anchor": {}, "finetune": {"head": {"hidden": 8}}}, "linear .*, got audio, 8 and sum"),
        ({"anchor": {}, "finetune": {"head": {"layers": "last"}}}, "linear .*, got audio, 0 and last"),
        ({"finetune": {"adapter": "lora", "pooling": "attentive"}}, "set finetune.pooling=mean_std, got attentive"),
        ({"anchor": {"anchors": "first"}}, "no anchor set 'first'; known: last"),
        ({"anchor": {"similarity": "centroid_cka"}}, "found without labels of the target, by coral or mmd"),
    ],
)
def test_what_does_not_fit_together_is_refused(change: dict[str, Any], message: str) -> None:
    values = {"pool": "p", "run": "r", "classes": CLASSES, "corpora": ["natural"], "source_corpora": ["acted"]}
    with pytest.raises(OptionError, match=message):
        parse(LoopOptions, values | change)


@pytest.mark.ray
@pytest.mark.slow
@pytest.mark.parametrize(("normalise", "adapter"), [("speaker", "frozen"), ("corpus", "frozen"), ("speaker", "lora")])
def test_means_are_taken_from_source_and_target_and_in_predictions(
    loop_values: dict[str, Any], tmp_path: Path, normalise: str, adapter: str
) -> None:
    finetune = {"adapter": adapter, "top_layers": 1, "epochs": 1, "head": {"normalise": normalise}}
    change: dict[str, Any] = {"finetune": finetune, "random_arm": adapter == "frozen"}
    if normalise == "corpus":
        change |= {"corpora": None, "source_corpora": None}
    if adapter == "lora":
        change |= {"source_corpora": None}
    run = run_loop(parse(LoopOptions, loop_values | change))
    if normalise == "speaker" and adapter == "frozen":
        facts = storage.read_json(Path(run) / "folds/fold-00/source/source.json")
        assert facts["normalise"] == "speaker"
        assert set(facts["models"]) == {"speaker"}
        assert facts["models"]["speaker"]["labels"].keys() == {"acted"}
    (last,) = Path(run).glob("trajectories/auto.*/rounds/0001")
    assert storage.read_json(last / "model/encoder.json")["normalise"] == normalise
    enrolled = storage.read_json(last / "metrics.json").get("enrolled")
    assert (enrolled is not None) == (normalise == "speaker")
    out = str(tmp_path / "out.parquet")
    predict(parse(PredictOptions, {"run": run, "source": [loop_values["pool"]], "out": out}))
    tested = {row["utterance_id"]: row for row in pq.read_table(last / "predictions/test.parquet").to_pylist()}
    predicted = {row["utterance_id"]: row for row in pq.read_table(out).to_pylist()}
    assert set(tested) < set(predicted)
    for name, row in tested.items():
        for word in CLASSES:
            assert predicted[name][f"p_{word}"] == pytest.approx(row[f"p_{word}"], abs=0.01)


@pytest.mark.ray
@pytest.mark.slow
def test_auto_normalises_nothing_where_adapters_learn_from_a_source(
    loop_values: dict[str, Any], tmp_path: Path
) -> None:
    for name, change in (("lora", {"adapter": "lora", "top_layers": 1, "epochs": 1}), ("frozen", {})):
        finetune = {"head": {"normalise": "auto"}, **change}
        run = run_loop(parse(LoopOptions, loop_values | {"run": str(tmp_path / name), "finetune": finetune}))
        for metrics in Path(run).glob("trajectories/*/rounds/*/metrics.json"):
            head = storage.read_json(metrics)["training"]["head"]
            assert (head["normalise_losses"].keys() == {"none", "speaker"}) == (name == "frozen")
            assert head["normalise"] in (["none"] if name == "lora" else ["none", "speaker"])


@pytest.mark.ray
@pytest.mark.slow
def test_a_pool_of_several_corpora_may_lose_their_means(loop_values: dict[str, Any], tmp_path: Path) -> None:
    change = {"run": str(tmp_path / "both"), "corpora": None, "source_corpora": None, "random_arm": True}
    run = run_loop(parse(LoopOptions, loop_values | change))
    heads = [
        storage.read_json(metrics)["training"]["head"]
        for metrics in Path(run).glob("trajectories/*/rounds/*/metrics.json")
    ]
    assert all(head["normalise_losses"].keys() == {"none", "corpus", "speaker"} for head in heads)
    for head in heads:
        losses = head["normalise_losses"]
        if head["normalise"] != "corpus":
            assert losses[head["normalise"]] < losses["corpus"], "labels have spoken"
