"""What is reported: recall-based metrics, CCC, and how sure we are of them, on plain numpy arrays."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray

# N clips · C classes

Labels = NDArray[np.int64]
Metric = Callable[[Labels, Labels], float]
"""(truth_N, predicted_N) -> value, larger is better."""


def confusion_matrix(truth_N: Labels, predicted_N: Labels, num_classes: int | None = None) -> NDArray[np.int64]:
    """Counts of (truth, predicted) pairs, rows = truth, (C, C). Without `num_classes`, C is the largest label + 1."""
    _check(truth_N, predicted_N)
    largest = int(max(truth_N.max(), predicted_N.max()))
    size = largest + 1 if num_classes is None else num_classes
    if largest >= size or min(truth_N.min(), predicted_N.min()) < 0:
        lowest = int(min(truth_N.min(), predicted_N.min()))
        raise ValueError(f"labels must lie in 0..{size - 1}, got {lowest}..{largest}")
    flat = np.bincount(truth_N.astype(np.int64) * size + predicted_N, minlength=size * size)
    return flat.reshape(size, size)


def per_class_recall(truth_N: Labels, predicted_N: Labels, num_classes: int | None = None) -> NDArray[np.float64]:
    """Share of each class's clips that were recognised, (C,); NaN for a class that is absent from the truth."""
    matrix = confusion_matrix(truth_N, predicted_N, num_classes)
    total = matrix.sum(1)
    return np.where(total > 0, np.diag(matrix) / np.maximum(total, 1), np.nan)


def uar(truth_N: Labels, predicted_N: Labels) -> float:
    """Unweighted average recall (UA): mean recall over the classes present in the truth."""
    return float(np.nanmean(per_class_recall(truth_N, predicted_N)))


def wa(truth_N: Labels, predicted_N: Labels) -> float:
    """Weighted accuracy (WA): the plain share of clips that were recognised."""
    _check(truth_N, predicted_N)
    return float((truth_N == predicted_N).mean())


def macro_f1(truth_N: Labels, predicted_N: Labels) -> float:
    """Mean F1 over the classes that occur in the truth or among the predictions."""
    matrix = confusion_matrix(truth_N, predicted_N)
    support = matrix.sum(0) + matrix.sum(1)
    occurs = support > 0
    return float((2 * np.diag(matrix)[occurs] / support[occurs]).mean())


def ccc(truth_N: NDArray[np.floating], predicted_N: NDArray[np.floating]) -> float:
    """Concordance correlation over the whole set, `2·cov / (var_x + var_y + (mean_x - mean_y)²)`. Lin 1989."""
    _check(truth_N, predicted_N)
    x, y = truth_N.astype(np.float64), predicted_N.astype(np.float64)
    spread = x.var() + y.var() + (x.mean() - y.mean()) ** 2
    if spread == 0:
        raise ValueError(f"CCC is undefined: all {len(x)} truths and predictions are the same number, {x[0]}")
    return float(2 * ((x - x.mean()) * (y - y.mean())).mean() / spread)


def calibration_error(truth_N: Labels, probability_NC: NDArray[np.floating], bins: int = 15) -> float:
    """Expected calibration error: mean |share right - mean confidence| over bins of confidence, weighted by size.

    Guo et al. 2017 (arXiv 1706.04599), equation 3, with bins of equal width.
    """
    _check_probabilities(truth_N, probability_NC)
    confidence_N = probability_NC.max(1)
    right_N = probability_NC.argmax(1) == truth_N
    bin_N = np.clip(np.ceil(confidence_N * bins).astype(int) - 1, 0, bins - 1)
    gaps = np.bincount(bin_N, right_N - confidence_N, minlength=bins)
    return float(np.abs(gaps).sum() / len(truth_N))


def soft_label_agreement(vote_NC: NDArray[np.floating], probability_NC: NDArray[np.floating]) -> dict[str, float]:
    """How close predicted distributions are to the annotators', each row summing to 1, means over clips.

    cross_entropy: `-Σ q log p`. jensen_shannon: in bits, 0..1. overlap: `Σ min(p, q)`, 0..1.
    """
    if vote_NC.shape != probability_NC.shape or vote_NC.ndim != 2 or not len(vote_NC):
        raise ValueError(f"expected two tables (N, C) alike, got {vote_NC.shape} and {probability_NC.shape}")
    for name, rows in (("votes", vote_NC), ("probabilities", probability_NC)):
        if not np.allclose(rows.sum(1), 1, atol=1e-3) or (rows < 0).any():
            raise ValueError(f"{name} must be distributions: rows of numbers from 0 to 1 that sum to 1")
    q, p = vote_NC.astype(np.float64), np.clip(probability_NC.astype(np.float64), 1e-12, None)
    middle = (q + p) / 2
    divergence = [np.where(a > 0, a * np.log2(np.where(a > 0, a, 1) / middle), 0).sum(1) for a in (q, p)]
    return {
        "cross_entropy": float(-(q * np.log(p)).sum(1).mean()),
        "jensen_shannon": float(np.mean((divergence[0] + divergence[1]) / 2)),
        "overlap": float(np.minimum(q, p).sum(1).mean()),
    }


def bootstrap_interval(
    metric: Metric,
    truth_N: Labels,
    predicted_N: Labels,
    cluster_N: NDArray[np.generic],
    rng: np.random.Generator,
    n: int = 1000,
    level: float = 0.95,
) -> tuple[float, float]:
    """Percentile interval (low, high) of a metric, resampling whole clusters (speakers) with replacement.

    Clips of one speaker fail together, so resampling clips would give an interval that is too narrow.
    Field and Welsh 2007, J. R. Stat. Soc. B 69(3), "Bootstrapping clustered data".
    """
    _check(truth_N, predicted_N)
    values = [metric(truth_N[rows], predicted_N[rows]) for rows in _resamples(cluster_N, len(truth_N), rng, n)]
    low, high = np.quantile(values, [(1 - level) / 2, (1 + level) / 2])
    return float(low), float(high)


def paired_bootstrap_p(
    metric: Metric,
    truth_N: Labels,
    better_N: Labels,
    baseline_N: Labels,
    cluster_N: NDArray[np.generic],
    rng: np.random.Generator,
    n: int = 1000,
) -> float:
    """One-sided p-value of the claim "`better_N` beats `baseline_N`": the share of resamples where it does not.

    Both predictions are scored on the same resampled clusters; the +1 of Davison and Hinkley 1997 (section 4.2)
    keeps p above 0 with finitely many resamples.
    """
    _check(truth_N, better_N)
    _check(truth_N, baseline_N)
    failures = sum(
        metric(truth_N[rows], better_N[rows]) <= metric(truth_N[rows], baseline_N[rows])
        for rows in _resamples(cluster_N, len(truth_N), rng, n)
    )
    return (1 + failures) / (1 + n)


def _resamples(cluster_N: NDArray[np.generic], size: int, rng: np.random.Generator, n: int) -> list[NDArray[np.int64]]:
    if len(cluster_N) != size:
        raise ValueError(f"every clip needs a cluster: {size} clips, {len(cluster_N)} cluster names")
    names, cluster_of_N = np.unique(cluster_N, return_inverse=True)
    members = [np.flatnonzero(cluster_of_N == index) for index in range(len(names))]
    draws = rng.integers(len(names), size=(n, len(names)))
    return [np.concatenate([members[index] for index in draw]) for draw in draws]


def _check(truth_N: NDArray[np.generic], predicted_N: NDArray[np.generic]) -> None:
    if truth_N.shape != predicted_N.shape or truth_N.ndim != 1 or len(truth_N) == 0:
        raise ValueError(f"expected two non-empty vectors of equal length, got {truth_N.shape} and {predicted_N.shape}")


def _check_probabilities(truth_N: Labels, probability_NC: NDArray[np.floating]) -> None:
    if probability_NC.ndim != 2 or len(probability_NC) != len(truth_N) or not len(truth_N):
        raise ValueError(
            f"expected labels (N,) and probabilities (N, C), got {truth_N.shape} and {probability_NC.shape}"
        )
    if not np.allclose(probability_NC.sum(1), 1, atol=1e-3):
        worst = int(np.abs(probability_NC.sum(1) - 1).argmax())
        raise ValueError(f"probabilities must sum to 1; row {worst} sums to {probability_NC[worst].sum():.4f}")
