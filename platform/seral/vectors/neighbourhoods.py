"""Neighbourhoods of rows: how dense they are, how pure, and clusters that grow from pairs of neighbours."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from seral.vectors.arrays import Doubles
from seral.vectors.index import nearest
from seral.vectors.view import View, slabs

# N rows · B rows (sampled, or of a slab) · D features · K neighbours

BALLS, LINKED = 2_000, 5_000


def spacing(x: View, neighbours: int, threads: int) -> Doubles:
    """Mean distance of every row to its nearest neighbours, itself not counted, (N, D) -> (N,)."""
    spacing_N = np.zeros(len(x))
    if len(x) == 1:
        return spacing_N
    for part in slabs(len(x), max(x.shape[1], neighbours)):
        rows_B = np.arange(part.start, part.stop)
        near = nearest(x.only(rows_B), x, min(neighbours + 1, len(x)), threads=threads)
        own_BK = near.row_QK == rows_B[:, None]
        # Copies of a row may come before it, and push it out: then the last of its neighbours is left out instead.
        own_BK[~own_BK.any(axis=1), -1] = True
        total_B = np.sqrt(np.where(own_BK, 0, near.distance_QK).astype(np.float64)).sum(axis=1)
        spacing_N[part] = total_B / (near.row_QK.shape[1] - 1)
    return spacing_N


def pure_radius(unit: View, cluster_N: NDArray[np.int64], purity: float, threads: int) -> float:
    """The largest of some radii whose balls hold rows of one cluster only, in a share `purity` of the balls.

    Balls around at most BALLS rows are looked at.
    """
    rows = np.linspace(0, len(unit) - 1, min(BALLS, len(unit))).astype(np.intp)
    # A ball is pure up to the nearest row of another cluster.
    to_other_B = np.full(len(rows), 2.0)  # the diameter of the sphere
    for cluster in np.unique(cluster_N[rows]):
        mine, others = np.flatnonzero(cluster_N[rows] == cluster), np.flatnonzero(cluster_N != cluster)
        if len(others):
            neighbours = nearest(unit.only(rows[mine]), unit.only(others), 1, threads=threads)
            to_other_B[mine] = np.sqrt(neighbours.distance_QK[:, 0])
    return float(np.quantile(to_other_B, 1 - purity))


def linked(x: View, clusters: int, *, threads: int = 1) -> NDArray[np.int64]:
    """Cluster of every row by average linkage of Euclidean distances, cut where there are so many, (N, D) -> (N,).

    Memory grows with the pairs of rows: of more than 5000 rows as many are linked, evenly spaced, and each of the
    others joins the nearest of these.
    """
    from scipy.cluster.hierarchy import fcluster, linkage

    rows_B = np.linspace(0, len(x) - 1, min(LINKED, len(x))).astype(np.intp)
    if len(rows_B) == 1:
        return np.zeros(len(x), np.int64)
    linked_BD = x[rows_B]
    cluster_B = fcluster(linkage(linked_BD, "average"), min(clusters, len(rows_B)), "maxclust").astype(np.int64)
    if len(rows_B) < len(x):
        cluster_B = cluster_B[nearest(x, linked_BD, 1, threads=threads).row_QK[:, 0]]
    cluster_N: NDArray[np.int64] = cluster_B
    return cluster_N
