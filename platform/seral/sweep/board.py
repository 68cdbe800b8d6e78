"""The outcome of every point: a record each, and the leader board made of them.

RUN/trials/<point>.json           labels, state, reports, error
RUN/leaderboard.csv, .parquet     a line a point, the best first
"""

from __future__ import annotations

import hashlib
import io
import json
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import yaml

from seral import storage
from seral.errors import StateError
from seral.sweep.plan import SweepOptions
from seral.sweep.space import Plain, point_of, with_point
from seral.task.run import read_options

if TYPE_CHECKING:
    import pandas as pd

TRIALS = "trials"
RUNNING, DONE, STOPPED, FAILED = "running", "done", "stopped", "failed"


def point_name(labels: Mapping[str, Plain]) -> str:
    """A name of a point: the same for the same labels."""
    return hashlib.sha256(json.dumps(dict(labels), sort_keys=True).encode()).hexdigest()[:12]


def read_record(run: str, name: str) -> dict[str, Any] | None:
    """The record of a point, or None."""
    uri = storage.join(run, TRIALS, f"{name}.json")
    return storage.read_json(uri) if storage.exists(uri) else None


def read_records(run: str) -> dict[str, dict[str, Any]]:
    """All records by point, in the order in which the points were first tried."""
    names = [name.removesuffix(".json") for name in storage.list_names(storage.join(run, TRIALS))]
    records = {name: record for name in names if (record := read_record(run, name))}
    return dict(sorted(records.items(), key=lambda item: (item[1]["number"], item[0])))


def write_record(run: str, name: str, record: Mapping[str, Any]) -> None:
    """Write the record of a point."""
    storage.write_json(storage.join(run, TRIALS, f"{name}.json"), record)


def ranked(records: Mapping[str, Mapping[str, Any]]) -> list[str]:
    """All points: those that were seen through first, the best of them first, ties in the order of trying.

    A stopped point's score is of fewer trainings, epochs or rounds, so it never leads one that was seen through.
    """

    def rank(name: str) -> tuple[bool, bool, float, int]:
        record = records[name]
        dev = record["reports"][-1].get("dev") if record["reports"] else None
        return record["state"] != DONE, dev is None, -(dev or 0.0), record["number"]

    return sorted(records, key=rank)


def leaderboard(records: Mapping[str, Mapping[str, Any]]) -> pd.DataFrame:
    """A line a point, as they are ranked."""
    import pandas as pd  # who asks for the best point waits for no table

    lines = []
    for name in ranked(records):
        record = records[name]
        last = record["reports"][-1] if record["reports"] else {}
        lines.append(
            {
                "point": name,
                "number": record["number"],
                "state": record["state"],
                "dev": last.get("dev"),
                "reports": len(record["reports"]),
                "seconds": seconds_of(record),
                "error": record.get("error"),
                **record["labels"],
            }
        )
    if not lines:
        return pd.DataFrame(columns=["point", "number", "state", "dev", "reports", "seconds", "error"])
    return pd.DataFrame(lines)


def best_config(run: str) -> str:
    """The best point so far as YAML, with a run folder of its own: what `seral loop run` takes."""
    options, records = read_options(SweepOptions, run, "sweep"), read_records(run)
    best = next(iter(ranked(records)), None)
    if best is None or records[best]["state"] != DONE:
        raise StateError(f"no trial of {run} has come to its end yet")
    return config_at(options, records[best]["labels"])


def config_at(options: SweepOptions, labels: Mapping[str, Plain]) -> str:
    """The training at a point as YAML, with a run folder of its own."""
    values = with_point(options.values, point_of(options.space, labels))
    return yaml.safe_dump({**values, "run": storage.join(options.run, "loop")}, sort_keys=False, allow_unicode=True)


def seconds_of(record: Mapping[str, Any]) -> float:
    """Seconds of learning: reports of folds and seeds add up, those on the way count from the start."""
    reports = record["reports"]
    if not reports:
        return 0.0
    seconds = [report["seconds"] for report in reports]
    return float(max(seconds) if record["on_the_way"] else sum(seconds))


def write_leaderboard(run: str, table: pd.DataFrame) -> None:
    """The board as CSV, and as Parquet with columns of one type each."""
    import pandas as pd

    storage.write_bytes(storage.join(run, "leaderboard.csv"), table.to_csv(index=False).encode())
    typed = table.copy()
    for name in typed.columns:
        if typed[name].map(type).nunique() > 1 and not pd.api.types.is_numeric_dtype(typed[name]):
            typed[name] = typed[name].map(lambda value: None if pd.isna(value) else str(value))
    buffer = io.BytesIO()
    typed.to_parquet(buffer, index=False)
    storage.write_bytes(storage.join(run, "leaderboard.parquet"), buffer.getvalue())
