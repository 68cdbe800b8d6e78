"""Runs followed in MLflow: a trajectory of the loop, or a trial of a sweep, is a run there.

Name, password or token of a server come from MLFLOW_TRACKING_USERNAME, MLFLOW_TRACKING_PASSWORD and
MLFLOW_TRACKING_TOKEN, or from files that these names with _FILE name.

Whoever drives a seral run tells MLflow what stands in its folder, so nothing is lost with a tracking server, and a
resumed run goes on in the MLflow runs it had. A server that does not answer is told once and never ends a run.
"""

from __future__ import annotations

import hashlib
import os
from collections.abc import Mapping
from typing import Any

from pydantic import Field

from seral import storage
from seral.errors import OptionError
from seral.options import Options
from seral.progress import say
from seral.secrets.addresses import TRACKING
from seral.secrets.environment import secret

IDENTITY, FOLDER = "seral.id", "seral.run"
"""Tags: what finds an MLflow run again, and the run folder."""
LONGEST = 500
"""Letters of a parameter: what every MLflow server takes."""


class TrackingOptions(Options):
    """Options of tracking: the address of MLflow, and the experiment."""

    uri: str
    """The address of a tracking server (http://...), or a folder."""
    experiment: str = Field(default="seral", min_length=1)
    """Name of the experiment that holds the runs."""


class Tracker:
    """One experiment, to which runs by name report."""

    def __init__(self, options: TrackingOptions, run: str) -> None:
        try:
            from mlflow.tracking import MlflowClient
        except ImportError:
            raise OptionError("track: MLflow's client is missing: pip install 'seral[track]'") from None
        uri = options.uri
        if "://" not in uri:
            uri = f"file://{storage.absolute(uri)}"
        if uri.startswith("file://"):
            os.environ.setdefault("MLFLOW_ALLOW_FILE_STORE", "true")  # folders are all that its small package has
        _sign_in()
        self._run, self._ids, self._silent = run, dict[str, str](), False
        self._last: dict[str, int] = {}
        self._client = MlflowClient(tracking_uri=uri)
        self._experiment = self._insist(self._find_experiment, options.experiment)

    def report(self, name: str, parameters: Mapping[str, Any], steps: Mapping[int, Mapping[str, float]]) -> None:
        """Tell MLflow the metrics of every step that it has not heard of yet; `parameters` are told at the first."""
        if self._experiment is not None and any(step > self._last.get(name, -1) for step in steps):
            self._insist(self._report, name, parameters, steps)

    def close(self, name: str, state: str) -> None:
        """Say how a run ended: FINISHED, FAILED or KILLED."""
        if name in self._ids:
            self._insist(self._client.set_terminated, self._ids[name], state)

    def _report(self, name: str, parameters: Mapping[str, Any], steps: Mapping[int, Mapping[str, float]]) -> None:
        if name not in self._ids:
            self._open(name, parameters)
        for step in sorted(steps):
            if step <= self._last[name]:
                continue
            for metric, value in steps[step].items():
                self._client.log_metric(self._ids[name], metric, float(value), step=step)
            self._client.set_tag(self._ids[name], "seral.step", str(step))
            self._last[name] = step

    def _open(self, name: str, parameters: Mapping[str, Any]) -> None:
        identity = hashlib.sha256(f"{self._run}#{name}".encode()).hexdigest()[:32]
        runs = self._client.search_runs([self._experiment], filter_string=f"tags.`{IDENTITY}` = '{identity}'")
        if runs:
            self._ids[name], self._last[name] = runs[0].info.run_id, int(runs[0].data.tags.get("seral.step", -1))
            return
        made = self._client.create_run(self._experiment, run_name=name, tags={IDENTITY: identity, FOLDER: self._run})
        for key, value in flat(parameters).items():
            self._client.log_param(made.info.run_id, key, str(value)[:LONGEST])
        self._ids[name], self._last[name] = made.info.run_id, -1

    def _find_experiment(self, name: str) -> str:
        experiment = self._client.get_experiment_by_name(name)
        return str(self._client.create_experiment(name) if experiment is None else experiment.experiment_id)

    def _insist(self, call: Any, *arguments: Any) -> Any:
        try:
            return call(*arguments)
        except Exception as error:  # of whatever kind: the run is worth more than its tracking
            if not self._silent:
                say(f"MLflow was not told: {(str(error).splitlines() or [type(error).__name__])[0]}")
                self._silent = True
            return None


def _sign_in() -> None:
    """Give MLflow's client, which reads the environment alone, what files hold. Raises OptionError without a file."""
    try:
        values = {variable: secret(variable) for variable in TRACKING}
    except ValueError as error:
        raise OptionError(f"track: {error}") from None
    os.environ.update({variable: value for variable, value in values.items() if value is not None})


def flat(values: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    """Nested options by path, which is what MLflow takes."""
    by_path: dict[str, Any] = {}
    for key, value in values.items():
        by_path |= flat(value, f"{prefix}{key}.") if isinstance(value, Mapping) and value else {f"{prefix}{key}": value}
    return by_path
