"""A round's files, written aside and put in place whole."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import UTC, datetime
from itertools import compress
from typing import Any

import pyarrow as pa

from seral import storage
from seral.loop.asking import Answers
from seral.loop.folders import PREDICTIONS, RATINGS, REASONS
from seral.loop.pool_scores import prediction_table
from seral.loop.rounds import Arm, LoopFold, Round, Trajectory, voices
from seral.loop.stopping import RoundSummary
from seral.schema import PICK, REASON
from seral.selection.options import PaceOptions
from seral.task.examples import Targets, Utterances
from seral.training.scoring import Outputs


def write_tables(
    this: Round, answers: Answers, scores: Mapping[str, tuple[Utterances, Outputs]], test_target: Targets
) -> None:
    """Write what was asked, what was answered, and the outputs for dev and test; of test clips their ratings too."""
    classes, dimensions = this.classes, this.data.dimensions
    storage.write_table(storage.join(this.path, "picks.parquet"), _picks(this, answers))
    if reasons := _reasons(answers):
        storage.write_table(storage.join(this.path, REASONS), pa.Table.from_pylist(reasons, REASON))
    storage.write_table(storage.join(this.path, "labels.parquet"), answers.changed)
    for part, (clips, outputs) in scores.items():
        table = prediction_table(part, clips.ids, outputs, classes, dimensions)
        storage.write_table(storage.join(this.path, PREDICTIONS, f"{part}.parquet"), table)
    if dimensions:
        storage.write_table(storage.join(this.path, RATINGS), _ratings(this, *scores["test"], test_target))


def _ratings(this: Round, clips: Utterances, outputs: Outputs, target: Targets) -> pa.Table:
    """Speakers and true and predicted ratings of the rated test clips."""
    rated_N = target.rated_N
    columns: dict[str, Any] = {"utterance_id": list(compress(clips.ids, rated_N.tolist()))}
    columns["speaker"] = voices(this.fold, columns["utterance_id"])
    for k, name in enumerate(this.data.dimensions):
        columns |= {f"true_{name}": target.value_NK[rated_N, k], f"predicted_{name}": outputs.value_NK[rated_N, k]}
    return pa.table(columns)


def write_record(this: Round, answers: Answers, summary: RoundSummary) -> None:
    """Write the record that makes the round complete."""
    record = {
        "round": this.number,
        "labelled": summary.labelled,
        "minutes": round(this.fold.minutes(answers.asked_ids, this.arm.pace or PaceOptions()), 2),
        **({"dev_uar": summary.dev_uar} if this.classes else {"dev_ccc": summary.dev_ccc}),
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


def _picks(this: Round, answers: Answers) -> pa.Table:
    name = answers.strategy or this.strategy.name
    rows = [
        {"utterance_id": p, "order": i, "strategy": name, "round": this.number} for i, p in enumerate(answers.picks)
    ]
    return pa.Table.from_pylist(rows, PICK)


def _reasons(answers: Answers) -> list[dict[str, Any]]:
    """Rows of schema.REASON, of the picks that were answered about."""
    picks = set(answers.picks)
    return [reason._asdict() for reason in answers.reasons if reason.utterance_id in picks]
