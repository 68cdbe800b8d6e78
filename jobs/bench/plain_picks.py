"""Definitions of strategies for few labels, on arrays: all pairs of rows, and everything anew for every pick."""

# N rows · M labelled · C classes · D features
from __future__ import annotations

import math

import numpy as np
from numpy.typing import NDArray
from sklearn.metrics.pairwise import euclidean_distances
from sklearn.preprocessing import normalize

Floats = NDArray[np.float32]
Doubles = NDArray[np.float64]
Rows = NDArray[np.intp]


def herding(x_ND: Floats, labelled_MD: Floats, weight_N: Doubles, width: float, picks: int) -> Rows:
    """Greedy by the sum over all rows of what each would add, with the whole matrix of kernels."""
    unit_ND, unit_MD = normalize(x_ND), normalize(labelled_MD)
    kernel_NN = np.exp(-euclidean_distances(unit_ND, squared=True) / width**2)
    near_N = np.exp(-euclidean_distances(unit_ND, unit_MD, squared=True) / width**2).max(axis=1)
    chosen: list[int] = []
    while len(chosen) < picks:
        gain_N = np.maximum(kernel_NN - near_N, 0) @ weight_N
        gain_N[chosen] = -1
        chosen.append(int(gain_N.argmax()))
        near_N = np.maximum(near_N, kernel_NN[chosen[-1]])
    return np.array(chosen)


def least_distance(labelled_MD: Floats) -> float:
    """The least distance of two labelled rows on the unit sphere that is not 0."""
    away_MM = euclidean_distances(normalize(labelled_MD))
    return float(away_MM[away_MM > 1e-6].min())


def dynamic_coverage(x_ND: Floats, p_NC: Floats, labelled_MD: Floats, picks: int) -> Rows:
    """DCoM with a = 0.8 and k = 50: a search of every radius, and all counts of neighbours for every pick."""
    away_NN, class_N = euclidean_distances(normalize(x_ND)), p_NC.argmax(axis=1)
    away_MN = euclidean_distances(normalize(labelled_MD), normalize(x_ND))
    covered_N, radius_M = np.zeros(len(x_ND), bool), np.zeros(len(labelled_MD))
    for _ in range(2):
        purity = 0.4 + 0.2 * covered_N.mean()
        radius_M = np.array([_radius(away_N, class_N, purity) for away_N in away_MN])
        covered_N = (away_MN <= radius_M[:, None]).any(axis=0)
    near_NN, top_NC = away_NN <= radius_M.mean(), np.sort(p_NC.astype(np.float64), axis=1)
    unsure_N = top_NC[:, -2] - top_NC[:, -1]
    unsure_N = (unsure_N - unsure_N.min()) / np.ptp(unsure_N)
    chosen: list[int] = []
    while len(chosen) < picks:
        weight = (1 + math.exp(-50 * 0.2)) / (1 + math.exp(-50 * (covered_N.mean() - 0.8)))
        count_N = (near_NN & ~covered_N).sum(axis=1)
        score_N = weight * unsure_N + (1 - weight) * count_N / max(1, count_N.max())
        score_N[chosen] = -1
        chosen.append(int(score_N.argmax()))
        covered_N |= near_NN[chosen[-1]]
    return np.array(chosen)


def _radius(away_N: Floats, class_N: NDArray[np.int64], purity: float) -> float:
    """By bisection, the largest radius of a ball of which so large a share has the class of the nearest row."""
    low, high, same_N = 0.0, 2.0, class_N == class_N[away_N.argmin()]
    for _ in range(12):
        middle = (low + high) / 2
        inside_N = away_N <= middle
        pure = same_N[inside_N].sum() >= purity * inside_N.sum()
        low, high = (middle, high) if pure else (low, middle)
    return low
