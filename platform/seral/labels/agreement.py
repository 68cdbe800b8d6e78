"""Agreement among people, and the quality of each person's answers.

N rows (ratings) · G groups (utterances) · C classes · D features (parts of a rating: 1 for a number, C for a vote)
"""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow as pa

from seral.labels.consensus import Answers, adjudicated, current, dawid_skene, shares, winner

BOOTSTRAP = 1000


@dataclass(frozen=True, kw_only=True)
class Alpha:
    """Krippendorff's alpha: 1 = people agree, 0 = as by chance. None where it is not defined."""

    alpha: float | None
    low: float | None
    """Lower end of the 95 % bootstrap interval over utterances."""
    high: float | None
    utterances: int
    """Utterances with ratings of two people or more; others tell nothing."""


@dataclass(frozen=True, kw_only=True)
class PersonReport:
    """One person's work."""

    person: str
    answers: int
    """Not superseded, whatever they say."""
    skipped: int
    """Answers that pass: skipped, or not in a language they know."""
    unusable: int
    seconds: float | None
    """Median time for a clip."""
    agreement: float | None
    """Share of their votes for what most of the others voted for, where those agreed on one class."""
    compared: int
    """Utterances behind `agreement`."""
    check_accuracy: float | None
    """Share of their votes for the adjudicated class, over checks."""
    checks: int
    """Checks behind `check_accuracy`."""
    accuracy: float | None
    """Chance that they name the right class, by Dawid and Skene's model of everybody's answers."""
    confusion: list[list[float]] | None
    """By the same model: a row for what it is, a column for what they say."""


def agreement(answers: pa.Table, classes: Sequence[str], dimensions: Sequence[str] = ()) -> dict[str, Alpha]:
    """Alpha over all classes ("emotion"), for each class against the rest, and for each dimension.

    `answers` are schema.ANSWERS, without superseded ones; checks do not count. A vote shared by several emotions is
    as far from one for the first of them as its share says.
    """
    votes = current(row for row in answers.to_pylist() if row["purpose"] != "check")
    rated = [(name, shares(row, classes)) for name in sorted(votes) for row in votes[name]]
    named = [(name, share_C) for name, share_C in rated if share_C.any()]
    names = [name for name, _ in named]
    share_NC = np.array([share_C for _, share_C in named]).reshape(len(named), len(classes))
    alphas = {"emotion": krippendorff_alpha(names, share_NC)} if classes else {}
    for index, emotion in enumerate(classes):
        alphas[emotion] = krippendorff_alpha(names, share_NC[:, [index]])
    for key in dimensions:
        pairs = [(name, row[key]) for name in sorted(votes) for row in votes[name] if row[key] is not None]
        value_ND = np.array([value for _, value in pairs], float).reshape(-1, 1)
        alphas[key] = krippendorff_alpha([name for name, _ in pairs], value_ND)
    return alphas


def krippendorff_alpha(utterances: Sequence[str], value_ND: np.ndarray, *, seed: int = 0) -> Alpha:
    """Krippendorff's alpha of N ratings for the squared Euclidean distance of values.

    With one number a rating it is the alpha for interval data, with one-hot classes the one for nominal data.
    1 - observed / expected disagreement; sums over pairs are taken as sums of squares, so that fine scales cost
    nothing. Krippendorff 2011, Computing Krippendorff's alpha-reliability. The interval is a plain bootstrap over
    utterances. Differs from the paper: Krippendorff resamples deviations of pairs.
    """
    _, index_N, count_N = np.unique(np.asarray(utterances, str), return_inverse=True, return_counts=True)
    paired_N = count_N[index_N] > 1
    if not paired_N.any():
        return Alpha(alpha=None, low=None, high=None, utterances=0)
    value_ND = value_ND[paired_N] - value_ND[paired_N].mean(axis=0)
    _, index_N = np.unique(index_N[paired_N], return_inverse=True)
    count_G = np.bincount(index_N)
    square_G = np.bincount(index_N, (value_ND**2).sum(axis=1))
    sum_GD = np.zeros((len(count_G), value_ND.shape[1]))
    np.add.at(sum_GD, index_N, value_ND)
    observed_G = (count_G * square_G - (sum_GD**2).sum(axis=1)) / (count_G - 1)

    def alpha_of(chosen_G: np.ndarray) -> float:
        count, square, sum_D = (sums[chosen_G].sum(axis=0) for sums in (count_G, square_G, sum_GD))
        expected = (count * square - (sum_D**2).sum()) / (count - 1)
        return float(1 - observed_G[chosen_G].sum() / expected) if expected > 1e-9 else float("nan")

    alpha = alpha_of(np.arange(len(count_G)))
    if np.isnan(alpha):
        return Alpha(alpha=None, low=None, high=None, utterances=len(count_G))
    rng = np.random.default_rng(seed)
    samples = [alpha_of(rng.integers(len(count_G), size=len(count_G))) for _ in range(BOOTSTRAP)]
    low, high = np.nanquantile(samples, (0.025, 0.975))
    return Alpha(alpha=alpha, low=float(low), high=float(high), utterances=len(count_G))


def person_reports(answers: pa.Table, classes: Sequence[str]) -> list[PersonReport]:
    """A report for each person who answered anything, by name; `answers` as for `agreement`, checks included."""
    rows = answers.to_pylist()
    votes, final = current(rows), adjudicated(rows)
    model = dawid_skene(votes, final, classes)
    alike = defaultdict(list)
    for row, share in with_others(votes, classes):
        alike[row["person"]].append(share)
    right = _on_checks(current(row for row in rows if row["purpose"] == "check"), final, classes)
    rows_of = defaultdict(list)
    for row in rows:
        if not row["final"]:
            rows_of[row["person"]].append(row)
    return [
        PersonReport(
            person=person,
            **_counts(rows_of[person]),
            agreement=_mean(alike[person]),
            compared=len(alike[person]),
            check_accuracy=_mean(right[person]),
            checks=len(right[person]),
            accuracy=model.accuracy(person),
            confusion=model.confusion[person].tolist() if person in model.confusion else None,
        )
        for person in sorted(rows_of)
    ]


def _counts(rows: Sequence[dict[str, Any]]) -> dict[str, Any]:
    kinds = Counter(row["kind"] for row in rows)
    seconds = [row["seconds"] for row in rows if row["seconds"] is not None]
    return {
        "answers": len(rows),
        "skipped": kinds["skipped"] + kinds["other-language"],
        "unusable": kinds["unusable"],
        "seconds": float(np.median(seconds)) if seconds else None,
    }


def with_others(votes: Answers, classes: Sequence[str]) -> Iterator[tuple[dict[str, Any], float]]:
    """Each answer, and its share for what most of the others said, where that is one class; by utterance."""
    for name in sorted(votes):
        share_NC = np.array([shares(row, classes) for row in votes[name]])
        for row, share_C in zip(votes[name], share_NC, strict=True):
            most = winner(share_NC.sum(axis=0) - share_C)
            if most is not None and share_C.any():
                yield row, float(share_C[most])


def _on_checks(checks: Answers, final: Mapping[str, dict[str, Any]], classes: Sequence[str]) -> dict[str, list[float]]:
    """Person -> their share for the adjudicated class, for each check; all or nothing for what is unusable."""
    shares_of = defaultdict(list)
    for name in sorted(set(checks) & set(final)):
        truth = winner(shares(final[name], classes))
        for row in checks[name]:
            if "unusable" in {row["kind"], final[name]["kind"]}:
                shares_of[row["person"]].append(float(row["kind"] == final[name]["kind"]))
            elif truth is not None:
                shares_of[row["person"]].append(float(shares(row, classes)[truth]))
    return shares_of


def _mean(values: Sequence[float]) -> float | None:
    return float(np.mean(values)) if values else None
