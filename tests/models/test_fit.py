"""The final model learns all that was bought, takes over what the folds chose, and its card claims what they showed."""

from __future__ import annotations

import json
import shutil
from collections.abc import Sequence
from contextlib import closing
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pyarrow.parquet as pq
import pytest
from huggingface_hub import ModelCard
from scipy import stats

from ser_models.inference import Model
from seral import storage
from seral.audio.decode import decode_flac
from seral.erase.erase import EraseOptions, erase
from seral.errors import AwaitingLabels, StateError
from seral.labels.ledger import Ledger
from seral.labels.simulated import Person, Truth, answer_all, even
from seral.loop.loop import run_loop
from seral.loop.options import LoopOptions
from seral.models.export import export_model
from seral.models.fit import fit_final
from seral.models.fold_models import FoldModel, best_epoch, settled
from seral.models.options import ExportOptions, FinalOptions, PredictOptions
from seral.models.prediction import model_folder, predict
from seral.options import parse
from seral.pool.shards import open_pool
from seral.task.gold import Oracle
from seral.training.finetune_options import FinetuneOptions
from seral.training.options import SupervisedOptions
from seral.training.supervised import run_train
from seral.verbs.check_run import check_run

Values = dict[str, Any]


@pytest.fixture
def values(run_values: Values) -> Values:
    """A loop on two of three folds, with its strategy alone."""
    alone = {"random_arm": False, "full_arm": False, "probe": False, "strategy": "margin", "folds": [0, 1]}
    return run_values | alone | {"finetune": {"adapter": "frozen", "head": {"normalise": "none"}}}


def fit(run: str, out: Path, **changes: Any) -> dict[str, Any]:
    return fit_final(parse(FinalOptions, {"of": run, "run": str(out), **changes}))


def weights(out: Path) -> bytes:
    return (out / "model" / "head.safetensors").read_bytes()


def learnt(out: Path) -> dict[str, str | None]:
    rows = pq.read_table(out / "labels.parquet").to_pylist()
    return {row["utterance_id"]: row["emotion"] for row in rows}


def picks(run: str | Path, rounds: str = "*") -> set[str]:
    files = Path(run).glob(f"trajectories/margin.*/rounds/{rounds}/picks.parquet")
    return {name for file in files for name in pq.read_table(file)["utterance_id"].to_pylist()}


def card_of(out: Path) -> dict[str, Any]:
    card: dict[str, Any] = storage.read_json(str(out / "card.json"))
    return card


def check_decision(out: Path, export: Path, *, pool: str, table: Path) -> None:
    """Temperature and threshold of the card are those of the export, and of `seral predict`."""
    decision = card_of(out)["decision"]
    assert decision["wanted"] == 0.9
    assert "### When not to answer" in (out / "README.md").read_text()
    export_model(parse(ExportOptions, {"run": str(out), "out": str(export)}))
    model, rows = Model.load(export), pd.read_parquet(table).set_index("utterance_id")
    assert (model.temperature, model.abstain_below) == (decision["temperature"], decision["abstain_below"])
    opened = open_pool(pool)
    clips = opened.read(opened.shards[0], ["utterance_id", "audio"]).slice(0, 3).to_pylist()
    share_NC = model.predict_proba([decode_flac(clip["audio"]) for clip in clips])
    predicted_NC = rows.loc[[clip["utterance_id"] for clip in clips], [f"p_{name}" for name in model.classes]]
    np.testing.assert_allclose(share_NC, predicted_NC, atol=1e-4)
    other = export.with_name("other")
    export_model(parse(ExportOptions, {"run": str(out), "out": str(other), "temperature": 7.0}))
    assert (Model.load(other).temperature, Model.load(other).abstain_below) == (7.0, None)


@pytest.mark.ray
def test_a_final_model_learns_what_all_folds_bought_and_its_card_says_what_they_showed(
    values: Values, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    run, out = run_loop(parse(LoopOptions, values)), tmp_path / "final"
    summary = fit(run, out, licence="cc-by-4.0")
    bought = picks(run)
    oracle = Oracle(open_pool(values["pool"]), values["classes"])
    assert learnt(out) == dict(zip(sorted(bought), oracle.emotions(sorted(bought)), strict=True))
    assert 20 < summary["labels"] == len(bought)  # more than any fold had
    # The expectation, from what the loop wrote about its own test parts.
    metrics = [storage.read_json(str(p)) for p in sorted(Path(run).glob("trajectories/*/rounds/0002/metrics.json"))]
    uars = np.array([metric["test"]["uar"] for metric in metrics])
    low, high = stats.t.interval(0.95, 1, uars.mean(), stats.sem(uars))
    assert summary["value"] == pytest.approx(uars.mean())
    assert (summary["low"], summary["high"]) == pytest.approx((max(low, 0), min(high, 1)))
    card = card_of(out)
    confusion = np.sum([metric["test"]["confusion"] for metric in metrics], axis=0)
    recalls = np.diag(confusion) / confusion.sum(1)
    assert [row["recall"] for row in card["by_class"]] == pytest.approx(recalls.tolist())
    assert sum(row["clips"] for row in card["by_class"]) == confusion.sum()
    assert sum(card["labels"]["classes"].values()) == len(bought)
    # The card is one that the Hub takes, and names nobody.
    read = ModelCard.load(out / "README.md")
    assert read.data.pipeline_tag == "audio-classification"
    assert read.data.license == "cc-by-4.0"
    assert read.data.eval_results[0].metric_value == pytest.approx(uars.mean(), abs=1e-4)
    assert f"**{100 * uars.mean():.1f} %**" in read.text
    for row in card["by_speaker"]:
        assert row["speaker"] not in read.text
        assert row["low"] is None  # one speaker has no interval
    # It predicts, by its folder; the run's own folder still stands for a fold model, which is said.
    table = tmp_path / "predicted.parquet"
    capfd.readouterr()
    counts = predict(parse(PredictOptions, {"run": str(out), "source": [values["pool"]], "out": str(table)}))
    assert counts["model"] == str(out / "model")
    assert "seral fit" not in capfd.readouterr().err
    said_of = pd.read_parquet(table).set_index("utterance_id")["predicted"]
    assert np.mean([said_of[name] == emotion for name, emotion in learnt(out).items()]) > 0.5
    check_decision(out, tmp_path / "export", pool=values["pool"], table=table)
    model_folder(run)
    assert f"seral fit {run}" in capfd.readouterr().err
    assert check_run(str(out)).problems == []
    for name in ("README.md", "card.json", "labels.parquet"):
        content = bytearray((out / name).read_bytes())
        content[len(content) // 2] ^= 1
        (out / name).write_bytes(content)
    damaged = " ".join(check_run(str(out)).problems)
    assert all(name in damaged for name in ("README.md", "card.json", "labels.parquet"))


@pytest.mark.ray
def test_it_is_the_same_again_and_goes_on_with_a_loop_that_does(values: Values, tmp_path: Path) -> None:
    run, out = run_loop(parse(LoopOptions, values)), tmp_path / "final"
    for folder in Path(run).glob("trajectories/*/rounds/0002"):
        shutil.move(folder, tmp_path / folder.parts[-3])
    fit(run, out)
    assert set(learnt(out)) == picks(run)
    first, when = weights(out), (out / "model" / "head.safetensors").stat().st_mtime_ns
    fit(run, out, licence="mit")
    assert (out / "model" / "head.safetensors").stat().st_mtime_ns == when  # only the card is new
    assert ModelCard.load(out / "README.md").data.license == "mit"
    # Killed after the training and before the record: there is no model, until it goes on.
    (out / "fitted.json").unlink()
    with pytest.raises(StateError, match="no final model yet"):
        model_folder(str(out))
    fit(run, out)
    assert weights(out) == first
    for folder in Path(run).glob("trajectories/*/rounds"):
        shutil.move(tmp_path / folder.parts[-2], folder / "0002")
    fit(run, out)
    assert set(learnt(out)) == picks(run)
    assert weights(out) != first
    fit(run, tmp_path / "again")
    assert weights(tmp_path / "again") == weights(out)


@pytest.mark.ray
def test_of_a_training_all_labels_of_the_pool_are_learnt(values: Values, tmp_path: Path) -> None:
    kept_out = {"budget", "strategy", "random_arm", "full_arm", "probe"}
    own = {name: value for name, value in values.items() if name not in kept_out}
    run_train(parse(SupervisedOptions, own))
    summary = fit(values["run"], tmp_path / "final")
    pool = open_pool(values["pool"])
    assert set(learnt(tmp_path / "final")) <= set(Oracle(pool, values["classes"]).answerable)
    uars = [storage.read_json(str(cell))["uar"] for cell in sorted(Path(values["run"]).glob("cells/*.json"))]
    assert summary["value"] == pytest.approx(np.mean(uars))
    assert summary["labels"] == card_of(tmp_path / "final")["labels"]["of"]
    assert "All clips that had a label" in (tmp_path / "final" / "README.md").read_text()


@pytest.mark.ray
def test_of_people_every_confirmed_label_is_learnt(values: Values, tmp_path: Path) -> None:
    pool = open_pool(values["pool"])
    oracle = Oracle(pool, values["classes"])
    truth: dict[str, Truth] = dict.fromkeys(pool.metadata["utterance_id"].to_pylist())
    truth |= dict(zip(oracle.answerable, oracle.emotions(oracle.answerable), strict=True))
    asking = values | {"people": {"evaluation": 24}, "budget": {"sizes": [8]}, "folds": [0]}
    with pytest.raises(AwaitingLabels):
        run_loop(parse(LoopOptions, asking))
    with pytest.raises(StateError, match="come to its end"):  # nobody has answered anything
        fit(values["run"], tmp_path / "early")
    answered = answer_until_done(asking, truth)
    summary = fit(values["run"], tmp_path / "final")
    confirmed = {name: truth[name] for name in answered if truth[name] is not None}
    assert {name: emotion for name, emotion in learnt(tmp_path / "final").items() if emotion} == confirmed
    assert summary["labels"] == len(confirmed) > 24
    assert summary["over"].endswith("speakers")
    assert card_of(tmp_path / "final")["labels"]["from"] == "people"


def answer_until_done(values: Values, truth: dict[str, Truth]) -> list[str]:
    """All that was asked, once the loop has come to its end."""
    classes = values["classes"]
    right = Person(name="ada", classes=tuple(classes), confusion_CC=even(classes, 1.0), misses_noise=0.0, seconds=9.0)
    while True:
        with closing(Ledger(str(Path(values["run"]) / "labels.sqlite"))) as ledger:
            answer_all(ledger, [right], truth)
            asked = ledger.utterances()
        try:
            run_loop(parse(LoopOptions, values))
            return asked
        except AwaitingLabels:
            continue


@pytest.mark.ray
def test_an_erasure_names_the_final_model_and_clears_what_lies_beside_it(values: Values, tmp_path: Path) -> None:
    pool = str(tmp_path / "pool")
    shutil.copytree(values["pool"], pool, ignore=shutil.ignore_patterns("derived"))  # not what other tests made of it
    run, out = run_loop(parse(LoopOptions, values | {"pool": pool})), tmp_path / "elsewhere"
    fit(run, out)
    speaker = card_of(out)["by_speaker"][0]["speaker"]
    done = erase(EraseOptions(pool=pool, speaker=speaker, models="mark"))
    assert str(out / "model") in done["elsewhere"][str(out)]["models"]
    assert (out / "model" / "erased.json").is_file()
    rows = open_pool(values["pool"]).metadata.to_pylist()
    gone = {row["utterance_id"] for row in rows if f"{row['corpus']}/{row['speaker']}" == speaker}
    before = set(learnt(out))
    assert not before & gone
    assert speaker not in json.dumps(card_of(out))
    assert check_run(str(out)).problems == []
    fit(run, out)  # anew, of what is left
    assert set(learnt(out)) == before
    assert not (out / "model" / "erased.json").exists()


@pytest.mark.ray
def test_what_is_no_run_of_labels_is_refused(values: Values, tmp_path: Path) -> None:
    with pytest.raises(StateError, match="there is no run"):
        fit(str(tmp_path / "nothing"), tmp_path / "final")
    run = run_loop(parse(LoopOptions, values | {"folds": [0], "budget": {"sizes": [8]}}))
    fit(run, tmp_path / "final")
    with pytest.raises(StateError, match="a final model"):
        fit(str(tmp_path / "final"), tmp_path / "of-a-final")
    with pytest.raises(StateError, match="folder of its own"):
        fit(run, Path(run))
    other = run_loop(parse(LoopOptions, values | {"run": str(tmp_path / "other"), "folds": [0], "seeds": [1]}))
    with pytest.raises(StateError, match="other options"):
        fit(other, tmp_path / "final")


@pytest.mark.slow
@pytest.mark.ray
def test_adapters_learn_for_as_many_epochs_as_the_folds_found_best(values: Values, tmp_path: Path) -> None:
    finetune = {"adapter": "lora", "top_layers": 1, "epochs": 3, "head": {"normalise": "none"}}
    own = {"finetune": finetune, "dev": "speakers", "budget": {"sizes": [20]}}
    run = run_loop(parse(LoopOptions, values | own))
    fit(run, tmp_path / "final")
    histories = [
        storage.read_json(str(p))["training"] for p in sorted(Path(run).glob("trajectories/*/rounds/0000/metrics.json"))
    ]
    wanted = min(best_epoch(history) or 0 for history in histories)  # the low median of two
    record = storage.read_json(str(tmp_path / "final" / "fitted.json"))
    if wanted:
        assert len(record["training"]["adapter"]["epochs"]) == wanted + 1
    else:
        assert record["settings"]["adapter"] == "frozen"
    judged = Path(run).glob("folds/*/judged.parquet")
    dev = {row["utterance_id"] for p in judged for row in pq.read_table(p).to_pylist() if row["part"] == "dev"}
    assert set(learnt(tmp_path / "final")) == picks(run) | dev  # dev labels were bought as well
    out = str(tmp_path / "predicted.parquet")
    predict(parse(PredictOptions, {"run": str(tmp_path / "final"), "source": [values["pool"]], "out": out}))


@pytest.mark.slow
@pytest.mark.ray
@pytest.mark.parametrize(
    "own",
    [
        {"dimensions": ["valence", "arousal"], "classes": [], "strategy": "lcmd"},
        {"dimensions": ["valence"]},
        {"corpora": ["natural"], "source_corpora": ["acted"]},
        {"tapt": {"steps": 2, "batch_s": 10, "warmup_steps": 1, "held_out": 0}},
        {"proxy": True, "finetune": {"adapter": "lora", "top_layers": 1, "epochs": 1}},
    ],
    ids=["ratings", "both", "source", "tapt", "proxy"],
)
def test_whatever_a_loop_learns_its_final_model_learns(
    values: Values, two_corpora: str, tmp_path: Path, own: Values
) -> None:
    pool = two_corpora if "corpora" in own else values["pool"]
    run = run_loop(parse(LoopOptions, values | {"pool": pool, "budget": {"sizes": [12]}, "folds": [0, 1]} | own))
    summary = fit(run, tmp_path / "final")
    assert summary["metric"] == ("uar" if own.get("classes", True) else "ccc")
    assert ModelCard.load(tmp_path / "final" / "README.md").data.eval_results
    out = str(tmp_path / "predicted.parquet")
    assert predict(parse(PredictOptions, {"run": str(tmp_path / "final"), "source": [pool], "out": out}))["rows"]
    if own.get("proxy"):
        assert (tmp_path / "final" / "model" / "adapter").is_dir()


def model_of(normalise: str, losses: Sequence[float | None]) -> FoldModel:
    epochs = [{"loss": 1.0} if loss is None else {"loss": 1.0, "dev_loss": loss} for loss in losses]
    history = {"head": {"normalise": normalise}, "adapter": {"epochs": epochs}}
    return FoldModel(fold=0, seed=0, labels=8, history=history, outputs={})


@pytest.mark.parametrize(
    ("losses", "adapter", "epochs"),
    [
        ([[3, 2, 1], [3, 1, 2], [1, 2, 3]], "lora", 1),
        ([[3, 2, 1], [3, 1, 2]], "lora", 1),
        ([[3, 2, 1], [3, 2, 1], [1, 2, 3]], "lora", 2),
        ([[1, 2], [1, 2], [3, 1]], "frozen", 8),
        ([[None, None], [None, None]], "lora", 8),
    ],
    ids=["median", "low median", "most", "no adapters", "no dev"],
)
def test_epochs_are_the_median_of_what_the_folds_chose(losses: Any, adapter: str, epochs: int) -> None:
    chosen = settled(FinetuneOptions(adapter="lora"), [model_of("none", row) for row in losses])
    assert (chosen.adapter, chosen.epochs) == (adapter, epochs)


@pytest.mark.parametrize(
    ("names", "chosen"),
    [
        (["speaker", "speaker", "none"], "speaker"),
        (["speaker", "none"], "none"),
        (["speaker", "corpus"], "corpus"),
        (["none"], "none"),
    ],
)
def test_the_normalisation_is_that_of_most_folds(names: list[str], chosen: str) -> None:
    assert settled(FinetuneOptions(), [model_of(name, []) for name in names]).head.normalise == chosen
