"""Doubtful labels: a model, a copy of the clip, or the people among themselves speak against them.

    label-error      a model that has not seen the label believes in another: confident learning
    near-duplicate   half of the clip's copies or more are said to be something else
    disagreement     no class has more than half of the votes

What was adjudicated is not doubted.
"""

# M labelled utterances · C classes
from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from seral.labels.confident import confident_class
from seral.labels.consensus import consensus
from seral.schema import DOUBTS

Probabilities = Mapping[str, NDArray[np.floating]]
"""Utterance -> (C,) probabilities by a model that has not seen its label."""


def find_doubts(
    answers: pa.Table, classes: Sequence[str], *, probability: Probabilities, leader_of: Mapping[str, str]
) -> pa.Table:
    """Reasons to doubt labels, schema.DOUBTS, the strongest first.

    `answers` are schema.ANSWERS, without superseded ones. `probability` is of those utterances for which there is a
    model; `leader_of` names the group of each utterance that has copies.
    """
    labels = consensus(answers, classes)
    labels = labels.filter(pc.and_(pc.invert(labels["final"]), pc.invert(labels["unusable"])))
    named = labels.filter(pc.is_valid(labels["emotion"]))
    label_of = dict(zip(named["utterance_id"].to_pylist(), named["emotion"].to_pylist(), strict=True))
    doubts = [
        *label_errors(label_of, probability, classes),
        *conflicting_copies(label_of, leader_of),
        *disagreements(labels),
    ]
    doubts.sort(key=lambda row: (-row["score"], row["utterance_id"], row["reason"]))
    return pa.Table.from_pylist(doubts, DOUBTS)


def label_errors(
    label_of: Mapping[str, str], probability: Probabilities, classes: Sequence[str]
) -> Iterator[dict[str, Any]]:
    """Labels that are not the confident class (seral.labels.confident); the score is 1 - the label's probability."""
    ids = sorted(label_of.keys() & probability.keys())
    if not ids:
        return
    p_MC = np.stack([np.asarray(probability[name], np.float64) for name in ids])
    label_M = np.array([classes.index(label_of[name]) for name in ids])
    for row in np.flatnonzero((class_M := confident_class(p_MC, label_M)) != label_M):
        name, suggested = ids[row], classes[class_M[row]]
        yield _doubt(name, "label-error", 1 - p_MC[row, label_M[row]], label_of[name], suggested=suggested)


def conflicting_copies(label_of: Mapping[str, str], leader_of: Mapping[str, str]) -> Iterator[dict[str, Any]]:
    """Labels that half of the labelled copies of the same audio or more do not have; the score is their share."""
    groups = defaultdict(list)
    for name in sorted(label_of):
        groups[leader_of.get(name, name)].append(name)
    for members in groups.values():
        for name in members:
            others = [other for other in members if label_of[other] != label_of[name]]
            if others and 2 * len(others) >= len(members) - 1:
                suggested = Counter(label_of[other] for other in others).most_common(1)[0][0]
                score = len(others) / (len(members) - 1)
                yield _doubt(name, "near-duplicate", score, label_of[name], suggested=suggested, other_id=others[0])


def disagreements(labels: pa.Table) -> Iterator[dict[str, Any]]:
    """Utterances of schema.CONSENSUS on which several people agree by half or less; the score is the rest."""
    for row in labels.to_pylist():
        if row["n_answers"] > 1 and row["agreement"] is not None and row["agreement"] <= 0.5:
            yield _doubt(row["utterance_id"], "disagreement", 1 - row["agreement"], row["emotion"])


def _doubt(
    name: str,
    reason: str,
    score: float,
    label: str | None,
    *,
    suggested: str | None = None,
    other_id: str | None = None,
) -> dict[str, Any]:
    about = {"utterance_id": name, "reason": reason, "score": float(score)}
    return about | {"label": label, "suggested": suggested, "other_id": other_id}
