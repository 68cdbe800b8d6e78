"""Outcome of a run as its command prints it: a row an arm and budget, and where the report is."""

from __future__ import annotations

from typing import Any

import numpy as np
import pandas as pd

from ser_models.intervals import mean_interval
from seral import storage
from seral.report.comparison import paired_difference
from seral.report.records import RunRecords, adapter_warnings, read_run
from seral.schema import FULL, RANDOM
from seral.task.complete import COMPLETE

PAGE = "report/index.html"
LOWEST = {"uar": 0.0, "ccc": -1.0}
"""Ends of scores, at which their intervals end too."""


def run_outcome(run: str) -> dict[str, Any]:
    """Rows of the arms of a run, warnings of adapters, and the address of its report, which is written where it is
    older than the run."""
    report = storage.join(run, PAGE)
    if storage.modified(report) <= storage.modified(storage.join(run, COMPLETE)):
        from seral.report.report import write_run_report

        report = write_run_report(run)
    records = read_run(run)
    warnings = adapter_warnings(records.trainings)
    return {"run": run, "arms": arm_rows(records), "warnings": warnings, "report": report}


def arm_rows(records: RunRecords) -> list[dict[str, Any]]:
    """One row an arm and round: labels, test UAR in per cent (mean CCC without classes), and the gain on random.

    Other people's metrics stand beside them as they are. All have a 95 % interval (Student's t) over folds, over seeds
    where there is one fold; '' with a single value.
    """
    metric = records.metrics[0]
    name, scale, digits = ("UAR %", 100, 1) if metric == "uar" else ("CCC", 1, 3)
    rows = []
    for arm in records.arms:
        own = records.rounds[records.rounds["arm"] == arm]
        for number, of_round in own.groupby("round"):
            upto = records.rounds[records.rounds["round"] <= number]
            gain = None if arm in (RANDOM, FULL) else paired_difference(upto, arm, np.random.default_rng(0), metric)
            low, high = _interval(of_round, metric)
            rows.append(
                {
                    "arm": arm,
                    "labels": round(float(of_round["labelled"].mean())),
                    name: f"{scale * of_round[metric].mean():.{digits}f}",
                    "95 %": _between(scale * max(low, LOWEST[metric]), scale * min(high, 1.0), digits),
                    "on random": "" if gain is None else f"{scale * gain.mean:+.{digits}f}",
                    "95 % of it": "" if gain is None else _between(scale * gain.low, scale * gain.high, digits),
                }
                | _further_cells(records, of_round)
            )
    return rows


def _further_cells(records: RunRecords, of_round: pd.DataFrame) -> dict[str, str]:
    """Other people's metrics of a round, each with its interval."""
    cells: dict[str, str] = {}
    for name in records.further:
        cells |= {name: f"{of_round[name].mean():.3f}", f"{name} 95 %": _between(*_interval(of_round, name), 3)}
    return cells


def _interval(of_round: pd.DataFrame, metric: str) -> tuple[float, float]:
    mean_F = of_round.groupby("fold")[metric].mean().to_numpy(dtype=np.float64)
    low, high, _ = mean_interval(mean_F if len(mean_F) > 1 else of_round[metric].to_numpy(dtype=np.float64))
    return low, high


def _between(low: float, high: float, digits: int) -> str:
    return "" if np.isnan(low) else f"{low:.{digits}f} to {high:.{digits}f}"
