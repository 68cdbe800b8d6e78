"""Bayesian linear regression of ratings on a model's embedding, in closed form: what labels leave open.

Weights are drawn from N(0, 1) for features that are centred and scaled by the pool, with a constant beside them, so
that a rating of an average clip has a variance of 2 before there are labels. The variance that is left depends on which
clips are labelled, and not on their labels: it is the Laplace approximation of a last layer with squared error.
"""

# N candidates · M labelled · B rows of a block · D features
from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from seral.errors import OptionError
from seral.selection.candidates import Candidates
from seral.selection.parts.local import Parts, best_of
from seral.selection.parts.part import PoolPart
from seral.selection.strategies.one_by_one import one_by_one
from seral.selection.strategies.records import best_by
from seral.vectors.arrays import Doubles, Stored
from seral.vectors.distances import SLAB

NOISE = 0.1
EQUAL = 1e-9
"""Share of the squared mean below which the variance of features is rounding."""


def predictive_variance(candidates: Candidates, k: int, rng: np.random.Generator, *, noise: float = NOISE) -> list[str]:
    """The k largest variances of the rating that Bayesian linear regression on the features leaves. MacKay 1992,
    Information-based objective functions for active data selection.

    `noise` is the variance of labels around it, where an average clip has one of 2 before there are any.
    """
    return predictive_variance_in_parts(Parts([PoolPart(candidates)]), k, rng, noise=noise)


def predictive_variance_in_parts(parts: Parts, k: int, rng: np.random.Generator, *, noise: float = NOISE) -> list[str]:
    """The picks of `predictive_variance`: every part sends its best."""
    return best_of(parts.each(best_by, variances, k, Posterior.of(parts, noise)), k)


def max_det(candidates: Candidates, k: int, rng: np.random.Generator, *, noise: float = NOISE) -> list[str]:
    """The largest variance as in predictive_variance, where each pick counts as labelled for the next: greedy D-optimal
    design, which makes the determinant of the information on the weights large. Holzmüller et al. 2023, MaxDet,
    arXiv 2203.09410.

    Differs from the paper: features are the model's embedding, the kernel of its last layer.
    """
    return max_det_in_parts(Parts([PoolPart(candidates)]), k, rng, noise=noise)


def max_det_in_parts(parts: Parts, k: int, rng: np.random.Generator, *, noise: float = NOISE) -> list[str]:
    """The picks of `max_det`: of every pick, all parts hear the direction in which variance is gone."""
    if k == 0:
        return []
    posterior = Posterior.of(parts, noise)
    covariance_DD = posterior.covariance()
    parts.each(_begin, posterior)

    def direction(feature_D: Doubles) -> Doubles:
        nonlocal covariance_DD
        moved_D = covariance_DD @ feature_D
        moved_D /= np.sqrt(1 + feature_D @ moved_D)
        covariance_DD = covariance_DD - np.outer(moved_D, moved_D)
        return moved_D

    return one_by_one(parts, k, direction)


@dataclass(frozen=True)
class Posterior:
    """Weights of the regression after the labels: covariance `noise · (noise · I + ΣΦΦᵀ)⁻¹` of features Φ."""

    mean_D: Doubles
    scale: float
    noise: float
    lower_DD: Doubles
    """Cholesky factor of `noise · I + ΣΦΦᵀ`; one wider than the features, for the constant."""

    @staticmethod
    def of(parts: Parts, noise: float) -> Posterior:
        """The posterior by what is labelled or picked, on the scale of the candidates. Raises OptionError."""
        if not noise > 0:
            raise OptionError(f"noise must be above 0, got {noise}")
        counts, totals, squares = zip(*parts.each(_moments), strict=True)
        count = max(1, sum(counts))
        mean_D = np.sum(totals, axis=0) / count
        square = float(sum(squares) / count - mean_D @ mean_D)
        scale = np.sqrt(square) if square > EQUAL * (mean_D @ mean_D) else 1.0  # of copies nothing but rounding
        labelled_MD = parts.labelled_part().labelled_centres()
        prior = Posterior(mean_D, float(scale), noise, np.empty((0, 0)))
        feature_MD = prior.features(labelled_MD)
        information_DD = feature_MD.T @ feature_MD + noise * np.eye(feature_MD.shape[1])
        return Posterior(mean_D, prior.scale, noise, np.linalg.cholesky(information_DD).astype(np.float64))

    def features(self, x_BD: Stored) -> Doubles:
        """Features as the regression takes them, with a constant, (B, D + 1)."""
        return np.concatenate([np.ones((len(x_BD), 1)), (x_BD.astype(np.float64) - self.mean_D) / self.scale], axis=1)

    def spread(self, x_ND: Stored) -> Doubles:
        """`Φᵀ (noise · I + ΣΦΦᵀ)⁻¹ Φ` of each row, (N,): the variance that is left, as a multiple of the noise."""
        from scipy.linalg import solve_triangular

        slabs = (self.features(x_ND[at : at + SLAB]) for at in range(0, len(x_ND), SLAB))
        solved = (solve_triangular(self.lower_DD, feature_BD.T, lower=True) for feature_BD in slabs)
        return np.concatenate([*(np.einsum("db,db->b", part, part) for part in solved), np.empty(0)])

    def covariance(self) -> Doubles:
        """`(noise · I + ΣΦΦᵀ)⁻¹`."""
        from scipy.linalg import solve_triangular

        inverse_DD = solve_triangular(self.lower_DD, np.eye(len(self.lower_DD)), lower=True)
        covariance_DD: Doubles = inverse_DD.T @ inverse_DD
        return covariance_DD


def variances(candidates: Candidates, posterior: Posterior) -> Doubles:
    """The variance that is left of each candidate's rating, (N,), in single precision so that equal ones stay equal."""
    variance_N = posterior.noise * posterior.spread(candidates.need("embedding_ND"))
    return variance_N.astype(np.float32).astype(np.float64)


class Shrinking:
    """Variances of the candidates of a part, which every pick makes smaller."""

    def __init__(self, x_ND: Stored, posterior: Posterior) -> None:
        self.x_ND, self.posterior = x_ND, posterior
        self.spread_N = posterior.spread(x_ND)
        self.worth_N = self.spread_N.astype(np.float32).astype(np.float64)

    def row(self, at: int) -> Doubles:
        """The features of a candidate."""
        feature_D: Doubles = self.posterior.features(self.x_ND[at : at + 1])[0]
        return feature_D

    def add(self, news: Doubles) -> None:
        """Take away the variance along a direction."""
        taken_N = np.isneginf(self.worth_N)
        for at in range(0, len(self.x_ND), SLAB):
            along_B = self.posterior.features(self.x_ND[at : at + SLAB]) @ news
            self.spread_N[at : at + SLAB] -= along_B**2
        self.worth_N = np.where(taken_N, -np.inf, self.spread_N.astype(np.float32).astype(np.float64))


def _moments(part: PoolPart) -> tuple[int, Doubles, float]:
    """Rows of a part, their sum, and the sum of their squared norms."""
    x_ND = part.candidates.need("embedding_ND")
    slabs = [x_ND[at : at + SLAB].astype(np.float64) for at in range(0, len(x_ND), SLAB)]
    return len(x_ND), x_ND.sum(axis=0, dtype=np.float64), float(sum((slab**2).sum() for slab in slabs))


def _begin(part: PoolPart, posterior: Posterior) -> None:
    part.work = Shrinking(part.candidates.need("embedding_ND"), posterior)
