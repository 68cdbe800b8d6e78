"""Metrics that are reported: recall-based ones, CCC, calibration, on plain numpy arrays."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, Literal, NamedTuple

import numpy as np
from numpy.typing import NDArray

from ser_models.registry import Registry, only

# N clips · C classes · K rated dimensions · F folds · R repeats (seeds, resamples)

Labels = NDArray[np.int64]
Ratings = NDArray[np.floating]
MetricFunction = Callable[[NDArray[Any], NDArray[Any]], float]
"""(truth, predicted) -> value, a row a clip in both: classes, ratings, or a distribution over classes."""
TIED = 1e-6
"""Shares of votes that differ by less are alike."""


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


def mean_recall(count_CC: NDArray[Any]) -> Any:
    """UAR of one or many confusion matrices, counts or weights, (..., C, C) -> (...), over the classes in each."""
    total = count_CC.sum(-1)
    recall = np.diagonal(count_CC, axis1=-2, axis2=-1) / np.where(total > 0, total, 1)
    return np.where(total > 0, recall, 0).sum(-1) / np.maximum((total > 0).sum(-1), 1)


def uar(truth_N: Labels, predicted_N: Labels) -> float:
    """Unweighted average recall (UA): mean recall over the classes present in the truth."""
    return float(np.nanmean(per_class_recall(truth_N, predicted_N)))


def cohen_kappa(one_N: Labels, other_N: Labels, num_classes: int) -> float:
    """Agreement beyond chance of two sets of predictions, at most 1; 1 where chance leaves nothing to disagree on."""
    return kappa_of(confusion_matrix(one_N, other_N, num_classes))


def kappa_of(confusion_CC: NDArray[np.int64]) -> float:
    """Cohen's kappa of two sets of predictions, by the number of clips of each pair of classes, (C, C)."""
    share_CC = confusion_CC / confusion_CC.sum()
    chance = float(share_CC.sum(0) @ share_CC.sum(1))
    return 1.0 if chance == 1 else float((np.trace(share_CC) - chance) / (1 - chance))


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


def ccc(truth_N: Ratings, predicted_N: Ratings) -> float:
    """Concordance correlation over the whole set, `2·cov / (var_x + var_y + (mean_x - mean_y)²)`. Lin 1989."""
    _check_ratings(truth_N, predicted_N)
    x, y = truth_N.astype(np.float64), predicted_N.astype(np.float64)
    spread = x.var() + y.var() + (x.mean() - y.mean()) ** 2
    if spread == 0:
        raise ValueError(f"CCC is undefined: all {len(x)} truths and predictions are the same number, {x[0]}")
    return float(2 * ((x - x.mean()) * (y - y.mean())).mean() / spread)


def rmse(truth_N: Ratings, predicted_N: Ratings) -> float:
    """Root mean square error over the whole set."""
    _check_ratings(truth_N, predicted_N)
    return float(np.sqrt(np.mean((truth_N.astype(np.float64) - predicted_N) ** 2)))


def ccc_by_dimension(truth_NK: Ratings, predicted_NK: Ratings, names: Sequence[str]) -> dict[str, float]:
    """CCC of every dimension over the whole set, by its name."""
    if truth_NK.shape != predicted_NK.shape or truth_NK.shape[1:] != (len(names),) or len(set(names)) < len(names):
        raise ValueError(
            f"expected two tables (N, {len(names)}) for the dimensions {list(names)}, each named once, "
            f"got {truth_NK.shape} and {predicted_NK.shape}"
        )
    return {name: ccc(truth_NK[:, k], predicted_NK[:, k]) for k, name in enumerate(names)}


def sums_of_pairs(one_NK: Ratings, other_NK: Ratings) -> NDArray[np.float64]:
    """Count, Σx, Σy, Σx², Σy² and Σxy of pairs of values, (6, K): all that CCC takes, and they add up over parts."""
    x, y = one_NK.astype(np.float64), other_NK.astype(np.float64)
    parts = (np.ones_like(x), x, y, x * x, y * y, x * y)
    return np.stack([part.sum(0) for part in parts])


def ccc_of_sums(sum_6K: NDArray[np.float64]) -> NDArray[np.float64]:
    """CCC of each dimension by its sums of pairs, (6, K) -> (K,); 1 where all values are one number."""
    count, x, y, xx, yy, xy = sum_6K
    mean_x, mean_y = x / count, y / count
    spread = xx / count - mean_x**2 + yy / count - mean_y**2 + (mean_x - mean_y) ** 2
    covariance = xy / count - mean_x * mean_y
    return np.where(spread > 0, 2 * covariance / np.where(spread > 0, spread, 1), 1.0)


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
    """Closeness of predicted distributions to the annotators', each row summing to 1, means over clips.

    cross_entropy: `-Σ q log p`. jensen_shannon: in bits, 0..1. overlap: `Σ min(p, q)`, 0..1. top2: share of clips
    whose class of most votes is one of the two likeliest. uar_with_ties: UAR where any of the classes on which votes
    are tied is right; a clip counts for the one that was predicted, else for the first.
    """
    if vote_NC.shape != probability_NC.shape or vote_NC.ndim != 2 or not len(vote_NC):
        raise ValueError(f"expected two tables (N, C) alike, got {vote_NC.shape} and {probability_NC.shape}")
    for name, rows in (("votes", vote_NC), ("probabilities", probability_NC)):
        if not np.allclose(rows.sum(1), 1, atol=1e-3) or (rows < 0).any():
            raise ValueError(f"{name} must be distributions: rows of numbers from 0 to 1 that sum to 1")
    q, p = vote_NC.astype(np.float64), np.clip(probability_NC.astype(np.float64), 1e-12, None)
    middle = (q + p) / 2
    best_NC = q >= q.max(1, keepdims=True) - TIED
    likeliest_N, second_N = np.argsort(-p, axis=1, kind="stable")[:, :2].T
    row_N = np.arange(len(q))
    truth_N = np.where(best_NC[row_N, likeliest_N], likeliest_N, best_NC.argmax(1))
    divergence = [np.where(a > 0, a * np.log2(np.where(a > 0, a, 1) / middle), 0).sum(1) for a in (q, p)]
    return {
        "cross_entropy": float(-(q * np.log(p)).sum(1).mean()),
        "jensen_shannon": float(np.mean((divergence[0] + divergence[1]) / 2)),
        "overlap": float(np.minimum(q, p).sum(1).mean()),
        "top2": float((best_NC[row_N, likeliest_N] | best_NC[row_N, second_N]).mean()),
        "uar_with_ties": uar(truth_N, likeliest_N),
    }


class Metric(NamedTuple):
    """A metric of a model's outputs on N clips."""

    function: MetricFunction
    of: Literal["classes", "probabilities", "ratings"]
    """The outputs that it takes: class indices (N,), probabilities (N, C), or ratings of one dimension (N,)."""
    better: Literal["higher", "lower"] = "higher"


OWN: dict[str, Metric] = {
    "uar": Metric(uar, of="classes"),
    "wa": Metric(wa, of="classes"),
    "macro_f1": Metric(macro_f1, of="classes"),
    "calibration_error": Metric(calibration_error, of="probabilities", better="lower"),
    "ccc": Metric(ccc, of="ratings"),
    "rmse": Metric(rmse, of="ratings", better="lower"),
}
METRICS = Registry(OWN, "seral.metrics", only(Metric))
"""Metrics by name, as every evaluation writes them."""


def _check(truth_N: NDArray[np.generic], predicted_N: NDArray[np.generic]) -> None:
    if truth_N.shape != predicted_N.shape or truth_N.ndim != 1 or len(truth_N) == 0:
        raise ValueError(f"expected two non-empty vectors of equal length, got {truth_N.shape} and {predicted_N.shape}")


def _check_ratings(truth_N: Ratings, predicted_N: Ratings) -> None:
    _check(truth_N, predicted_N)
    if len(missing := np.flatnonzero(~(np.isfinite(truth_N) & np.isfinite(predicted_N)))):
        raise ValueError(f"expected finite ratings, got {len(missing)} rows without, the first of them {missing[0]}")


def _check_probabilities(truth_N: Labels, probability_NC: NDArray[np.floating]) -> None:
    if probability_NC.ndim != 2 or len(probability_NC) != len(truth_N) or not len(truth_N):
        raise ValueError(
            f"expected labels (N,) and probabilities (N, C), got {truth_N.shape} and {probability_NC.shape}"
        )
    if truth_N.min() < 0 or truth_N.max() >= probability_NC.shape[1]:
        raise ValueError(f"labels must lie in 0..{probability_NC.shape[1] - 1}, got {truth_N.min()}..{truth_N.max()}")
    if not np.allclose(probability_NC.sum(1), 1, atol=1e-3):
        worst = int(np.abs(probability_NC.sum(1) - 1).argmax())
        raise ValueError(f"probabilities must sum to 1; row {worst} sums to {probability_NC[worst].sum():.4f}")
