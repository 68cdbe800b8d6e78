"""Uncertainty of a figure: intervals and tests over what was drawn at random, speakers or folds.

All intervals are 95 % ones of Student's t over these units. A mean of one value a unit has it directly; a metric of the
pooled clips of several speakers, such as UAR, is computed without each speaker in turn (the jackknife). Simulated with
3 to 24 units, these hold the truth in 94 to 96 % of the cases; percentiles of a bootstrap do in 73 to 94
(jobs.bench.intervals).
"""

# N clips · G groups (speakers, folds) · R repeats (seeds, patterns of signs)
from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray
from scipy.special import stdtr, stdtrit

Statistic = Callable[[NDArray[Any], NDArray[Any]], Any]
"""(truth, predicted), a row a clip in both -> a number, or an array of them."""
LEVEL = 0.95
EXACT_FOLDS = 16
"""Up to so many folds all sign patterns are tried, 65,536 at most."""


class Interval(NamedTuple):
    """A 95 % interval of a number, or of each number of an array, and the p-value of its being zero (two-sided)."""

    low: Any
    high: Any
    p: Any


class PairedDifference(NamedTuple):
    """A metric of one system minus the same of another, on the same clips."""

    difference: float
    low: float
    high: float
    """95 % interval of the difference; NaN where there is one unit."""
    p: float
    """Two-sided: below 0.05 where zero lies outside the interval."""
    units: int
    """Speakers, or whatever else was left out in turn."""


def mean_interval(value_G: NDArray[np.floating]) -> Interval:
    """Interval of the mean of one value a unit; NaN for fewer than two of them."""
    count = len(value_G)
    if count < 2:
        return Interval(float("nan"), float("nan"), float("nan"))
    error = value_G.std(ddof=1) / np.sqrt(count)
    return Interval(*(float(x) for x in _interval(value_G.mean(), error, count)))


def without_each(
    statistic: Statistic, truth_N: NDArray[Any], predicted_N: NDArray[Any], unit_N: NDArray[np.generic]
) -> NDArray[np.float64]:
    """A statistic of all clips but those of one unit, for each of them in sorted order, (G, ...); NaN for a single
    unit."""
    _check_rows(truth_N, predicted_N, unit_N)
    units = np.unique(unit_N)
    if len(units) == 1:
        return np.full((1, *np.shape(statistic(truth_N, predicted_N))), np.nan)
    return np.array([statistic(truth_N[unit_N != unit], predicted_N[unit_N != unit]) for unit in units])


def jackknife_interval(value: Any, without_G: NDArray[np.floating]) -> Interval:
    """Interval of a statistic, or of several at once (...), from its values without each unit, (G, ...).

    Its variance is that of Tukey 1958, `(G-1)/G Σ (without_g - mean)²`, with G - 1 degrees of freedom. NaN for fewer
    than two units.
    """
    count = len(without_G)
    if count < 2:
        return Interval(*(np.full(np.shape(value), np.nan) for _ in range(3)))
    error = np.sqrt((count - 1) / count * ((without_G - without_G.mean(0)) ** 2).sum(0))
    return Interval(*_interval(value, error, count))


def with_interval(
    statistic: Statistic, truth_N: NDArray[Any], predicted_N: NDArray[Any], unit_N: NDArray[np.generic], fewest: int = 2
) -> tuple[Any, Interval]:
    """A statistic of some clips, and its interval over units (speakers); NaN for fewer than `fewest` of these."""
    value = statistic(truth_N, predicted_N)
    if len(np.unique(unit_N)) < fewest:
        return value, Interval(*(np.full(np.shape(value), np.nan) for _ in range(3)))
    return value, jackknife_interval(value, without_each(statistic, truth_N, predicted_N, unit_N))


def paired_difference(
    metric: Statistic,
    truth_N: NDArray[Any],
    a_N: NDArray[Any],
    b_N: NDArray[Any],
    unit_N: NDArray[np.generic],
) -> PairedDifference:
    """`metric(a) - metric(b)` with its interval and p-value, leaving out one unit (speaker) after another."""
    difference = float(metric(truth_N, a_N) - metric(truth_N, b_N))
    a_G, b_G = (without_each(metric, truth_N, predicted_N, unit_N) for predicted_N in (a_N, b_N))
    low, high, p = (float(x) for x in jackknife_interval(difference, a_G - b_G))
    return PairedDifference(difference=difference, low=low, high=high, p=p, units=len(a_G))


def sign_flip_p(difference_FR: NDArray[np.floating], rng: np.random.Generator | None = None, n: int = 65_536) -> float:
    """Two-sided p-value of the differences between two systems over folds, (F,), or folds and seeds, (F, R).

    Were both equally good, each fold's difference might as well have the other sign: p is the share of sign patterns
    with a mean at least as far from zero. All 2^F patterns up to 16 folds, `n` drawn from `rng` beyond. Fisher 1935,
    The Design of Experiments, section 21. Seeds of one fold share its speakers: they are averaged, and the fold flips
    as one, so that five folds never give less than 2 / 32, however many seeds. Folds still share training clips, which
    makes p somewhat too small (Nadeau and Bengio 2003, Machine Learning 52).
    """
    if difference_FR.ndim not in (1, 2) or not difference_FR.size or not np.isfinite(difference_FR).all():
        raise ValueError(f"expected finite differences (F,) or (F, R), got shape {difference_FR.shape}")
    difference_F = difference_FR.reshape(len(difference_FR), -1).mean(1, dtype=np.float64)
    # Rounding must not make the pattern that was observed, or its mirror image, fall short of itself.
    bar = np.abs(difference_F.sum()) - 1e-12 * np.abs(difference_F).sum()
    if len(difference_F) <= EXACT_FOLDS:
        bit_RF = np.arange(2 ** len(difference_F))[:, None] >> np.arange(len(difference_F)) & 1
        return float((np.abs((1 - 2 * bit_RF) @ difference_F) >= bar).mean())
    if rng is None:
        raise ValueError(f"{len(difference_F)} folds have too many sign patterns to try: pass a numpy Generator")
    sign_RF = rng.choice([-1.0, 1.0], (n, len(difference_F)))
    return float((1 + (np.abs(sign_RF @ difference_F) >= bar).sum()) / (1 + n))


def _interval(value: Any, error: Any, count: int) -> tuple[Any, Any, Any]:
    """Ends of the interval around a value with a standard error over so many units, and p."""
    half = stdtrit(count - 1, (1 + LEVEL) / 2) * error
    with np.errstate(divide="ignore", invalid="ignore"):
        distance = np.where(value == 0, 0.0, np.abs(value) / error)
    return value - half, value + half, 2 * stdtr(count - 1, -distance)


def _check_rows(truth_N: NDArray[Any], predicted_N: NDArray[Any], unit_N: NDArray[np.generic]) -> None:
    """Whether there are as many of each; the content of a row is the metric's business."""
    if len(truth_N) != len(predicted_N) or len(truth_N) == 0:
        raise ValueError(f"expected as many predictions as truths, got {len(truth_N)} and {len(predicted_N)}")
    if len(unit_N) != len(truth_N):
        raise ValueError(f"every clip needs a speaker: {len(truth_N)} clips, {len(unit_N)} names")
