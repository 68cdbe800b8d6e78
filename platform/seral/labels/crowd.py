"""Learning from raters who are known by name and err in ways of their own: what a clip is, by a model and their votes.

    p(c | x, votes) ∝ p(c | x) Π_r π_r[c, vote of r]

Raykar et al. 2010, "Learning from crowds", JMLR 11: a classifier and each rater's confusions π_r are learnt from each
other. It is Dawid and Skene's model with what the classifier says of a clip in place of the share of each class.
"""

# M labelled rows · C classes · R repeats (raters)
from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

Votes = NDArray[np.object_]
"""(M,) tuples of (name of a rater, class index); () where nobody voted, or a lead has decided."""
PRIOR = 4.0
"""Votes of a class that everybody's confusions together are worth for a rater."""
LEAST = 1e-6
"""A model is never surer than this against a class."""


def votes_of(rows: Sequence[Sequence[tuple[str, int]]]) -> Votes:
    """Votes as an array of as many rows."""
    votes_M = np.empty(len(rows), dtype=object)
    votes_M[:] = [tuple(row) for row in rows]
    return votes_M


def confusions(votes_M: Votes, share_MC: NDArray[np.floating]) -> dict[str, NDArray[np.float64]]:
    """Probabilities (C, C) of each rater: a row for what a clip is, by its shares, a column for what they say.

    A rater with few votes is like all of them together, and all together with few votes are right half of the time.
    """
    count = share_MC.shape[1]
    rater_V = [rater for votes in votes_M for rater, _ in votes]
    class_V = np.array([code for votes in votes_M for _, code in votes], np.int64)
    row_V = np.repeat(np.arange(len(votes_M)), [len(votes) for votes in votes_M])
    names, at_V = np.unique(np.array(rater_V, dtype=str), return_inverse=True)
    sum_RCC = np.zeros((len(names), count, count))
    np.add.at(sum_RCC.transpose(0, 2, 1), (at_V, class_V), share_MC[row_V])
    all_CC = sum_RCC.sum(axis=0) + np.eye(count) + (1 - np.eye(count)) / (count - 1)
    all_CC /= all_CC.sum(axis=1, keepdims=True)
    sum_RCC += PRIOR * all_CC
    sum_RCC /= sum_RCC.sum(axis=2, keepdims=True)
    return dict(zip(names.tolist(), sum_RCC, strict=True))


def weighed(
    votes_M: Votes, share_MC: NDArray[np.floating], model_MC: NDArray[np.floating]
) -> tuple[NDArray[np.float64], dict[str, NDArray[np.float64]]]:
    """Shares of the classes (M, C) by the votes and a model that has not seen them, and each rater's confusions.

    `share_MC`: the shares so far, by which raters are judged; rows without votes keep theirs.
    """
    voted_M = np.array([len(votes) > 0 for votes in votes_M], dtype=bool) & np.isfinite(share_MC).all(1)
    confusion_of = confusions(votes_M[voted_M], share_MC[voted_M])
    log_MC = np.log(np.maximum(model_MC.astype(np.float64), LEAST))
    for row in np.flatnonzero(voted_M).tolist():
        for rater, code in votes_M[row]:
            log_MC[row] += np.log(confusion_of[rater][:, code])
    posterior_MC = np.exp(log_MC - log_MC.max(axis=1, keepdims=True))
    posterior_MC /= posterior_MC.sum(axis=1, keepdims=True)
    return np.where(voted_M[:, None], posterior_MC, share_MC), confusion_of
