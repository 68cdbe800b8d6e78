"""Runs in MLflow: its own client reads what was told."""

from __future__ import annotations

import base64
import json
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any, ClassVar

import pytest
from mlflow.tracking import MlflowClient

from seral import storage
from seral.errors import OptionError
from seral.loop.loop import run_loop
from seral.loop.options import LoopOptions
from seral.options import parse
from seral.secrets.addresses import TRACKING
from seral.sweep.plan import SweepOptions
from seral.sweep.run import run_sweep
from seral.task.tracking import Tracker, TrackingOptions, flat

PASSWORD = "pl4nted"


@pytest.fixture
def client(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> MlflowClient:
    monkeypatch.setenv("MLFLOW_ALLOW_FILE_STORE", "true")
    return MlflowClient(tracking_uri=f"file://{tmp_path / 'mlflow'}")


def runs(client: MlflowClient) -> dict[str, Any]:
    experiment = client.get_experiment_by_name("seral")
    return {run.info.run_name: run for run in client.search_runs([experiment.experiment_id])}


def curve(client: MlflowClient, run: Any, metric: str) -> dict[int, float]:
    return {point.step: point.value for point in client.get_metric_history(run.info.run_id, metric)}


def test_a_step_is_told_once_and_a_resumed_run_goes_on_where_it_was(client: MlflowClient, tmp_path: Path) -> None:
    options = TrackingOptions(uri=str(tmp_path / "mlflow"))
    first = Tracker(options, "runs/it's mine")
    first.report("a", {"x": {"y": 1}, "long": "z" * 9000}, {0: {"uar": 0.2}, 1: {"uar": 0.3}})
    again = Tracker(options, "runs/it's mine")
    again.report("a", {"x": {"y": 1}}, {0: {"uar": 0.9}, 1: {"uar": 0.9}, 2: {"uar": 0.4}})
    again.close("a", "FINISHED")
    Tracker(options, "runs/another").report("a", {}, {0: {"uar": 0.1}})
    run_of = list(runs(client).values())
    mine = next(run for run in client.search_runs([run_of[0].info.experiment_id]) if run.data.params.get("x.y") == "1")
    assert curve(client, mine, "uar") == {0: 0.2, 1: 0.3, 2: 0.4}
    assert [point.value for point in client.get_metric_history(mine.info.run_id, "uar")] == [0.2, 0.3, 0.4]
    assert mine.info.status == "FINISHED"
    assert len(mine.data.params["long"]) == 500
    assert len(client.search_runs([mine.info.experiment_id])) == 2


def test_a_server_that_does_not_answer_is_told_once_and_ends_nothing(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "0")
    tracker = Tracker(TrackingOptions(uri="http://127.0.0.1:9"), "run")
    tracker.report("a", {}, {0: {"uar": 0.2}})
    tracker.close("a", "FINISHED")
    assert capsys.readouterr().err.count("MLflow was not told") == 1


class Guarded(BaseHTTPRequestHandler):
    """As much of an MLflow server as a tracker asks first, for one user with a password."""

    experiment: ClassVar[dict[str, Any]] = {"experiment_id": "1", "name": "seral", "lifecycle_stage": "active"}

    def do_GET(self) -> None:
        right = base64.b64encode(f"ada:{PASSWORD}".encode()).decode()
        allowed = self.headers.get("Authorization") == f"Basic {right}"
        body = json.dumps({"experiment": self.experiment} if allowed else {"message": "who are you?"}).encode()
        self.send_response(200 if allowed else 401)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, format: str, *arguments: Any) -> None:
        """Nothing."""


@pytest.fixture
def guarded() -> Iterator[str]:
    """The address of a server that asks who is there."""
    with ThreadingHTTPServer(("127.0.0.1", 0), Guarded) as server:
        thread = threading.Thread(target=server.serve_forever, daemon=True)
        thread.start()
        yield f"http://127.0.0.1:{server.server_port}"
        server.shutdown()
        thread.join()


def test_a_password_comes_from_the_environment_or_a_file(
    guarded: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "0")
    for variable in TRACKING:
        monkeypatch.setenv(variable, "")  # and gone again after the test
        monkeypatch.delenv(variable)

    def refused() -> str:
        Tracker(TrackingOptions(uri=guarded), "run")
        return capsys.readouterr().err

    assert "MLflow was not told" in refused()
    monkeypatch.setenv("MLFLOW_TRACKING_USERNAME", "ada")
    monkeypatch.setenv("MLFLOW_TRACKING_PASSWORD", f"not {PASSWORD}")
    assert "MLflow was not told" in (sentence := refused())
    assert PASSWORD not in sentence
    monkeypatch.setenv("MLFLOW_TRACKING_PASSWORD", PASSWORD)
    assert refused() == ""
    monkeypatch.delenv("MLFLOW_TRACKING_PASSWORD")
    monkeypatch.setenv("MLFLOW_TRACKING_PASSWORD_FILE", str(tmp_path / "password"))
    with pytest.raises(OptionError, match=r"track: MLFLOW_TRACKING_PASSWORD_FILE names .*, which cannot be read"):
        refused()
    (tmp_path / "password").write_text(f"{PASSWORD}\n")
    assert refused() == ""


def test_options_by_path() -> None:
    assert flat({"a": {"b": 1, "c": {}}, "d": [1]}) == {"a.b": 1, "a.c": {}, "d": [1]}


@pytest.mark.ray
def test_rounds_of_the_loop_are_steps_of_a_run_a_trajectory(
    client: MlflowClient, run_values: dict[str, Any], tmp_path: Path
) -> None:
    values = run_values | {"full_arm": False, "track": {"uri": str(tmp_path / "mlflow")}}
    for _ in range(2):  # the second time, everything is there
        run = Path(run_loop(parse(LoopOptions, values)))
    run_of = runs(client)
    assert sorted(run_of) == ["auto.fold-00.seed-0", "random.fold-00.seed-0"]
    for name, mlflow_run in run_of.items():
        rounds = sorted((run / "trajectories" / name / "rounds").iterdir())
        metrics = [storage.read_json(folder / "metrics.json") for folder in rounds]
        assert curve(client, mlflow_run, "test.uar") == {n: m["test"]["uar"] for n, m in enumerate(metrics)}
        assert curve(client, mlflow_run, "labelled") == {0: 8, 1: 14, 2: 20}
        assert mlflow_run.info.status == "FINISHED"
        assert mlflow_run.data.params["finetune.adapter"] == "frozen"
        assert mlflow_run.data.params["arm"] == name.split(".")[0]


@pytest.mark.ray
def test_trials_of_a_sweep_are_runs(client: MlflowClient, run_values: dict[str, Any], tmp_path: Path) -> None:
    training = {name: value for name, value in run_values.items() if name not in ("run", "budget")}
    options = {
        "run": str(tmp_path / "sweep"),
        "training": training,
        "space": {"finetune.head.l2": [0.1, 10.0]},
        "search": "grid",
        "track": {"uri": str(tmp_path / "mlflow")},
    }
    run_sweep(parse(SweepOptions, options))
    run_of = runs(client)
    assert {run.data.params["finetune.head.l2"] for run in run_of.values()} == {"0.1", "10.0"}
    assert all("dev" in run.data.metrics and run.info.status == "FINISHED" for run in run_of.values())
