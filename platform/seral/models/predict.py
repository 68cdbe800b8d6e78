"""Prediction by the model of a run, or by all members of an ensemble."""

# R repeats (members) · N rows · C classes
from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager, nullcontext
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
import pyarrow as pa

from seral import storage
from seral.errors import OptionError
from seral.models.decision import tempered
from seral.models.ensemble import Joined, read_joined
from seral.models.options import PredictOptions
from seral.models.prediction import TABLE, TEXTS, decision_of, output_schema, pool_table, predict_to, rows_to
from seral.models.prediction import predict as predict_one
from seral.pool.derivations import note_derivation
from seral.pool.shards import open_pool
from seral.task.run import verb_of


def predict(options: PredictOptions) -> dict[str, Any]:
    """Predict and write a table: id or file, predicted class, probabilities, error. Returns the counts; without `out`
    also the rows, as `predictions`."""
    joined = verb_of(storage.absolute(options.run)) == "ensemble"
    return _predict_ensemble(options) if joined else predict_one(options)


def _predict_ensemble(options: PredictOptions) -> dict[str, Any]:
    """Predict with every member and join their probabilities, a row for each clip.

    A clip that one member cannot judge has its error. Raises OptionError for a table in several files.
    """
    run, out = storage.absolute(options.run), options.out and storage.absolute(options.out)
    members, classes, joined = read_joined(run)
    if out is not None and not out.endswith((TABLE, *TEXTS)):
        raise OptionError(f"out={options.out}: predictions of an ensemble go to one table, such as predictions.parquet")
    if (of_pool := pool_table(options)) is not None:
        note_derivation(options.source[0], of_pool, "predictions")
    with _parts_of(out) as parts:
        uris = [storage.join(parts, f"{number}{TABLE}") for number in range(len(members))]
        for member, uri in zip(members, uris, strict=True):
            predict_to(options.model_copy(update={"run": member}), uri, passing=True)
        tables = [storage.read_table(uri).sort_by("utterance_id") for uri in uris]
        schema = output_schema(classes, ())
        table = pa.Table.from_pylist(_rows(tables, members, classes, joined), schema)
        with nullcontext() if of_pool is None else open_pool(options.source[0]).publishing(lambda: [str(of_pool)]):
            if out is not None:
                with rows_to(out, schema) as write:
                    write(table)
    errors = table.num_rows - table["error"].null_count
    counts = {"model": run, "out": out, "rows": table.num_rows, "errors": errors}
    return counts | ({"predictions": table.to_pylist()} if out is None else {})


@contextmanager
def _parts_of(out: str | None) -> Iterator[str]:
    """A new folder for the members' tables, beside the result where there is one."""
    if out is None:
        with TemporaryDirectory(prefix="seral-ensemble-") as folder:
            yield folder
        return
    parts = f"{out}.members"
    storage.remove(parts)
    yield parts
    storage.remove(parts)


def _rows(
    tables: Sequence[pa.Table], members: Sequence[str], classes: Sequence[str], joined: Joined
) -> list[dict[str, Any]]:
    errors = [
        next(filter(None, members_errors), None)
        for members_errors in zip(*(t["error"].to_pylist() for t in tables), strict=True)
    ]
    fine_N = np.array([error is None for error in errors], np.bool_)
    share_RNC = np.stack(
        [np.stack([np.asarray(table[f"p_{name}"], np.float64)[fine_N] for name in classes], 1) for table in tables]
    )
    undone = [tempered(share, 1 / decision_of(m)["temperature"]) for share, m in zip(share_RNC, members, strict=True)]
    share_of = iter(joined(np.stack(undone)))
    rows = []
    for name, error in zip(tables[0]["utterance_id"].to_pylist(), errors, strict=True):
        row = {"utterance_id": name, "error": error}
        if error is None:
            share_C = next(share_of)
            row["predicted"] = classes[int(share_C.argmax())]
            row |= {f"p_{label}": float(share) for label, share in zip(classes, share_C, strict=True)}
        rows.append(row)
    return rows
