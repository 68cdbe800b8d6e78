"""Scores of uncertainty: pure functions on probabilities, larger = more uncertain, and the true top-k of a score."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

# N candidates · R repeats (dropout passes) · C classes

Probabilities = NDArray[np.float32] | NDArray[np.float64]
Scores = NDArray[np.float64]


def entropy(p_NC: Probabilities) -> Scores:
    """-Σ p log p in nats, (N, C) -> (N,), with 0 log 0 = 0. Shannon 1948."""
    wide_NC = p_NC.astype(np.float64)
    total: Scores = -(wide_NC * np.log(np.where(wide_NC > 0, wide_NC, 1))).sum(axis=1)
    return total


def margin(p_NC: Probabilities) -> Scores:
    """Second largest minus largest probability, in [-1, 0], (N, C) -> (N,); 0 = a tie. Scheffer et al. 2001."""
    top_N2 = np.partition(p_NC.astype(np.float64), -2, axis=1)[:, -2:]
    difference: Scores = top_N2[:, 0] - top_N2[:, 1]
    return difference


def least_confidence(p_NC: Probabilities) -> Scores:
    """1 - max p, (N, C) -> (N,). Lewis and Gale 1994, arXiv cmp-lg/9407020."""
    complement: Scores = 1 - p_NC.astype(np.float64).max(axis=1)
    return complement


def bald(p_RNC: Probabilities) -> Scores:
    """H(mean_r p) - mean_r H(p_r) over R dropout passes, (R, N, C) -> (N,). Gal et al. 2017, arXiv 1703.02910."""
    # One pass at a time: (R, N, C) in double precision would be the largest thing in memory.
    expected_N = np.mean([entropy(p_NC) for p_NC in p_RNC], axis=0)
    information: Scores = entropy(p_RNC.mean(axis=0, dtype=np.float64)) - expected_N
    return information


def rank_in_group(group_N: NDArray[np.int64]) -> NDArray[np.int64]:
    """The rank of every row within its group, in the order of rows, (N,), from 0."""
    order = np.argsort(group_N, kind="stable")
    first_N = np.searchsorted(group_N[order], group_N[order])
    rank_N = np.empty(len(group_N), dtype=np.int64)
    rank_N[order] = np.arange(len(group_N)) - first_N
    return rank_N


def top_rows(score_N: Scores, k: int) -> NDArray[np.intp]:
    """Rows of the k largest scores, largest first; equal scores in row order, which is the order of ids."""
    return np.argsort(-score_N, kind="stable")[:k]
