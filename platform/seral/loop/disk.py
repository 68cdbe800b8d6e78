"""Disk that a run of the loop takes, by what its rounds consist of.

The constants are those of files that runs wrote: 600 tables of predictions are met within a few per cent, whole runs
within a tenth.
"""

from __future__ import annotations

from collections.abc import Sequence

from seral.loop.folders import NO_OUTPUTS

FILE_BYTES, COLUMN_BYTES = 450, 220
"""A table of Parquet that holds no row yet, and each column of it."""
ROW_BYTES, OUTPUT_BYTES = 10, 5
"""A row of predictions: its id, and each number."""
LISTED_BYTES = 100
"""Line of a file in the record of a complete run."""
ROUND_BYTES = 8000
"""Everything of a round beside predictions, weights and answers: metrics, record, checksums, tables without a row."""
ANSWER_BYTES = 25
"""A clip that was asked about, among the picks and among the labels."""
RUN_BYTES = 20_000
"""Options, versions, what was left out."""


def predictions_bytes(rows: float, outputs: int, files: int = 1) -> float:
    """Bytes of rows of predictions, each of some numbers, in so many tables."""
    table = FILE_BYTES + COLUMN_BYTES * (NO_OUTPUTS + outputs) + LISTED_BYTES
    return files * table + rows * (ROW_BYTES + OUTPUT_BYTES * outputs)


def trajectory_bytes(
    answers: Sequence[float], *, weights: Sequence[int], judged: int, scored: int, shards: int, outputs: int
) -> float:
    """Bytes of a trajectory: answers after each round, the bytes of each round's model, clips of dev and test, clips
    that are scored in all rounds, and the shards that they lie in."""
    rounds = len(answers)
    tables = rounds * (ROUND_BYTES + predictions_bytes(judged, outputs, 2))
    if scored:
        tables += predictions_bytes(scored, outputs, rounds * shards)
    return tables + sum(weights) + ANSWER_BYTES * answers[-1]


def selection_bytes(clips: int, width: int) -> float:
    """Bytes of the embeddings in half precision that strategies read of some clips."""
    return clips * (2 * width + ROW_BYTES)
