"""A round's files, written aside and put in place whole."""

# N rows · C classes
from __future__ import annotations

import io
from collections.abc import Sequence
from datetime import UTC, datetime
from typing import Any

import numpy as np
import pyarrow as pa

from seral import storage
from seral.loop.asking import Answers
from seral.loop.learning import PoolScores
from seral.loop.rounds import SELECTION, Arm, Float, LoopFold, Round, Trajectory
from seral.loop.stopping import RoundSummary
from seral.schema import PICK, prediction_schema
from seral.selection.budget import PaceOptions
from seral.task.examples import Utterances


def write_tables(this: Round, answers: Answers, scores: dict[str, tuple[Utterances, Float]]) -> None:
    """Write what was asked, what was answered, and the probabilities of each part: pool, dev and test."""
    storage.write_table(storage.join(this.path, "picks.parquet"), _picks(this, answers.picks))
    storage.write_table(storage.join(this.path, "labels.parquet"), answers.changed)
    predictions = [_predictions(part, *columns, this.classes) for part, columns in scores.items()]
    storage.write_table(storage.join(this.path, "predictions.parquet"), pa.concat_tables(predictions))


def write_selection(this: Round, answers: Answers, pool: PoolScores) -> None:
    """Write the columns that the next round selects by."""
    buffer, labelled_ids = io.BytesIO(), np.array([*answers.labelled_ids, *answers.rejected_ids])
    np.savez(buffer, allow_pickle=False, ids=np.array(pool.clips.ids), labelled_ids=labelled_ids, **pool.columns)
    storage.write_bytes(storage.join(this.path, SELECTION), buffer.getvalue())


def write_record(this: Round, answers: Answers, summary: RoundSummary) -> None:
    """Write the record that makes the round complete."""
    record = {
        "round": this.number,
        "labelled": summary.labelled,
        "minutes": round(this.fold.minutes(answers.asked_ids, this.arm.pace or PaceOptions()), 2),
        "dev_uar": summary.dev_uar,
        "uncertainty": summary.uncertainty,
        "kappa": summary.kappa,
        "seconds": {name: round(value, 4) for name, value in this.times.seconds.items()},
        "finished": datetime.now(UTC).isoformat(timespec="seconds"),
        "stop_reason": summary.stop_reason,
    }
    storage.write_json(storage.join(this.path, "round.json"), record)


def describe_trajectory(trajectory: Trajectory, arm: Arm, fold: LoopFold) -> dict[str, Any]:
    """The content of trajectory.json."""
    parts = fold.data.fold
    return {
        "arm": trajectory.arm,
        "fold": trajectory.fold,
        "seed": trajectory.seed,
        "fold_name": parts.name,
        "schedule": list(arm.schedule),
        "counts": "answers" if arm.pace is None else "minutes",
        "n_train": len(parts.train),
        "n_dev": len(parts.dev),
        "n_test": len(parts.test),
        "test_speakers": sorted(set(fold.rows(parts.test)["speaker"].to_pylist())),
    }


def _picks(this: Round, picks: Sequence[str]) -> pa.Table:
    name = this.strategy.named(model=this.number > 0)
    rows = [{"utterance_id": p, "order": i, "strategy": name, "round": this.number} for i, p in enumerate(picks)]
    return pa.Table.from_pylist(rows, PICK)


def _predictions(part: str, clips: Utterances, probability_NC: Float, classes: Sequence[str]) -> pa.Table:
    columns: dict[str, Any] = {
        "utterance_id": clips.ids,
        "part": [part] * len(clips.ids),
        "predicted": [classes[index] for index in probability_NC.argmax(1)],
    }
    columns |= {f"p_{name}": probability_NC[:, index] for index, name in enumerate(classes)}
    return pa.table(columns, schema=prediction_schema(list(classes)))
