"""Diversity by clusters: the rows nearest to the centroids of k-means."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from seral.active.candidates import Candidates, Stored
from seral.active.index import kmeans, nearest, unit_rows
from seral.errors import OptionError

# N candidates · K clusters · D features

Floats = NDArray[np.float32]

NEAR = 16
"""Neighbours of a centroid looked up at first; more only for centroids whose near rows are all taken."""


def k_means(candidates: Candidates, k: int, rng: np.random.Generator, *, clusters: int | None = None) -> list[str]:
    """The nearest candidate to each centroid of spherical k-means, the centroid of most rows first.

    `clusters` is the number of centroids, k by default; with fewer, each gives its nearest, then each its next.
    Source: the clustering initialisation of Li et al. 2023, AFTER, arXiv 2310.00283.
    Differs from the paper: clusters are made of the encoder's own pooled features, not of speaker embeddings.
    """
    return _near_centroids(candidates, candidates.need("embedding_ND"), k, rng, clusters, "k_means")


def alps(candidates: Candidates, k: int, rng: np.random.Generator, *, clusters: int | None = None) -> list[str]:
    """The nearest candidate to each centroid of k-means of what surprises a pretrained encoder in them, before there is
    any label. Yuan et al. 2020, ALPS, arXiv 2010.09535.

    Differs from the paper in what a clip's surprisal is: see ser_models.tapt.surprisal.
    """
    return _near_centroids(candidates, candidates.need("surprisal_NK"), k, rng, clusters, "alps")


def _near_centroids(
    candidates: Candidates, x_ND: Stored, k: int, rng: np.random.Generator, clusters: int | None, name: str
) -> list[str]:
    if clusters is not None and clusters < 1:
        raise OptionError(f"{name} needs clusters >= 1, got {clusters}")
    seed = int(rng.integers(2**31))
    unit_ND = unit_rows(x_ND)
    found = kmeans(unit_ND, min(clusters or k, len(unit_ND)), seed, spherical=True)
    size_K = np.bincount(found.cluster_N, minlength=len(found.centroid_KD))
    order_K = np.argsort(-size_K, kind="stable")
    chosen: list[str] = candidates.ids[nearest_in_turn(found.centroid_KD[order_K], unit_ND, k)].tolist()
    return chosen


def nearest_in_turn(centroid_KD: Floats, x_ND: Floats, k: int) -> list[int]:
    """k different rows: each centroid in turn takes its nearest row that is still free; k <= N."""
    near = min(NEAR, len(x_ND))
    queue = {cluster: rows.tolist() for cluster, rows in enumerate(nearest(centroid_KD, x_ND, near).row_QK)}
    depth = dict.fromkeys(queue, near)
    taken: dict[int, None] = {}
    while True:
        for cluster in queue:
            if len(taken) == k:
                return list(taken)
            while not (free := [row for row in queue[cluster] if row not in taken]):
                depth[cluster] = min(4 * depth[cluster], len(x_ND))
                queue[cluster] = nearest(centroid_KD[cluster : cluster + 1], x_ND, depth[cluster]).row_QK[0].tolist()
            taken[free[0]] = None
            queue[cluster] = free[1:]
