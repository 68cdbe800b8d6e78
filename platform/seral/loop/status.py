"""State of a run of the loop, read from its folder without any of what trains it."""

from __future__ import annotations

from typing import Any

from seral import storage
from seral.loop.folders import read_rounds
from seral.task.run import read_config

NO_TRAJECTORY: dict[str, Any] = {"trajectory": None, "rounds": None, "labelled": 0}
"""The row of a run that has no trajectory yet."""


def loop_status(run: str) -> list[dict[str, Any]]:
    """One row per trajectory: rounds done and planned, labels, the score on dev (UAR, or without classes mean CCC), why
    it stopped."""
    options = read_config(run, "loop")
    rows, metric = [], "dev_uar" if options["classes"] else "dev_ccc"
    for name in storage.list_names(storage.join(run, "trajectories")):
        folder = storage.join(run, "trajectories", name)
        rounds = read_rounds(folder)
        plan = storage.read_json(storage.join(folder, "trajectory.json"))["schedule"]
        last = rounds[-1] if rounds else None
        rows.append(
            {
                "trajectory": name,
                "rounds": f"{len(rounds)}/{len(plan)}",
                "labelled": last.labelled if last else 0,
                metric: round(last.dev, 4) if last and last.dev is not None else None,
                "stopped": last.stop_reason if last else None,
            }
        )
    pending = _pending(run) if options.get("people") else []
    if not pending:
        return rows
    awaits = "awaiting labels: " + ", ".join(pending)
    return [row | {"stopped": awaits} for row in rows or [NO_TRAJECTORY | {metric: None}]]


def _pending(run: str) -> list[str]:
    """The batches of a run with people that lack answers, in words."""
    from seral.loop.annotators import pending_batches
    from seral.loop.options import LoopOptions
    from seral.task.run import read_options

    return pending_batches(read_options(LoopOptions, run))
