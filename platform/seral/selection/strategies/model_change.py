"""Expected model change of a regression: how far an ensemble expects a label to move the last layer."""

# N candidates · R repeats (members) · D features · K rated dimensions
from __future__ import annotations

import numpy as np

from seral.selection.candidates import Candidates
from seral.selection.strategies import scores
from seral.vectors.distances import SLAB


def emcm(candidates: Candidates) -> scores.Scores:
    """The k largest expected gradients of the squared error by the last layer, `mean_r ‖f_r(x) - f(x)‖ · ‖(x, 1)‖`.
    Cai, Zhang and Zhou 2013, Maximizing expected model change for active learning in regression, ICDM.

    Members f_r are ridge regressions on the embedding x, fitted on the labels drawn with replacement. Differs from the
    paper: f is their mean; ratings of several dimensions have one gradient.
    """
    member_RNK = candidates.need("member_RNK").astype(np.float64)
    change_N = np.sqrt(((member_RNK - member_RNK.mean(axis=0)) ** 2).sum(axis=2)).mean(axis=0)
    x_ND = candidates.need("embedding_ND")
    slabs = (x_ND[at : at + SLAB].astype(np.float64) for at in range(0, len(x_ND), SLAB))
    length_N = np.concatenate([*(np.sqrt(1 + np.einsum("bd,bd->b", slab, slab)) for slab in slabs), np.empty(0)])
    score_N: scores.Scores = change_N * length_N
    return score_N
