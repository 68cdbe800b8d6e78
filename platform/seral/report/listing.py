"""The runs below a folder: verb, dates, labels, score on dev, state."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

from seral import storage
from seral.errors import SeralError, StateError
from seral.loop.folders import further_metrics, read_rounds, round_folder
from seral.loop.status import loop_status
from seral.schema import FULL
from seral.task.complete import COMPLETE
from seral.task.run import CONFIG, ENVIRONMENT, read_config, verb_of

FURTHER = "further"
ARMS_BESIDE = {"gold": 1, "people": 0}
"""Arms besides the strategies that each seed of a run has, by annotator: random."""


def list_runs(folder: str) -> list[dict[str, Any]]:
    """One row a run in a folder or in a folder of it: run, verb, begun, labels, dev, state; sorted by path.

    `labels` and `dev` (UAR, or mean CCC) are means over the last rounds of a loop's strategies, and so are metrics of
    other people's on dev, which follow by name. Raises StateError where there is no such folder.
    """
    if not storage.exists(folder):
        raise StateError(f"there is no folder {folder}: name the one that runs lie in")
    rows = [_row(run) for run in _runs(folder, depth=2)]
    further = sorted({name for row in rows for name in row[FURTHER]})
    return [row | {name: scores.get(name) for name in further} for row in rows for scores in [row.pop(FURTHER)]]


def _runs(folder: str, depth: int) -> Iterator[str]:
    if storage.exists(storage.join(folder, CONFIG)):
        yield folder
    elif depth > 0:
        for name in storage.list_names(folder):
            inner = storage.join(folder, name)
            if not storage.is_file(inner):
                yield from _runs(inner, depth - 1)


def _row(run: str) -> dict[str, Any]:
    row: dict[str, Any] = dict.fromkeys(("run", "verb", "begun", "labels", "dev", "state")) | {FURTHER: {}}
    facts = storage.join(run, ENVIRONMENT)
    try:
        row |= {"run": run, "verb": verb_of(run) or ("loop" if "budget" in read_config(run) else None)}
        row["begun"] = storage.read_json(facts).get("created") if storage.exists(facts) else None
        complete = storage.exists(storage.join(run, COMPLETE))
        state = "done" if complete else "begun" if row["begun"] else "new"
        return row | (_loop(run) if row["verb"] == "loop" else {"state": state})
    except (SeralError, OSError) as error:
        return row | {"run": run, "state": f"unreadable: {error}"}


def _loop(run: str) -> dict[str, Any]:
    """Labels, score on dev and state of a run of the loop."""
    config, status = read_config(run, "loop"), loop_status(run)  # its values alone: no code that they name is run
    chosen = [row for row in status if not row["trajectory"].startswith((f"{FULL}.", "random."))] or status
    scores = [value for row in chosen if (value := row.get("dev_uar", row.get("dev_ccc"))) is not None]
    mean = {
        "labels": round(sum(row["labelled"] for row in chosen) / len(chosen)) if chosen else 0,
        "dev": round(sum(scores) / len(scores), 4) if scores else None,
        FURTHER: _further(run, [row["trajectory"] for row in chosen if row["trajectory"]]),
    }
    waiting = [row["stopped"] for row in status if str(row["stopped"]).startswith("awaiting labels")]
    if waiting:
        return mean | {"state": waiting[0]}
    folds = len(storage.read_json(storage.join(run, ENVIRONMENT)).get("n_train", {})) if status else 1
    arms = 1 + len(config["others"]) + ARMS_BESIDE["gold" if config.get("people") is None else "people"]
    planned = max(folds * len(config["seeds"]) * arms, 1)
    ended = sum(bool(row["stopped"]) for row in status if not row["trajectory"].startswith(f"{FULL}."))
    return mean | {"state": "done" if ended >= planned else f"{ended} of {planned} trajectories ended"}


def _further(run: str, trajectories: Sequence[str]) -> dict[str, float]:
    """Other people's metrics on dev, means over the last rounds of some trajectories."""
    values: dict[str, list[float]] = {}
    for folder in (storage.join(run, "trajectories", name) for name in trajectories):
        if rounds := read_rounds(folder):
            metrics = storage.read_json(storage.join(round_folder(folder, rounds[-1].round), "metrics.json"))
            for name, value in further_metrics(metrics.get("dev") or {}).items():
                values.setdefault(name, []).append(value)
    return {name: round(sum(own) / len(own), 4) for name, own in values.items()}
