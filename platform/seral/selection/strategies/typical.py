"""Typical candidates: dense places first, one of each region."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from seral.errors import OptionError
from seral.selection.candidates import Candidates
from seral.selection.parts.local import Parts
from seral.selection.parts.part import PoolPart
from seral.selection.strategies.checks import at_least
from seral.selection.strategies.clusters import ALL, learnt_on
from seral.selection.strategies.uniform import drawn
from seral.vectors.arrays import Rows
from seral.vectors.index import kmeans, nearest, within
from seral.vectors.neighbourhoods import pure_radius, spacing
from seral.vectors.view import View

if TYPE_CHECKING:
    from scipy.sparse import csr_array

# N candidates · M labelled · Q clusters · D features

CLUSTERS, SAMPLE = 8, 50_000
MEMBERS = 1_000
"""Rows of a cluster of a large pool among which typical ones are looked for."""


def typiclust(
    candidates: Candidates,
    k: int,
    rng: np.random.Generator,
    *,
    clusters: int = 500,
    neighbours: int = 20,
    smallest: int = 5,
    points_per_cluster: int | None = None,
    members: int | None = None,
    threads: int = 1,
) -> list[str]:
    """The most typical candidate of each cluster, of those with fewest labels first. Hacohen et al. 2022,
    TypiClust, arXiv 2202.02794.

    k-means of labelled and unlabelled rows into labels + k clusters, at most `clusters`; typical is who is near to his
    `neighbours` nearest rows of the cluster. Clusters of fewer than `smallest` rows come last. Their centroids are
    learnt on all rows, or on `points_per_cluster` times as many as there are clusters, drawn by chance;
    typical rows are looked for in a whole cluster, or among `members` of it. Where there are more than 200,000 rows
    these are 64 and 1000.
    Differs from the authors' code, with which it shares four of five picks: there neighbours are unlabelled rows, half
    of the cluster's at most, and others after each pick, distances are squared, and small clusters are left out.
    """
    counts = {
        "clusters": clusters,
        "neighbours": neighbours,
        "points_per_cluster": points_per_cluster,
        "members": members,
    }
    at_least(1, "typiclust", **counts, threads=threads)
    at_least(0, "typiclust", smallest=smallest)
    x_ND, labelled_MD = candidates.need("embedding_ND"), candidates.labelled_centres()
    seed, unit = int(rng.integers(2**31)), View(x_ND, labelled_MD, unit=True)
    clusters = min(len(labelled_MD) + k, clusters, len(unit))
    points = learnt_on(points_per_cluster, clusters, len(unit))
    cluster_N = kmeans(unit, clusters, seed, points_per_cluster=points, threads=threads).cluster_N
    if members is None:
        members = MEMBERS if len(unit) > ALL else len(unit)
    typical = _TypicalFirst(unit, cluster_N, len(x_ND), neighbours=neighbours, members=members, threads=threads)
    ids: list[str] = candidates.ids[[typical.pick(smallest) for _ in range(k)]].tolist()
    return ids


class _TypicalFirst:
    """Clusters with the labels of each, and its free rows from the most typical on; the first `free` rows are free."""

    def __init__(
        self, unit: View, cluster_N: NDArray[np.int64], free: int, *, neighbours: int, members: int, threads: int
    ) -> None:
        self._unit, self._cluster_N, self._free, self._members = unit, cluster_N, free, members
        self._neighbours, self._threads = neighbours, threads
        self._labels_Q = np.bincount(cluster_N[free:], minlength=cluster_N.max() + 1)
        self._size_Q = np.bincount(cluster_N, minlength=len(self._labels_Q))
        self._left_Q = np.bincount(cluster_N[:free], minlength=len(self._labels_Q))
        self._queues: dict[int, list[int]] = {}

    def pick(self, smallest: int) -> int:
        """The most typical free row of the cluster of fewest labels, the larger of equals; small clusters come last."""
        open_Q = np.flatnonzero(self._left_Q)
        size_Q = self._size_Q[open_Q]
        cluster = int(open_Q[np.lexsort((open_Q, -size_Q, self._labels_Q[open_Q], size_Q < smallest))[0]])
        if cluster not in self._queues:
            self._queues[cluster] = self._least_typical_first(cluster)
        self._labels_Q[cluster] += 1
        self._left_Q[cluster] -= 1
        return self._queues[cluster].pop()

    def _least_typical_first(self, cluster: int) -> list[int]:
        """The free rows of a cluster; the last is the most typical one."""
        members = np.flatnonzero(self._cluster_N == cluster)
        looked_at, others = members, members[:0]
        if len(members) > self._members:
            looked_at = members[np.linspace(0, len(members) - 1, self._members).astype(np.intp)]
            others = np.setdiff1d(members, looked_at)
        order = np.argsort(spacing(self._unit.only(looked_at), self._neighbours, self._threads), kind="stable")
        return [int(row) for row in (*looked_at[order], *others) if row < self._free][::-1]


def prob_cover(
    candidates: Candidates,
    k: int,
    rng: np.random.Generator,
    *,
    radius: float | None = None,
    purity: float = 0.95,
    points_per_cluster: int | None = None,
    sample: int = SAMPLE,
    threads: int = 1,
) -> list[str]:
    """Each pick covers the most rows that are not covered yet. Yehuda et al. 2022, ProbCover, arXiv 2205.11320.

    A row covers all within `radius` of it, on the unit sphere. Without one, the largest radius within which a share
    `purity` of the balls hold rows of one cluster only (k-means, as many clusters as classes, or 8; their centroids
    are learnt on all rows, or on `points_per_cluster` a cluster). Memory and time grow with the pairs of neighbours.
    When nothing is left to cover, covering starts again. In a pool of more than `sample` candidates, or k, as many are
    drawn by chance, and what is picked and covered are these.
    """
    at_least(1, "prob_cover", points_per_cluster=points_per_cluster, sample=sample, threads=threads)
    if radius is not None and not (math.isfinite(radius) and radius > 0):
        raise OptionError(f"prob_cover needs a finite radius > 0, got {radius}")
    if not 0 < purity <= 1:
        raise OptionError(f"prob_cover needs a purity in (0, 1], got {purity}")
    if len(candidates) > max(sample, k):
        candidates = drawn(Parts([PoolPart(candidates)]), max(sample, k), rng)
    unit, labelled = View(candidates.need("embedding_ND"), unit=True), View(candidates.labelled_centres(), unit=True)
    seed = int(rng.integers(2**31))
    if radius is None:
        p_NC = candidates.probability_NC
        clusters = min(CLUSTERS if p_NC is None else p_NC.shape[1], len(unit))
        cluster_N = kmeans(unit, clusters, seed, points_per_cluster=points_per_cluster, threads=threads).cluster_N
        radius = pure_radius(unit, cluster_N, purity, threads)
    cover = _Cover(within(unit, unit, radius, threads=threads))
    if len(labelled):
        distance_N = nearest(unit, labelled, 1, threads=threads).distance_QK[:, 0]
        cover.take_in(np.flatnonzero(distance_N <= radius**2))
    ids: list[str] = candidates.ids[[cover.pick() for _ in range(k)]].tolist()
    return ids


class _Cover:
    """Rows that are covered, and how many others each row would cover."""

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
        """Count these rows as covered."""
        for row in rows[~self._covered_N[rows]]:
            self._covered_N[row] = True
            self._gain_N[self._near(row)] -= 1

    def _start_anew(self) -> None:
        self._covered_N, self._gain_N = np.zeros(len(self._free_N), dtype=bool), np.diff(self._near_NN.indptr)

    def _near(self, row: int) -> Rows:
        near_NN = self._near_NN
        rows: Rows = near_NN.indices[near_NN.indptr[row] : near_NN.indptr[row + 1]]
        return rows
