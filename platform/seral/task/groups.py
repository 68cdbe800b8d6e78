"""Clips that models were judged by, a group after another: of a speaker, a class, a fold, a corpus, a language.

The score of a group is the mean over seeds of the metric of its clips, of one model's answers each. Its interval leaves
out one unit (a speaker, or a clip) at a time, with the answers of all seeds: a seed is no further speaker.
"""

# N rows (a clip as often as it was tested, by seeds) · G groups (units) · R repeats (seeds) · C classes
# K rated dimensions
from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from ser_models.intervals import jackknife_interval
from ser_models.metrics import ccc_of_sums, sums_of_pairs

Score = tuple[float, float, float]
"""A value and the ends of its 95 % interval, NaN where there are fewer than two units."""
GROUPINGS = {"speaker": "speaker", "fold": "fold", "corpus": "corpus", "language": "language", "sex": "gender"}
"""Heading of a table of groups -> the column of judged clips."""


def grouped(clips: pd.DataFrame, column: str) -> Iterator[tuple[Any, NDArray[np.bool_], int]]:
    """Values of a column in order, the rows of each, (N,), and how many speakers these are of. `clips` has a column
    `speaker`; a missing value is no group."""
    code_N, values = pd.factorize(clips[column], sort=True)
    for code, value in enumerate(values):
        own_N = code_N == code
        yield value, own_N, int(clips["speaker"][own_N].nunique())


def mean_of_seeds(
    metric: Callable[[NDArray[Any], NDArray[Any]], float],
    truth_N: NDArray[Any],
    predicted: NDArray[Any],
    seed_N: NDArray[Any],
    unit_N: NDArray[np.integer],
) -> Score:
    """Any metric `(truth, predicted) -> value` of the rows of a group, with its interval over units.

    `predicted` has a row a row of the group; `unit_N` numbers the units from 0, -1 = in none, and never left out.
    """

    def of(rows_N: NDArray[np.bool_]) -> float:
        parts = [rows_N & (seed_N == seed) for seed in np.unique(seed_N[rows_N])]
        return float(np.mean([metric(truth_N[part], predicted[part]) for part in parts]))

    left = (unit_N != unit for unit in range(int(unit_N.max()) + 1))
    without_G = np.array([of(rows_N) for rows_N in left if rows_N.any()])
    return _score(of(np.ones(len(seed_N), np.bool_)), without_G)


def recalls(
    truth_N: NDArray[np.integer], predicted_N: NDArray[np.integer], seed_N: NDArray[Any], unit_N: NDArray[np.integer]
) -> dict[str, Score]:
    """UAR and WA of the rows of a group as `uar` and `wa`, as `mean_of_seeds` has them, by counts: fast for many units.

    Classes are numbers from 0.
    """
    _, own_seed_N = np.unique(seed_N, return_inverse=True)
    named_N, classes = unit_N >= 0, int(max(truth_N.max(), predicted_N.max())) + 1
    whole_RCC = np.zeros((int(own_seed_N.max()) + 1, classes, classes))
    np.add.at(whole_RCC, (own_seed_N, truth_N, predicted_N), 1)
    part_GRCC = np.zeros((int(unit_N.max()) + 1, *whole_RCC.shape))
    np.add.at(part_GRCC, (unit_N[named_N], own_seed_N[named_N], truth_N[named_N], predicted_N[named_N]), 1)
    scores = {}
    for name, metric in (("uar", _uar), ("wa", _wa)):
        value_GR = metric(whole_RCC - part_GRCC)
        some_G = np.isfinite(value_GR).any(1)  # a unit without whom nothing is left is none
        without_G = np.nanmean(value_GR[some_G], axis=1) if some_G.any() else np.empty(0)
        scores[name] = _score(float(np.nanmean(metric(whole_RCC))), without_G)
    return scores


def _score(value: float, without_G: NDArray[np.float64]) -> Score:
    low, high, _ = jackknife_interval(value, without_G)
    return value, float(low), float(high)


def _uar(confusion: NDArray[np.float64]) -> NDArray[np.float64]:
    """Mean recall of the classes that there are, of matrices (..., C, C); NaN without a clip."""
    total = confusion.sum(-1)
    recall = np.divide(confusion.diagonal(axis1=-2, axis2=-1), total, out=np.zeros_like(total), where=total > 0)
    return _divided(recall.sum(-1), (total > 0).sum(-1))


def _wa(confusion: NDArray[np.float64]) -> NDArray[np.float64]:
    """Share of right answers, of matrices (..., C, C); NaN without a clip."""
    return _divided(confusion.trace(axis1=-2, axis2=-1), confusion.sum((-2, -1)))


def _divided(numerator: NDArray[Any], denominator: NDArray[Any]) -> NDArray[np.float64]:
    nothing = np.full(np.shape(numerator), np.nan)
    np.divide(numerator, denominator, out=nothing, where=np.asarray(denominator) > 0)
    return nothing


def mean_ccc(ratings: pd.DataFrame, dimensions: Sequence[str]) -> Score:
    """CCC of the rows of a group, the mean over dimensions and trajectories, with its interval over speakers."""
    value_K, without_GK = ccc_without_speakers(ratings, dimensions)
    return _score(float(value_K.mean()), without_GK.mean(1))


def ccc_without_speakers(
    ratings: pd.DataFrame, dimensions: Sequence[str]
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """CCC of each dimension, (K,), and without each speaker, (G, K): means over trajectories, each with its own.

    `ratings` has a row a rated clip of a trajectory: fold, seed, speaker, true_* and predicted_* of each dimension.
    """
    speakers = sorted(ratings["speaker"].unique())
    whole, without = list[NDArray[np.float64]](), list[NDArray[np.float64]]()
    for _, own in ratings.groupby(["fold", "seed"], sort=True):
        sums = {name: _sums(rows, dimensions) for name, rows in own.groupby("speaker")}
        total_6K = np.sum(list(sums.values()), axis=0)
        whole.append(ccc_of_sums(total_6K))
        alone = np.full(len(dimensions), np.nan)
        left = (total_6K - sums[name] if name in sums else total_6K for name in speakers)
        without.append(np.array([ccc_of_sums(part_6K) if part_6K[0, 0] > 0 else alone for part_6K in left]))
    left_out_GK = np.nanmean(without, axis=0) if len(speakers) > 1 else np.empty((0, len(dimensions)))
    return np.mean(whole, axis=0), left_out_GK


def _sums(rows: pd.DataFrame, dimensions: Sequence[str]) -> NDArray[np.float64]:
    return sums_of_pairs(
        *(rows[[f"{kind}_{name}" for name in dimensions]].to_numpy() for kind in ("true", "predicted"))
    )
