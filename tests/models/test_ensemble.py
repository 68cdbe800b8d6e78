"""Ensembles: rules by definition, judged on speakers that chose nothing, predicting by all of their members."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from sklearn.linear_model import LogisticRegression

from seral import storage
from seral.errors import OptionError, StateError
from seral.models.decision import tempered
from seral.models.ensemble import Joined, read_joined, run_ensemble
from seral.models.options import EnsembleOptions, PredictOptions
from seral.models.predict import predict
from seral.options import parse
from seral.pool.shards import open_pool
from seral.task.gold import Oracle
from seral.task.run import verb_of
from seral.training.options import SupervisedOptions
from seral.training.supervised import run_train
from seral.verbs.check_run import check_run

# R repeats (members) · N rows · C classes

CLASSES = ("anger", "happiness", "neutral", "sadness")


def shares(members: int, rows: int, classes: int, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    """Probabilities of a truth, from logits that are twice those of Bayes; and the truth."""
    rng = np.random.default_rng(seed)
    truth_N = rng.integers(classes, size=rows)
    logits_RNC = rng.normal(size=(members, rows, classes)) + 1.5 * np.eye(classes)[truth_N]
    share_RNC = np.exp(3 * logits_RNC)
    return share_RNC / share_RNC.sum(2, keepdims=True), truth_N


def test_the_mean_is_that_of_calibrated_probabilities() -> None:
    share_RNC, truth_N = shares(3, 400, 4)
    joined = Joined.fit(share_RNC, truth_N, "mean")
    assert joined.temperatures == pytest.approx([2, 2, 2], rel=0.25), "they were twice as sure as they should be"
    expected = np.mean([tempered(p, t) for p, t in zip(share_RNC, joined.temperatures, strict=True)], axis=0)
    np.testing.assert_allclose(joined(share_RNC), expected)
    assert (joined(share_RNC).argmax(1) == truth_N).mean() > (share_RNC.argmax(2) == truth_N).mean(1).max()


@pytest.mark.parametrize("classes", [2, 3])
def test_stacked_is_a_logistic_regression_on_all_of_them(classes: int) -> None:
    share_RNC, truth_N = shares(2, 300, classes)
    joined = Joined.fit(share_RNC[:, :200], truth_N[:200], "stacked")
    model = LogisticRegression(class_weight="balanced", max_iter=1000)
    model.fit(joined.features(share_RNC[:, :200]), truth_N[:200])
    np.testing.assert_allclose(joined(share_RNC), model.predict_proba(joined.features(share_RNC)), atol=1e-9)


def test_a_class_that_nobody_showed_is_never_the_answer() -> None:
    share_RNC, truth_N = shares(2, 200, 4)
    share_NC = Joined.fit(share_RNC, np.minimum(truth_N, 2), "stacked")(share_RNC)
    assert share_NC[:, 3].max() < 1e-6
    np.testing.assert_allclose(share_NC.sum(1), 1)


@pytest.fixture(scope="module")
def runs(tmp_path_factory: pytest.TempPathFactory, speech_pool: str) -> list[str]:
    """Two trainings on two folds: one of all states, one of the last alone."""
    folder, made = tmp_path_factory.mktemp("runs"), []
    for layers in ("sum", "last"):
        values = {
            "pool": speech_pool,
            "run": str(folder / layers),
            "encoder": "seral-tiny",
            "classes": list(CLASSES),
            "split": {"scheme": "k-fold", "k": 3},
            "folds": [0, 1],
            "finetune": {"adapter": "frozen", "head": {"normalise": "none", "layers": layers}},
        }
        run_train(parse(SupervisedOptions, values))
        made.append(values["run"])
    return [str(run) for run in made]


def cells_of(run: str) -> dict[str, Any]:
    return {path.name.partition(".")[2]: storage.read_json(path) for path in sorted(Path(run).glob("cells/*.json"))}


@pytest.mark.ray
def test_what_is_joined_is_judged_on_folds_that_chose_nothing(
    runs: list[str], speech_pool: str, tmp_path: Path
) -> None:
    out = str(tmp_path / "both")
    text = run_ensemble(parse(EnsembleOptions, {"runs": runs, "run": out}))
    assert verb_of(out) == "ensemble"
    table = pd.read_csv(Path(out) / "table.csv").set_index("row")
    assert list(table.index) == ["sum", "last", "mean", "stacked"]
    cells = [cells_of(run) for run in runs]
    for run, own in zip(("sum", "last"), cells, strict=True):
        assert table.loc[run, "uar"] == pytest.approx(np.mean([cell["uar"] for cell in own.values()]))
    # By hand: the temperatures of each fold are the other's.
    oracle, folds = Oracle(open_pool(speech_pool), CLASSES), []
    for name in cells[0]:
        ids = sorted(cells[0][name]["predicted"])
        truth_N = np.array([CLASSES.index(emotion) for emotion in oracle.emotions(ids)])
        folds.append((np.array([[own[name]["predicted"][clip] for clip in ids] for own in cells]), truth_N))
    recalls = []
    for (share_RNC, truth_N), other in zip(folds, folds[::-1], strict=True):
        predicted_N = Joined.fit(*other, "mean")(share_RNC).argmax(1)
        recalls.append(np.mean([(predicted_N[truth_N == c] == c).mean() for c in np.unique(truth_N)]))
    assert table.loc["mean", "uar"] == pytest.approx(np.mean(recalls))
    assert f"{100 * np.mean(recalls):.1f}" in text
    assert check_run(out).problems == []


@pytest.mark.ray
def test_it_predicts_by_all_members(runs: list[str], speech_pool: str, tmp_path: Path) -> None:
    out = str(tmp_path / "both")
    run_ensemble(parse(EnsembleOptions, {"runs": runs, "run": out, "rule": "stacked"}))
    tables = {}
    for run in (*runs, out):
        target = str(tmp_path / f"{Path(run).name}.parquet")
        counts = predict(parse(PredictOptions, {"run": run, "source": [speech_pool], "out": target}))
        tables[run] = pd.read_parquet(target).set_index("utterance_id")
        assert counts["rows"] == len(tables[run]) == open_pool(speech_pool).rows
    members, classes, joined = read_joined(out)
    assert members == runs
    columns = [f"p_{name}" for name in classes]
    fine = tables[out]["error"].isna()
    share_RNC = np.stack([tables[run].loc[fine, columns].to_numpy(np.float64) for run in runs])
    np.testing.assert_allclose(tables[out].loc[fine, columns], joined(share_RNC), atol=1e-6)
    assert (tables[out].loc[fine, "predicted"] == np.array(classes)[joined(share_RNC).argmax(1)]).all()
    assert sorted(path.name for path in tmp_path.iterdir()) == ["both", "both.parquet", "last.parquet", "sum.parquet"]
    (tmp_path / "no-audio.wav").write_text("nothing")
    counts = predict(parse(PredictOptions, {"run": out, "source": [str(tmp_path / "no-audio.wav")]}))
    assert counts["errors"] == 1
    assert "not-audio" in counts["predictions"][0]["error"]
    with pytest.raises(OptionError, match=r"go to one table, such as predictions\.parquet"):
        predict(parse(PredictOptions, {"run": out, "source": [speech_pool], "out": str(tmp_path / "folder")}))
    storage.remove(Path(out) / "ensemble.json")
    with pytest.raises(StateError, match="holds no ensemble yet"):
        predict(parse(PredictOptions, {"run": out, "source": [str(tmp_path / "no-audio.wav")]}))


@pytest.mark.ray
def test_runs_that_do_not_fit_together_are_refused(runs: list[str], speech_pool: str, tmp_path: Path) -> None:
    def join(*names: str) -> None:
        run_ensemble(parse(EnsembleOptions, {"runs": names, "run": str(tmp_path / "both")}))

    with pytest.raises(OptionError, match="is named twice"):
        join(runs[0], runs[0])
    with pytest.raises(OptionError, match="at least 2"):
        parse(EnsembleOptions, {"runs": runs[:1], "run": "x"})
    base = {
        "pool": speech_pool,
        "encoder": "seral-tiny",
        "split": {"scheme": "k-fold", "k": 3},
        "folds": [2],
        "finetune": {"adapter": "frozen", "head": {"normalise": "none"}},
    }
    for name, classes, message in (
        ("two", ["anger", "neutral"], "needs the same classes in the same order"),
        ("third", list(CLASSES), "no fold and seed in common"),
    ):
        run = str(tmp_path / name)
        run_train(parse(SupervisedOptions, base | {"run": run, "classes": classes}))
        with pytest.raises(OptionError, match=message):
            join(runs[0], run)
    assert not (tmp_path / "both" / "ensemble.json").exists()
