"""How labelling goes: people who change with time, and classes that they take for one another."""

# C classes
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
    """Whether somebody agrees with the others less, or more, as time goes by."""

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
    """Those among all pairs of answers in which nothing but these two classes is said; 0.5 = as by chance."""


def drifts(answers: pa.Table, classes: Sequence[str]) -> list[Drift]:
    """The trend of every person's agreement with the others over their answers, by name.

    `answers` are schema.ANSWERS, without superseded ones. An answer's agreement is its share for what most of the
    others said. The test for a trend is that of Mann 1945 (doi:10.2307/1907187) with ties as in Kendall's tau-b.
    """
    told = defaultdict(list)
    for row, share in with_others(current(answers.to_pylist()), classes):
        told[row["person"]].append((row["answered_at"], row["id"], share))
    return [_drift(person, np.array([share for *_, share in sorted(told[person])])) for person in sorted(told)]


def _drift(person: str, share_N: NDArray[np.float64]) -> Drift:
    half, count = len(share_N) // 2, len(share_N)
    early, late = (float(part.mean()) if len(part) else None for part in (share_N[:half], share_N[half:]))
    trend, p = None, None
    if count > 1 and share_N.min() < share_N.max():
        found = kendalltau(np.arange(count), share_N)
        trend, p = float(found.statistic), float(found.pvalue)
    return Drift(person=person, compared=count, early=early, late=late, trend=trend, p=p)


def said_together(answers: pa.Table, classes: Sequence[str]) -> NDArray[np.float64]:
    """How often one person said the class of the row and another that of the column of the same clip, (C, C).

    Every ordered pair of people about a clip counts 1, shared among their emotions. Checks count too.
    """
    together_CC = np.zeros((len(classes), len(classes)))
    for said in current(answers.to_pylist()).values():
        share_AC = np.array([shares(row, classes) for row in said])
        sum_C = share_AC.sum(axis=0)
        together_CC += np.outer(sum_C, sum_C) - share_AC.T @ share_AC
    return together_CC


def confused_pairs(together_CC: NDArray[np.float64], classes: Sequence[str]) -> list[ConfusedPair]:
    """All pairs of classes that people said of the same clip, those that are hardest to tell apart first."""
    found = []
    for one, other in combinations(range(len(classes)), 2):
        mixed = together_CC[one, other] + together_CC[other, one]
        alike = together_CC[one, one] + together_CC[other, other]
        if mixed > 0:
            pairs, share = round(float(mixed) / 2), float(mixed / (mixed + alike))
            found.append(ConfusedPair(one=classes[one], other=classes[other], pairs=pairs, share=share))
    return sorted(found, key=lambda pair: (-pair.share, -pair.pairs, pair.one, pair.other))
