"""Clips about which people differ, for a lead to decide.

Emotions are disputed when two people do not say the same, ratings when the highest and the lowest of a dimension are
further apart than a share of the scale. What a lead has said of a clip is disputed no more; what they left open is.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import pyarrow as pa

from seral.labels.consensus import adjudicated, consensus, current, settles_emotion
from seral.labels.records import Project

EMOTION = "emotion"


def find_disputes(answers: pa.Table, project: Project, spread: float) -> list[dict[str, Any]]:
    """The disputed clips of schema.ANSWERS, without superseded ones, those with the least agreement first.

    Each has its `utterance_id`, what it is disputed `about` (emotion, dimensions), the least `agreement` about any of
    these, what is said `so_far` and its `answers`, one a person. Agreement is the share of votes for the winner, or 1
    less the share of the scale by which ratings differ. So far are the emotions that a lead or all people said, and of
    each dimension the rating of a lead or the mean. Ratings are disputed when they differ by more than `spread`, a
    share of the scale.
    """
    rows = answers.to_pylist()
    final = adjudicated(rows)
    labels = consensus(answers, project.classes, dimensions=project.dimensions).to_pylist()
    label = {row["utterance_id"]: row for row in labels}
    clips = []
    for name, answered in current(row for row in rows if row["purpose"] != "check").items():
        decided = final.get(name)
        agreements = _agreements(answered, decided, label[name]["agreement"], project, spread)
        if agreements:
            emotions = decided["emotions"] if decided and settles_emotion(decided) else answered[0]["emotions"]
            so_far = {dimension: label[name][dimension] for dimension in project.dimensions}
            so_far["emotions"] = [] if EMOTION in agreements else emotions
            dispute = {"about": list(agreements), "agreement": min(agreements.values()), "so_far": so_far}
            clips.append({"utterance_id": name, **dispute, "answers": answered})
    return sorted(clips, key=lambda clip: (clip["agreement"], clip["utterance_id"]))


def _agreements(
    answered: Sequence[dict[str, Any]],
    decided: dict[str, Any] | None,
    share: float | None,
    project: Project,
    spread: float,
) -> dict[str, float]:
    """Emotion or dimension that is disputed -> agreement about it."""
    if decided is not None and decided["kind"] == "unusable":
        return {}
    agreements = {}
    if _differ(answered) and not (decided is not None and settles_emotion(decided)):
        agreements[EMOTION] = share or 0.0
    for dimension in project.dimensions:
        apart = spread_of(answered, dimension, project.scale)
        if apart > spread and (decided is None or decided[dimension] is None):
            agreements[dimension] = 1 - apart
    return agreements


def spread_of(answered: Sequence[dict[str, Any]], dimension: str, scale: tuple[float, float]) -> float:
    """The highest rating of a dimension less the lowest, as a share of the scale; 0 for fewer than two."""
    rated = [row[dimension] for row in answered if row[dimension] is not None]
    low, high = scale
    return float((max(rated) - min(rated)) / (high - low)) if rated else 0.0


def _differ(answered: Sequence[dict[str, Any]]) -> bool:
    return len({(answer["kind"], *answer["emotions"]) for answer in answered}) > 1
