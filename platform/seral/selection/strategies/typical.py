"""Typical candidates: dense places first, one of each region."""

from __future__ import annotations

import math

import numpy as np
from numpy.typing import NDArray
from scipy.sparse import csr_array

from seral.errors import OptionError
from seral.selection.candidates import Candidates
from seral.selection.strategies.checks import at_least
from seral.vectors.arrays import Doubles, Rows
from seral.vectors.index import kmeans, nearest, within
from seral.vectors.view import View, slabs

# N candidates · M labelled · K clusters · B sampled rows · D features

CLUSTERS, SAMPLE = 8, 2_000


def typiclust(
    candidates: Candidates,
    k: int,
    rng: np.random.Generator,
    *,
    clusters: int = 500,
    neighbours: int = 20,
    smallest: int = 5,
    points_per_cluster: int | None = None,
    threads: int = 1,
) -> list[str]:
    """The most typical candidate of each cluster, of those with fewest labels first. Hacohen et al. 2022,
    TypiClust, arXiv 2202.02794.

    k-means of labelled and unlabelled rows into labels + k clusters, at most `clusters`; typical is who is near to his
    `neighbours` nearest rows of the cluster. Clusters of fewer than `smallest` rows come last. Their centroids are
    learnt on all rows, or on `points_per_cluster` times as many as there are clusters, drawn by chance.
    """
    counts = {"clusters": clusters, "neighbours": neighbours, "points_per_cluster": points_per_cluster}
    at_least(1, "typiclust", **counts, threads=threads)
    at_least(0, "typiclust", smallest=smallest)
    x_ND, labelled_MD = candidates.need("embedding_ND"), candidates.labelled_centres()
    seed, unit = int(rng.integers(2**31)), View(x_ND, labelled_MD, unit=True)
    clusters = min(len(labelled_MD) + k, clusters, len(unit))
    cluster_N = kmeans(unit, clusters, seed, points_per_cluster=points_per_cluster, threads=threads).cluster_N
    free_N = cluster_N[: len(x_ND)]
    labels_K = np.bincount(cluster_N[len(x_ND) :], minlength=cluster_N.max() + 1)
    size_K = np.bincount(cluster_N, minlength=len(labels_K))
    left_K = np.bincount(free_N, minlength=len(labels_K))
    queues: dict[int, list[int]] = {}
    picks: list[int] = []
    while len(picks) < k:
        open_K = np.flatnonzero(left_K)
        key = np.lexsort((open_K, -size_K[open_K], labels_K[open_K], size_K[open_K] < smallest))
        cluster = int(open_K[key[0]])
        if cluster not in queues:
            members = np.flatnonzero(cluster_N == cluster)
            order = np.argsort(_spacing(unit.only(members), neighbours, threads), kind="stable")
            queues[cluster] = [int(row) for row in members[order] if row < len(x_ND)][::-1]
        picks.append(queues[cluster].pop())
        labels_K[cluster] += 1
        left_K[cluster] -= 1
    chosen: list[str] = candidates.ids[picks].tolist()
    return chosen


def _spacing(x: View, neighbours: int, threads: int) -> Doubles:
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


def prob_cover(
    candidates: Candidates,
    k: int,
    rng: np.random.Generator,
    *,
    radius: float | None = None,
    purity: float = 0.95,
    points_per_cluster: int | None = None,
    threads: int = 1,
) -> list[str]:
    """Each pick covers the most rows that are not covered yet. Yehuda et al. 2022, ProbCover, arXiv 2205.11320.

    A row covers all within `radius` of it, on the unit sphere. Without one, the largest radius within which a share
    `purity` of the balls hold rows of one cluster only (k-means, as many clusters as classes, or 8; their centroids
    are learnt on all rows, or on `points_per_cluster` a cluster). Memory and time grow with the pairs of neighbours.
    When nothing is left to cover, covering starts again.
    """
    at_least(1, "prob_cover", points_per_cluster=points_per_cluster, threads=threads)
    if radius is not None and not (math.isfinite(radius) and radius > 0):
        raise OptionError(f"prob_cover needs a finite radius > 0, got {radius}")
    if not 0 < purity <= 1:
        raise OptionError(f"prob_cover needs a purity in (0, 1], got {purity}")
    unit, labelled = View(candidates.need("embedding_ND"), unit=True), View(candidates.labelled_centres(), unit=True)
    seed = int(rng.integers(2**31))
    if radius is None:
        p_NC = candidates.probability_NC
        clusters = min(CLUSTERS if p_NC is None else p_NC.shape[1], len(unit))
        found = kmeans(unit, clusters, seed, points_per_cluster=points_per_cluster, threads=threads)
        radius = _pure_radius(unit, found.cluster_N, purity, threads)
    cover = _Cover(within(unit, unit, radius, threads=threads))
    if len(labelled):
        distance_N = nearest(unit, labelled, 1, threads=threads).distance_QK[:, 0]
        cover.take_in(np.flatnonzero(distance_N <= radius**2))
    chosen: list[str] = candidates.ids[[cover.pick() for _ in range(k)]].tolist()
    return chosen


class _Cover:
    """What is covered, and how many rows each row would cover that are not."""

    def __init__(self, near_NN: csr_array) -> None:
        self._near_NN, self._free_N = near_NN, np.ones(near_NN.shape[0], dtype=bool)
        self._start_anew()

    def pick(self) -> int:
        """The row that covers most, the lower of equals; what it covers is covered from then on."""
        if not self._gain_N[self._free_N].any():
            self._start_anew()
        best = int(np.where(self._free_N, self._gain_N, -1).argmax())
        self._free_N[best] = False
        self.take_in(self._near(best))
        return best

    def take_in(self, rows: Rows) -> None:
        """These rows are covered."""
        for row in rows[~self._covered_N[rows]]:
            self._covered_N[row] = True
            self._gain_N[self._near(row)] -= 1

    def _start_anew(self) -> None:
        self._covered_N, self._gain_N = np.zeros(len(self._free_N), dtype=bool), np.diff(self._near_NN.indptr)

    def _near(self, row: int) -> Rows:
        near_NN = self._near_NN
        rows: Rows = near_NN.indices[near_NN.indptr[row] : near_NN.indptr[row + 1]]
        return rows


def _pure_radius(unit: View, cluster_N: NDArray[np.int64], purity: float, threads: int) -> float:
    """The largest of some radii whose balls hold rows of one cluster only, in a share `purity` of the balls.

    Balls around at most SAMPLE rows are looked at.
    """
    rows = np.linspace(0, len(unit) - 1, min(SAMPLE, len(unit))).astype(np.intp)
    # A ball is pure up to the nearest row of another cluster.
    to_other_B = np.full(len(rows), 2.0)  # the diameter of the sphere
    for cluster in np.unique(cluster_N[rows]):
        mine, others = np.flatnonzero(cluster_N[rows] == cluster), np.flatnonzero(cluster_N != cluster)
        if len(others):
            found = nearest(unit.only(rows[mine]), unit.only(others), 1, threads=threads)
            to_other_B[mine] = np.sqrt(found.distance_QK[:, 0])
    return float(np.quantile(to_other_B, 1 - purity))
