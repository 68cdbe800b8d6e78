"""A loop that learns ratings, alone and with classes."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq
import pytest
from pydantic import ValidationError

from ser_models.metrics import ccc
from seral.errors import OptionError
from seral.loop.loop import run_loop
from seral.loop.options import LoopOptions
from seral.loop.status import loop_status
from seral.models.options import PredictOptions
from seral.models.prediction import predict
from seral.options import parse
from seral.pool.shards import open_pool
from seral.report.ratings import ccc_curves
from seral.report.records import read_run
from seral.report.report import write_run_report
from seral.schema import GOLD
from seral.storage import read_tables

pytestmark = pytest.mark.ray

RATED = ["valence", "arousal"]


@pytest.fixture
def rated_values(run_values: dict[str, Any]) -> dict[str, Any]:
    return run_values | {"classes": [], "dimensions": RATED, "budget": {"sizes": [12, 20]}}


def metrics_of(run: str, arm: str, number: int) -> dict[str, Any]:
    (path,) = Path(run).glob(f"trajectories/{arm}.*/rounds/{number:04d}/metrics.json")
    content: dict[str, Any] = json.loads(path.read_text())
    return content


def truth_of(pool: str) -> dict[str, list[float]]:
    """Gold ratings of every utterance."""
    opened = open_pool(pool)
    table = read_tables([opened.table_uri("gold", shard) for shard in opened.shards], GOLD).to_pylist()
    return {row["utterance_id"]: [row[name] for name in RATED] for row in table}


def test_ratings_alone_are_bought_learnt_judged_and_reported(rated_values: dict[str, Any], tmp_path: Path) -> None:
    run = run_loop(parse(LoopOptions, rated_values | {"strategy": "igs", "stop": {"kappa": 0.9999}}))
    rows = {row["trajectory"].split(".")[0]: row for row in loop_status(run)}
    assert rows["igs"]["rounds"] == "2/2"
    assert rows["igs"]["dev_ccc"] is not None
    truth = truth_of(rated_values["pool"])
    (folder,) = Path(run).glob("trajectories/igs.*/rounds")
    for row in pq.read_table(folder / "0001" / "labels.parquet").to_pylist():
        assert [row[name] for name in RATED] == pytest.approx(truth[row["utterance_id"]])
        assert row["emotion"] is None
    table = pq.read_table(folder / "0001" / "predictions" / "test.parquet")
    true_NK = np.array([truth[name] for name in table["utterance_id"].to_pylist()])
    for k, name in enumerate(RATED):
        expected = ccc(true_NK[:, k], table[name].to_numpy().astype(np.float64))
        assert metrics_of(run, "igs", 1)["test"][f"ccc_{name}"] == pytest.approx(expected)
    assert metrics_of(run, "igs", 1)["probe"].keys() == {"test_ccc"}
    record = json.loads((folder / "0001" / "round.json").read_text())
    assert -1 <= record["kappa"] <= 1
    page = Path(write_run_report(run)).read_text()
    assert "Confusion" not in page
    assert "bias is the mean of predicted less true ratings" in page
    curves = ccc_curves(read_run(run)).set_index(["arm", "round", "dimension"])
    assert curves.loc[("igs", 1, "mean"), "ccc"] == pytest.approx(metrics_of(run, "igs", 1)["test"]["ccc"])
    assert curves.loc[("igs", 1, "mean"), "low"] < curves.loc[("igs", 1, "mean"), "ccc"]
    out = str(tmp_path / "p.parquet")
    predict(parse(PredictOptions, {"run": run, "source": [rated_values["pool"]], "out": out}))
    predicted = {row["utterance_id"]: row for row in pq.read_table(out).to_pylist()}
    for row in table.to_pylist():
        assert row["valence"] == pytest.approx(predicted[row["utterance_id"]]["valence"], abs=0.1)


@pytest.mark.parametrize("strategy", ["auto", "emcm", "max_det"])
def test_strategies_for_ratings_run_in_the_loop(rated_values: dict[str, Any], strategy: str) -> None:
    values = rated_values | {"strategy": strategy, "random_arm": False, "full_arm": False, "probe": False}
    run = run_loop(parse(LoopOptions, values))
    assert [row["rounds"] for row in loop_status(run)] == ["2/2"]


def test_classes_and_ratings_stand_side_by_side(rated_values: dict[str, Any], run_values: dict[str, Any]) -> None:
    values = rated_values | {"classes": run_values["classes"], "strategy": "margin", "full_arm": False}
    run = run_loop(parse(LoopOptions, values))
    test = metrics_of(run, "margin", 1)["test"]
    assert {"uar", "ccc", "ccc_valence", "ccc_arousal"} <= test.keys()
    assert {"test_uar", "test_ccc"} <= metrics_of(run, "margin", 1)["probe"].keys()
    page = Path(write_run_report(run)).read_text()
    assert "Confusion" in page
    assert "points of UAR" in page
    assert "CCC valence" in page
    assert all("dev_uar" in row for row in loop_status(run))


def test_a_killed_trajectory_of_ratings_goes_on_as_if_it_had_not_been(rated_values: dict[str, Any]) -> None:
    values = rated_values | {"strategy": "lcmd", "random_arm": False, "full_arm": False}
    outcomes = []
    for name, sizes in (("whole", [[12, 20]]), ("resumed", [[12, 20], [12, 20]])):
        run = f"{values['run']}-{name}"
        for attempt, budget in enumerate(sizes):
            run_loop(parse(LoopOptions, values | {"run": run, "budget": {"sizes": budget}}))
            (rounds,) = Path(run).glob("trajectories/lcmd.*/rounds")
            if attempt + 1 < len(sizes):  # as if it had been killed in its second round
                (rounds / "0001" / "round.json").unlink()
        outcomes.append(
            [pq.read_table(rounds / "0001" / "picks.parquet"), (rounds / "0001" / "metrics.json").read_text()]
        )
    assert outcomes[0] == outcomes[1]


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"strategy": "margin"}, r"margin reads probability_NC, .* learns ratings: take one of .*lcmd"),
        ({"initial": {"name": "random", "by": "predicted"}}, "random reads probability_NC"),
        ({"strategy": {"name": "k_center", "wrappers": ["relabel"]}}, "labelled_doubt_M"),
        ({"stop": {"target_uar": 0.5}}, "stop.target_uar says nothing .* take target_ccc"),
        ({"stop": {"uncertainty": 0.5}}, "stop.uncertainty says nothing"),
        ({"dimensions": [], "classes": ["anger", "sadness"], "strategy": "igs"}, "made of ratings, .* learns classes"),
        ({"dimensions": [], "classes": ["anger", "sadness"], "stop": {"target_ccc": 0.5}}, "take target_uar"),
        ({"source_corpora": ["other"]}, "teach classes"),
    ],
)
def test_what_ratings_cannot_do_is_refused(rated_values: dict[str, Any], changes: dict[str, Any], message: str) -> None:
    with pytest.raises((OptionError, ValidationError), match=message):
        parse(LoopOptions, rated_values | changes)
