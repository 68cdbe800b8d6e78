"""Diversity by chance: k-means++ draws of features or of gradients."""

from __future__ import annotations

import numpy as np

from seral.selection.candidates import Candidates
from seral.vectors.distances import Points, feature_points, gradient_points
from seral.vectors.seeding import seed_rows


def k_means_plus_plus(candidates: Candidates, k: int, rng: np.random.Generator) -> list[str]:
    """k-means++ draws, away from the labelled rows. Arthur and Vassilvitskii 2007."""
    points = feature_points(candidates.need("embedding_ND"))
    labelled = Points(candidates.labelled_centres(), centre_D=points.centre_D)
    chosen: list[str] = candidates.ids[seed_rows(points, labelled, k, rng)].tolist()
    return chosen


def badge(candidates: Candidates, k: int, rng: np.random.Generator) -> list[str]:
    """k-means++ draws of gradient embeddings: uncertain and different. Ash et al. 2020, BADGE, arXiv 1906.03671.

    Starts with the largest gradient, as the authors' code does. The embedding is never built.
    """
    points = gradient_points(candidates.need("probability_NC"), candidates.need("embedding_ND"))
    chosen: list[str] = candidates.ids[seed_rows(points, None, k, rng, first=points.largest())].tolist()
    return chosen
