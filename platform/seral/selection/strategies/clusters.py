"""Diversity by clusters: the rows nearest to the centroids of k-means."""

from __future__ import annotations

import math

import numpy as np

from seral.selection.candidates import Candidates
from seral.selection.strategies.checks import at_least
from seral.vectors.arrays import Floats, Stored
from seral.vectors.index import kmeans, nearest
from seral.vectors.view import Features, View

# N candidates · K clusters · D features

ALL, ENOUGH, LEAST = 200_000, 64, 20_000
"""Rows up to which centroids are learnt on all of them without being told otherwise; of more rows, so many for each
cluster, and so many at least."""
NEAR = 16
"""Neighbours of a centroid looked up at first for each of its picks; more only where all of them are taken."""


def k_means(
    candidates: Candidates,
    k: int,
    rng: np.random.Generator,
    *,
    clusters: int | None = None,
    points_per_cluster: int | None = None,
    threads: int = 1,
) -> list[str]:
    """The nearest candidate to each centroid of spherical k-means, the centroid of most rows first.

    `clusters` is the number of centroids, k by default; with fewer, each gives its nearest, then each its next. They
    are learnt on all candidates, or on `points_per_cluster` times as many as there are clusters, drawn by chance: 64
    where there are more than 200,000 candidates.
    Source: the clustering initialisation of Li et al. 2023, AFTER, arXiv 2310.00283.
    Differs from the paper: clusters are made of the encoder's own pooled features, not of speaker embeddings.
    """
    at_least(1, "k_means", clusters=clusters, points_per_cluster=points_per_cluster, threads=threads)
    x_ND = candidates.need("embedding_ND")
    return _near_centroids(candidates, x_ND, k, rng, clusters or k, points_per_cluster, threads)


def alps(
    candidates: Candidates,
    k: int,
    rng: np.random.Generator,
    *,
    clusters: int | None = None,
    points_per_cluster: int | None = None,
    threads: int = 1,
) -> list[str]:
    """The nearest candidate to each centroid of k-means of what surprises a pretrained encoder in them, before there is
    any label. Yuan et al. 2020, ALPS, arXiv 2010.09535.

    Options as in k_means. Differs from the paper in what a clip's surprisal is: see ser_models.objectives.surprisal.
    """
    at_least(1, "alps", clusters=clusters, points_per_cluster=points_per_cluster, threads=threads)
    x_ND = candidates.need("surprisal_NQ")
    return _near_centroids(candidates, x_ND, k, rng, clusters or k, points_per_cluster, threads)


def _near_centroids(
    candidates: Candidates,
    x_ND: Stored,
    k: int,
    rng: np.random.Generator,
    clusters: int,
    points_per_cluster: int | None,
    threads: int,
) -> list[str]:
    seed, unit = int(rng.integers(2**31)), View(x_ND, unit=True)
    clustering = kmeans(
        unit,
        min(clusters, len(unit)),
        seed,
        spherical=True,
        points_per_cluster=learnt_on(points_per_cluster, min(clusters, len(unit)), len(unit)),
        threads=threads,
    )
    size_K = np.bincount(clustering.cluster_N, minlength=len(clustering.centroid_KD))
    order_K = np.argsort(-size_K, kind="stable")
    rows = nearest_in_turn(clustering.centroid_KD[order_K], unit, k, threads=threads)
    ids: list[str] = candidates.ids[rows].tolist()
    return ids


def learnt_on(points_per_cluster: int | None, clusters: int, rows: int) -> int | None:
    """Rows that centroids are learnt on, for each cluster: as many as are wished for; None = all."""
    if points_per_cluster is None and rows > ALL:
        return max(ENOUGH, math.ceil(LEAST / clusters))
    return points_per_cluster


def nearest_in_turn(centroid_KD: Floats, x_ND: Features, k: int, *, threads: int = 1) -> list[int]:
    """k different rows: each centroid in turn takes its nearest row that is still free; k <= N."""
    near = min(NEAR * math.ceil(k / len(centroid_KD)), len(x_ND))
    row_QK = nearest(centroid_KD, x_ND, near, threads=threads).row_QK
    queue = {cluster: rows.tolist() for cluster, rows in enumerate(row_QK)}
    depth = dict.fromkeys(queue, near)
    taken: dict[int, None] = {}
    while True:
        for cluster in queue:
            if len(taken) == k:
                return list(taken)
            while not (free := [row for row in queue[cluster] if row not in taken]):
                depth[cluster] = min(4 * depth[cluster], len(x_ND))
                row_QK = nearest(centroid_KD[cluster : cluster + 1], x_ND, depth[cluster], threads=threads).row_QK
                queue[cluster] = row_QK[0].tolist()
            taken[free[0]] = None
            queue[cluster] = free[1:]
