"""Reading the folders of complete rounds (loop/rounds.py)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Literal

import numpy as np
import pyarrow as pa

from ser_models.metrics import OWN
from seral import storage
from seral.errors import StateError
from seral.loop.stopping import RoundSummary
from seral.schema import PICK, label_schema, prediction_schema

PREDICTIONS = "predictions"
RATINGS = "ratings.parquet"
REASONS = "reasons.parquet"
NO_OUTPUTS = len(prediction_schema([]))
"""Columns of predictions before those that hold outputs."""


def latest(labels: pa.Table) -> pa.Table:
    """The last answer about each utterance, in the order in which they were first asked about."""
    row_of = {name: row for row, name in enumerate(labels["utterance_id"].to_pylist())}
    return labels.take(pa.array(row_of.values(), pa.int64()))


def round_folder(folder: str, number: int) -> str:
    """The folder of a round."""
    return storage.join(folder, "rounds", f"{number:04d}")


def read_rounds(folder: str) -> list[RoundSummary]:
    """The complete rounds of a trajectory in order. Raises StateError on a gap."""
    complete = _complete(folder)
    if complete != [f"{number:04d}" for number in range(len(complete))]:
        raise StateError(f"{folder} has complete rounds {', '.join(complete)}: one in between is missing")
    records = [storage.read_json(storage.join(folder, "rounds", n, "round.json")) for n in complete]
    names = ("round", "labelled", "dev_uar", "dev_ccc", "uncertainty", "kappa", "stop_reason")
    return [RoundSummary(**{name: record.get(name) for name in names}) for record in records]


def count_rounds(folder: str) -> int:
    """The number of complete rounds of a trajectory."""
    return len(_complete(folder))


def _complete(folder: str) -> list[str]:
    numbers = storage.list_names(storage.join(folder, "rounds"))
    return [n for n in numbers if storage.exists(storage.join(folder, "rounds", n, "round.json"))]


def prediction_files(path: str, part: str) -> list[str]:
    """The files of predictions for one part (pool, dev or test) in the folder of a round."""
    folder = storage.join(path, PREDICTIONS)
    if part != "pool":
        return [storage.join(folder, f"{part}.parquet")]
    pool = storage.join(folder, "pool")
    return [storage.join(pool, name) for name in storage.list_names(pool, ".parquet")]


def read_predictions(folder: str, part: Literal["dev", "test"]) -> list[dict[str, list[float]]]:
    """Class probabilities, then values of dimensions, of the clips of one part in every complete round."""
    rounds = []
    for number in range(count_rounds(folder)):
        (uri,) = prediction_files(round_folder(folder, number), part)
        table = storage.read_table(uri)
        columns = [np.asarray(table[name]) for name in table.column_names[NO_OUTPUTS:]]
        rounds.append(dict(zip(table["utterance_id"].to_pylist(), np.stack(columns, 1).tolist(), strict=True)))
    return rounds


def read_labels(folder: str, rounds: int, dimensions: Sequence[str] = ()) -> pa.Table:
    """All answers of the first `rounds` rounds, schema.label_schema."""
    uris = [storage.join(round_folder(folder, number), "labels.parquet") for number in range(rounds)]
    return storage.read_tables(uris, label_schema(dimensions))


def read_picks(folder: str, rounds: int) -> list[str]:
    """The ids that the first `rounds` rounds asked about, in order; clips with a label may stand there twice."""
    uris = [storage.join(round_folder(folder, number), "picks.parquet") for number in range(rounds)]
    picks: list[str] = storage.read_tables(uris, PICK)["utterance_id"].to_pylist()
    return picks


def further_metrics(scores: Mapping[str, Any]) -> dict[str, float]:
    """The metrics among those of a part that are other people's, by name."""
    ours = tuple(name for name, metric in OWN.items() if metric.of == "ratings")
    return {
        name: value
        for name, value in scores.items()
        if isinstance(value, float) and name not in OWN and name.split("_")[0] not in (*ours, "votes")
    }
