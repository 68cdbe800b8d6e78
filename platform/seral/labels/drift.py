"""Drift and confusion: people who change with time, and classes that they take for one another."""

# N rows (answers) · C classes
from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import combinations

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray
from scipy.stats import kendalltau

from seral.labels.agreement import with_others
from seral.labels.consensus import current, shares


@dataclass(frozen=True, kw_only=True)
class Drift:
    """The trend of one person's agreement with the others."""

    person: str
    compared: int
    """Answers that could be compared, checks among them."""
    early: float | None
    """Agreement in the first half of them."""
    late: float | None
    """Agreement in the second half."""
    trend: float | None
    """Kendall's rank correlation of agreement and time, -1..1: below 0, it falls."""
    p: float | None
    """Chance of a trend at least as strong where there is none."""


@dataclass(frozen=True, kw_only=True)
class ConfusedPair:
    """Two classes, and how often people hear the other one."""

    one: str
    other: str
    pairs: int
    """Pairs of answers about one clip of which one says this and one that."""
    share: float
    """Share of `pairs` among all pairs of answers that name nothing but these two classes; 0.5 = as by chance."""


def drifts(answers: pa.Table, classes: Sequence[str]) -> list[Drift]:
    """The trend of every person's agreement with the others over their answers, by name.

    `answers` are schema.ANSWERS, without superseded ones. An answer's agreement is its share for what most of the
    others said. The test for a trend is that of Mann 1945 (doi:10.2307/1907187) with ties as in Kendall's tau-b.
    """
    shares_of = defaultdict(list)
    for row, share in with_others(current(answers.to_pylist()), classes):
        shares_of[row["person"]].append((row["answered_at"], row["id"], share))
    return [
        _drift(person, np.array([share for *_, share in sorted(shares_of[person])])) for person in sorted(shares_of)
    ]


def _drift(person: str, share_N: NDArray[np.float64]) -> Drift:
    half, count = len(share_N) // 2, len(share_N)
    early, late = (float(part.mean()) if len(part) else None for part in (share_N[:half], share_N[half:]))
    trend, p = None, None
    if count > 1 and share_N.min() < share_N.max():
        test = kendalltau(np.arange(count), share_N)
        trend, p = float(test.statistic), float(test.pvalue)
    return Drift(person=person, compared=count, early=early, late=late, trend=trend, p=p)


def coincidence_matrix(answers: pa.Table, classes: Sequence[str]) -> NDArray[np.float64]:
    """Coincidence matrix (C, C): clips for which one person said the class of the row, another that of the column.

    Every ordered pair of people about a clip counts 1, shared among their emotions. Checks count too.
    """
    together_CC = np.zeros((len(classes), len(classes)))
    for answered in current(answers.to_pylist()).values():
        share_NC = np.array([shares(row, classes) for row in answered])
        sum_C = share_NC.sum(axis=0)
        together_CC += np.outer(sum_C, sum_C) - share_NC.T @ share_NC
    return together_CC


def confused_pairs(together_CC: NDArray[np.float64], classes: Sequence[str]) -> list[ConfusedPair]:
    """All pairs of classes that people said of the same clip, those that are hardest to tell apart first."""
    confused = []
    for one, other in combinations(range(len(classes)), 2):
        mixed = together_CC[one, other] + together_CC[other, one]
        alike = together_CC[one, one] + together_CC[other, other]
        if mixed > 0:
            pairs, share = round(float(mixed) / 2), float(mixed / (mixed + alike))
            confused.append(ConfusedPair(one=classes[one], other=classes[other], pairs=pairs, share=share))
    return sorted(confused, key=lambda pair: (-pair.share, -pair.pairs, pair.one, pair.other))
