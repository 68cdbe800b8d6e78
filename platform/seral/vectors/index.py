"""FAISS behind four functions, repeatable and a slab at a time: nearest rows, rows within reach, pairs, k-means."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, NamedTuple

import numpy as np
from numpy.typing import NDArray

from seral.errors import OptionError, SelectionError
from seral.vectors.arrays import Doubles, Floats
from seral.vectors.distances import Points, rounding
from seral.vectors.seeding import seed_rows
from seral.vectors.view import Features, View, slabs, unit_rows, view

if TYPE_CHECKING:
    import faiss
    from scipy.sparse import csr_array

# Q queries · N rows · B rows of a slab · K clusters or neighbours · P pairs · D features
# G groups (the clusters, and the rows of none)

Rows = NDArray[np.int64]

REACHING = 512
"""Queries whose rows within reach are looked up at a time: all pairs with a slab of the base may be found."""
PROBES, LEARNT = 32, 40
"""Cells of an inverted file that a row is compared with, and rows for each cell that the cells are learnt on."""


class Neighbours(NamedTuple):
    """The nearest base rows of every query, nearest first, ties by row."""

    distance_QK: Floats
    """Squared Euclidean distances."""
    row_QK: Rows


class Clusters(NamedTuple):
    """The outcome of k-means."""

    centroid_KD: Floats
    cluster_N: Rows
    """The nearest centroid of every row."""


@contextmanager
def faiss_threads(count: int) -> Iterator[None]:
    """Run FAISS on `count` threads inside the block and restore the setting after it."""
    if count < 1:
        raise OptionError(f"threads must be at least 1, got {count}")
    import faiss

    before = faiss.omp_get_max_threads()
    faiss.omp_set_num_threads(count)
    try:
        yield
    finally:
        faiss.omp_set_num_threads(before)


def nearest(query_QD: Features, base_ND: Features, k: int, *, threads: int = 1) -> Neighbours:
    """The k nearest base rows of every query by an exact search, (Q, D) and (N, D) -> (Q, K).

    FAISS takes distances as |q|² + |b|² − 2q·b, which loses digits when the data sits far from the origin: both sides
    are centred on the base first, and the distances of the rows it finds are taken anew in double precision. One
    thread is the default because the rounding of a product may depend on it.
    """
    query, base = view(query_QD), view(base_ND)
    if not 1 <= k <= len(base):
        raise SelectionError(f"asked for {k} nearest rows of {len(base)}; k must be 1 to {len(base)}")
    centre_D = base.mean().astype(np.float32)
    distance_QK, row_QK = np.empty((len(query), k), np.float32), np.empty((len(query), k), np.int64)
    with faiss_threads(threads):
        for part in slabs(len(query), max(query.shape[1], k)):
            row_QK[part] = _candidates(query[part] - centre_D, base, centre_D, k)
    for part in slabs(len(query), k * query.shape[1]):
        away_BKD = base[row_QK[part].ravel()].reshape(-1, k, base.shape[1]).astype(np.float64)
        away_BKD -= query[part][:, None]
        distance_QK[part] = np.einsum("qkd,qkd->qk", away_BKD, away_BKD)
        order_BK = np.lexsort((row_QK[part], distance_QK[part]), axis=-1)
        distance_QK[part] = np.take_along_axis(distance_QK[part], order_BK, -1)
        row_QK[part] = np.take_along_axis(row_QK[part], order_BK, -1)
    return Neighbours(distance_QK, row_QK)


def _candidates(query_BD: Floats, base: View, centre_D: Floats, k: int) -> Rows:
    """The k nearest base rows of some centred queries, in single precision: the k best of every slab's, (B, K)."""
    import faiss

    distance_BK, row_BK = np.empty((len(query_BD), 0), np.float32), np.empty((len(query_BD), 0), np.int64)
    for slab in base.slabs():
        index = faiss.IndexFlatL2(base.shape[1])
        index.add(base[slab] - centre_D)
        distance, row = index.search(query_BD, min(k, index.ntotal))
        distance_BK, row_BK = np.hstack([distance_BK, distance]), np.hstack([row_BK, row + slab.start])
        order_BK = np.argsort(distance_BK, axis=1, kind="stable")[:, :k]
        distance_BK = np.take_along_axis(distance_BK, order_BK, 1)
        row_BK = np.take_along_axis(row_BK, order_BK, 1)
    return row_BK


def within(query_QD: Features, base_ND: Features, radius: float, *, threads: int = 1) -> csr_array:
    """Base rows within `radius` of every query, as booleans (Q, N) of which only the true ones are kept.

    Five bytes a pair that is true, twice that while the slabs are joined. Pairs at a distance that single precision
    cannot tell from the radius are looked at again in double precision, so that a pair is the same both ways round.
    """
    query, base = view(query_QD), view(base_ND)
    import faiss
    from scipy.sparse import csr_array, hstack, vstack

    columns = [csr_array((len(query), 0), dtype=bool)]
    with faiss_threads(threads):
        for slab in base.slabs():
            base_BD = base[slab]
            index = faiss.IndexFlatL2(base.shape[1])
            index.add(base_BD)
            rows = [csr_array((0, len(base_BD)), dtype=bool)]
            for start in range(0, len(query), REACHING):
                rows.append(_reached(query[start : start + REACHING], base_BD, index, radius))
            columns.append(vstack(rows, format="csr"))
    return hstack(columns, format="csr")


def _reached(query_QD: Floats, base_BD: Floats, index: faiss.IndexFlatL2, radius: float) -> csr_array:
    """Rows of an index within `radius` of some queries, (Q, B)."""
    from scipy.sparse import csr_array

    largest = max(float(np.einsum("nd,nd->n", x_ND, x_ND).max(initial=0)) for x_ND in (query_QD, base_BD))
    slack = 2 * rounding(base_BD.shape[1]) * largest
    limit_Q, square_P, base_P = index.range_search(query_QD, radius**2 + slack)
    count_Q = (limit_Q[1:] - limit_Q[:-1]).astype(np.int64)
    query_P = np.repeat(np.arange(len(query_QD), dtype=np.int32), count_Q)
    true_P = square_P <= radius**2 - slack
    doubtful = np.flatnonzero(~true_P)
    for part in slabs(len(doubtful), base_BD.shape[1]):
        pair = doubtful[part]
        away_BD = query_QD[query_P[pair]].astype(np.float64) - base_BD[base_P[pair]]
        true_P[pair] = np.einsum("nd,nd->n", away_BD, away_BD) <= radius**2
    query_P, base_P = query_P[true_P], base_P[true_P].astype(np.int32)
    return csr_array((np.ones(len(base_P), bool), (query_P, base_P)), shape=(len(query_QD), len(base_BD)))


def likely_within(x_ND: Floats, radius: float, *, threads: int = 1) -> Iterator[Rows]:
    """Pairs of rows within `radius` of each other, (P, 2), the smaller row first, by an index: some hundred at a time.

    An inverted file (Sivic and Zisserman 2003): rows lie in 4·√N cells of a k-means, in half precision, and a row is
    compared with those in the PROBES cells nearest to it. Pairs are looked at again in double precision: none is false.
    A few are missed, of those at the very radius one in a thousand where rows have no structure at all, and none where
    they have some (tests/vectors/test_index.py). A pair may come twice. The same rows give the same pairs.
    """
    count, width = x_ND.shape
    cells = min(count, 4 * int(count**0.5))
    import faiss

    index = faiss.IndexIVFScalarQuantizer(faiss.IndexFlatL2(width), width, cells, faiss.ScalarQuantizer.QT_fp16)
    index.cp.niter, index.cp.min_points_per_centroid, index.nprobe = 10, 1, PROBES
    learnt = np.random.default_rng(0).choice(count, min(count, LEARNT * cells), replace=False, shuffle=False)
    largest = max(float(np.einsum("nd,nd->n", x_ND[part], x_ND[part]).max(initial=0)) for part in slabs(count, width))
    reach = radius + 2.0**-11 * largest**0.5  # half precision moves a row by no more
    with faiss_threads(threads):
        index.train(x_ND[np.sort(learnt)])
        for part in slabs(count, width):
            index.add(x_ND[part])
        for start in range(0, count, REACHING):
            limit_Q, _, row_P = index.range_search(x_ND[start : start + REACHING], reach**2)
            count_Q = (limit_Q[1:] - limit_Q[:-1]).astype(np.int64)
            query_P = start + np.repeat(np.arange(len(count_Q)), count_Q)
            pair_P2 = np.sort(np.stack([query_P, row_P], axis=1)[query_P != row_P], axis=1)
            is_near_P = [_distance2(x_ND, pair_P2[part]) <= radius**2 for part in slabs(len(pair_P2), width)]
            yield pair_P2[np.concatenate([np.empty(0, bool), *is_near_P])]


def _distance2(x_ND: Floats, pair_P2: Rows) -> Doubles:
    """Squared distance of the rows of every pair, in double precision, (P,)."""
    away_PD = x_ND[pair_P2[:, 0]].astype(np.float64) - x_ND[pair_P2[:, 1]]
    square_P: Doubles = np.einsum("pd,pd->p", away_PD, away_PD)
    return square_P


def kmeans(
    x_ND: Features,
    k: int,
    seed: int,
    *,
    spherical: bool = False,
    iterations: int = 20,
    start_KD: Floats | None = None,
    points_per_cluster: int | None = None,
    threads: int = 1,
) -> Clusters:
    """k-means by at most `iterations` of Lloyd's, until no row changes its cluster; (N, D) -> k centroids.

    Starts by k-means++ (Arthur and Vassilvitskii 2007), or from given centroids, which keep their numbers. Centroids
    are learnt on every row, or on `points_per_cluster` · k rows drawn by the seed; each row is assigned either way.
    Spherical: centroids are scaled to length 1; the rows should be. A cluster that lost its rows goes to the row
    farthest from its centroid. The same seed and rows give the same clusters; their rounding may depend on `threads`.
    """
    x = view(x_ND)
    if not 1 <= k <= len(x):
        raise SelectionError(f"cannot make {k} clusters of {len(x)} rows; k must be 1 to {len(x)}")
    if points_per_cluster is not None and points_per_cluster < 1:
        raise OptionError(f"points_per_cluster must be at least 1, got {points_per_cluster}")
    rng, learnt = np.random.default_rng(seed), x
    if points_per_cluster is not None and points_per_cluster * k < len(x):
        learnt = x.only(np.sort(rng.choice(len(x), points_per_cluster * k, replace=False, shuffle=False)))
    centre_D = learnt.mean()
    if start_KD is None:
        start_KD = learnt[seed_rows(Points(learnt, centre_D=centre_D), None, k, rng)]
    with faiss_threads(threads):
        lloyd, left = _Lloyd(learnt, start_KD.astype(np.float64), centre_D), iterations
        while lloyd.assign() and left:
            lloyd.move(spherical=spherical)
            left -= 1
        if learnt is not x:
            lloyd = _Lloyd(x, lloyd.centroid_KD, centre_D)
            lloyd.assign()
    return Clusters(lloyd.centroid_KD.astype(np.float32), lloyd.cluster_N.astype(np.int64))


class _Lloyd:
    """Rows, centroids, and the centroid that each row is nearest to."""

    def __init__(self, x: View, centroid_KD: Doubles, centre_D: Doubles) -> None:
        self.x, self.centroid_KD, self.centre_D = x, centroid_KD, centre_D.astype(np.float32)
        self.cluster_N, self.distance_N = np.full(len(x), -1, np.int32), np.empty(len(x), np.float32)
        groups = len(centroid_KD) + 1  # the last is that of rows without a cluster
        self.sum_GD, self.size_G = np.zeros((groups, x.shape[1])), np.zeros(groups, np.int64)

    def assign(self) -> bool:
        """Give every row to its nearest centroid; says whether any of them changed its cluster."""
        import faiss

        index, changed = faiss.IndexFlatL2(self.x.shape[1]), False
        index.add((self.centroid_KD - self.centre_D).astype(np.float32))
        for part in self.x.slabs():
            x_BD = self.x[part]
            x_BD -= self.centre_D
            distance_B1, cluster_B1 = index.search(x_BD, 1)
            cluster_B = cluster_B1[:, 0]
            if cluster_B.min() < 0:
                raise SelectionError("rows are not finite, or too large to take distances between them")
            if len(moved := np.flatnonzero(cluster_B != self.cluster_N[part])):
                self._count(x_BD[moved], self.cluster_N[part][moved], cluster_B[moved])
                changed = True
            self.cluster_N[part], self.distance_N[part] = cluster_B, distance_B1[:, 0]
        return changed

    def _count(self, x_BD: Floats, old_B: NDArray[np.int32], new_B: Rows) -> None:
        """Take rows out of the sums of their old clusters and into those of their new ones."""
        sign_2B, row_2B = np.repeat([-1.0, 1.0], len(x_BD)), np.tile(np.arange(len(x_BD)), 2)
        changed, column_2B = np.unique(np.concatenate([old_B, new_B]), return_inverse=True)
        from scipy.sparse import csr_array

        change = csr_array((sign_2B, (column_2B, row_2B)))
        self.sum_GD[changed] += change @ x_BD
        self.size_G[changed] += np.bincount(column_2B, weights=sign_2B).astype(np.int64)

    def move(self, *, spherical: bool) -> None:
        """Put every centroid into the middle of its rows, and one without rows where the farthest row is."""
        filled, empty = np.flatnonzero(self.size_G[:-1]), np.flatnonzero(self.size_G[:-1] == 0)
        self.centroid_KD[filled] = self.sum_GD[filled] / self.size_G[filled, None] + self.centre_D
        if len(empty):
            far = np.argsort(-self.distance_N, kind="stable")[: len(empty)]
            far = far[self.distance_N[far] > 0]  # else there are fewer different rows than centroids
            self.centroid_KD[empty[: len(far)]] = self.x[far]
        if spherical:
            self.centroid_KD = unit_rows(self.centroid_KD.astype(np.float32)).astype(np.float64)
