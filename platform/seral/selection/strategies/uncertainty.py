"""Strategies that ask about what the model is least sure of.

Those that are a score alone are functions of the candidates, (N,), of which the k largest are picked.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from seral.errors import OptionError, unknown_name
from seral.selection.candidates import Candidates
from seral.selection.parts.local import Parts, best_of, mean_of
from seral.selection.parts.part import PoolPart
from seral.selection.strategies import scores
from seral.selection.strategies.checks import at_least
from seral.selection.strategies.records import best_by
from seral.vectors.arrays import Stored
from seral.vectors.distances import SLAB
from seral.vectors.view import unit_rows

# N candidates · R repeats (members) · D features · K rated dimensions


def entropy(candidates: Candidates) -> scores.Scores:
    """The k candidates of the largest entropy."""
    return uncertainty_of(candidates, "entropy")


def margin(candidates: Candidates) -> scores.Scores:
    """The k candidates whose two likeliest classes are closest."""
    return uncertainty_of(candidates, "margin")


def least_confidence(candidates: Candidates) -> scores.Scores:
    """The k candidates whose likeliest class is least likely."""
    return uncertainty_of(candidates, "least_confidence")


def bald(candidates: Candidates) -> scores.Scores:
    """The k candidates on which the dropout passes, or the members of an ensemble, disagree most."""
    return uncertainty_of(candidates, "bald")


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


def density(
    candidates: Candidates, k: int, rng: np.random.Generator, *, uncertainty: str = "entropy", beta: float = 1.0
) -> list[str]:
    """The k candidates of the largest uncertainty · similarity^beta. Settles and Craven 2008, information density.

    Similarity is the mean over all candidates of (1 + cosine) / 2, computed in one pass as a product with the mean
    direction. Differs from the paper: it is kept positive, so that any beta will do, and so is the margin, by adding 1.
    """
    x_ND = candidates.need("embedding_ND")
    score_N = density_scores(candidates, uncertainty, beta, total_direction(x_ND) / len(x_ND))
    ids: list[str] = candidates.ids[scores.top_rows(score_N, k)].tolist()
    return ids


def density_in_parts(
    parts: Parts, k: int, rng: np.random.Generator, *, uncertainty: str = "entropy", beta: float = 1.0
) -> list[str]:
    """The picks of `density`, by the mean direction of all parts."""
    direction_D = mean_of(parts.each(_total_direction))
    return best_of(parts.each(best_by, density_scores, k, uncertainty, beta, direction_D), k)


def _total_direction(part: PoolPart) -> tuple[int, NDArray[np.float64]]:
    """Rows of a part, and the sum of their directions."""
    return part.count(), total_direction(part.candidates.need("embedding_ND"))


def uncertainty_of(candidates: Candidates, name: str) -> scores.Scores:
    """The named score of every candidate, (N,), larger = more uncertain. Raises OptionError for an unknown name."""
    if name not in UNCERTAINTIES:
        raise OptionError(unknown_name("uncertainty", name, UNCERTAINTIES))
    uncertainty = UNCERTAINTIES[name]
    return uncertainty.function(candidates.need(uncertainty.reads))


class Uncertainty(NamedTuple):
    """A measure of uncertainty, larger = more uncertain, and the one field of Candidates that it reads."""

    function: Callable[[Any], scores.Scores]
    reads: str


UNCERTAINTIES: dict[str, Uncertainty] = {
    "margin": Uncertainty(scores.margin, "probability_NC"),
    "entropy": Uncertainty(scores.entropy, "probability_NC"),
    "least_confidence": Uncertainty(scores.least_confidence, "probability_NC"),
    "bald": Uncertainty(scores.bald, "dropout_RNC"),
}
"""Values of the option `uncertainty` of strategies and wrappers."""


def density_scores(
    candidates: Candidates, uncertainty: str, beta: float, direction_D: NDArray[np.float64]
) -> scores.Scores:
    """Uncertainty · similarity^beta of every candidate, (N,), by the mean direction of the whole pool."""
    at_least(0, "density", beta=float(beta))
    score_N = uncertainty_of(candidates, uncertainty)
    if uncertainty == "margin":
        score_N += 1
    return score_N * mean_similarity(candidates.need("embedding_ND"), direction_D) ** beta


def total_direction(x_ND: Stored) -> NDArray[np.float64]:
    """Sum of all rows, each scaled to length 1, (N, D) -> (D,)."""
    total_D = np.zeros(x_ND.shape[1])
    for at in range(0, len(x_ND), SLAB):
        total_D += unit_rows(x_ND[at : at + SLAB]).astype(np.float64).sum(axis=0)
    return total_D


def mean_similarity(x_ND: Stored, direction_D: NDArray[np.float64]) -> scores.Scores:
    """Mean over a pool of (1 + cosine) / 2 with each row, by the pool's mean direction, (N, D), (D,) -> (N,)."""
    slabs = range(0, len(x_ND), SLAB)
    cosine = [unit_rows(x_ND[at : at + SLAB]).astype(np.float64) @ direction_D for at in slabs]
    return (1 + np.concatenate([*cosine, np.empty(0)])) / 2
