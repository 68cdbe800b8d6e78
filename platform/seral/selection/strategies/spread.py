"""Diversity by chance: k-means++ seeding of features or of gradients."""

from __future__ import annotations

import numpy as np

from seral.selection.candidates import Candidates
from seral.selection.parts.distances import DistributedPoints
from seral.selection.parts.local import Parts
from seral.vectors.arrays import Doubles
from seral.vectors.distances import Points, feature_points, gradient_points
from seral.vectors.seeding import seed_rows


def k_means_plus_plus(candidates: Candidates, k: int, rng: np.random.Generator) -> list[str]:
    """k-means++ draws, away from the labelled rows. Arthur and Vassilvitskii 2007."""
    points = feature_points(candidates.need("embedding_ND"))
    labelled = Points(candidates.labelled_centres(), centre_D=points.centre_D)
    ids: list[str] = candidates.ids[seed_rows(points, labelled, k, rng)].tolist()
    return ids


def k_means_plus_plus_in_parts(parts: Parts, k: int, rng: np.random.Generator) -> list[str]:
    """The picks of `k_means_plus_plus`: rows are drawn by bounds that the parts send."""
    points = DistributedPoints.of_features(parts)
    labelled = points.labelled(parts.labelled_part().labelled_centres())
    ids: list[str] = points.ids[seed_rows(points, labelled, k, rng)].tolist()
    return ids


def badge(candidates: Candidates, k: int, rng: np.random.Generator) -> list[str]:
    """k-means++ draws of gradient embeddings: uncertain and different. Ash et al. 2020, BADGE, arXiv 1906.03671.

    Starts with the largest gradient, as the authors' code does. The embedding is never built.
    """
    points = gradient_points(candidates.need("probability_NC"), candidates.need("embedding_ND"))
    ids: list[str] = candidates.ids[seed_rows(points, None, k, rng, first=points.largest())].tolist()
    return ids


def gradient_lengths(candidates: Candidates) -> Doubles:
    """Lengths of the gradient embeddings of `badge`, (N,)."""
    points = gradient_points(candidates.need("probability_NC"), candidates.need("embedding_ND"))
    return np.sqrt(points.block(slice(None)).square_B.astype(np.float64))


def badge_in_parts(parts: Parts, k: int, rng: np.random.Generator) -> list[str]:
    """The picks of `badge`: rows are drawn by bounds that the parts send."""
    points = DistributedPoints.of_gradients(parts)
    ids: list[str] = points.ids[seed_rows(points, None, k, rng, first=points.largest())].tolist()
    return ids
