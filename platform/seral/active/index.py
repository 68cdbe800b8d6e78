"""FAISS behind two functions, exact and repeatable: nearest rows and k-means."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import NamedTuple

import faiss
import numpy as np
from numpy.typing import NDArray
from scipy.sparse import csr_array

from seral.errors import SelectionError

# Q queries · N rows · K clusters or neighbours · D features

Floats = NDArray[np.float32]
Rows = NDArray[np.int64]

SLAB = 2_000_000
"""Differences between queries and their neighbours taken at a time."""
CHUNK = 65_536
"""Queries centred and searched at a time: bounds the copy that centring makes."""


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
    before = faiss.omp_get_max_threads()
    faiss.omp_set_num_threads(count)
    try:
        yield
    finally:
        faiss.omp_set_num_threads(before)


def nearest(query_QD: Floats, base_ND: Floats, k: int, *, threads: int = 1) -> Neighbours:
    """The k nearest base rows of every query by an exact search, (Q, D) and (N, D) -> (Q, K).

    FAISS takes distances as |q|² + |b|² − 2q·b, which loses digits when the data sits far from the origin: both sides
    are centred on the base first, and the distances of the rows it finds are taken anew in double precision. One
    thread is the default because the rounding of a product may depend on it.
    """
    if not 1 <= k <= len(base_ND):
        raise SelectionError(f"asked for {k} nearest rows of {len(base_ND)}; k must be 1 to {len(base_ND)}")
    centre_D = base_ND.mean(axis=0, dtype=np.float64).astype(np.float32)
    index = faiss.IndexFlatL2(base_ND.shape[1])
    index.add(base_ND - centre_D)
    distance_QK, row_QK = np.empty((len(query_QD), k), np.float32), np.empty((len(query_QD), k), np.int64)
    with faiss_threads(threads):
        for start in range(0, len(query_QD), CHUNK):
            part = slice(start, start + CHUNK)
            distance_QK[part], row_QK[part] = index.search(query_QD[part] - centre_D, k)
    for start in range(0, len(query_QD), step := max(1, SLAB // (k * query_QD.shape[1]))):
        part = slice(start, start + step)
        away_QKD = base_ND[row_QK[part]].astype(np.float64) - query_QD[part, None]
        distance_QK[part] = np.einsum("qkd,qkd->qk", away_QKD, away_QKD)
    order_QK = np.lexsort((row_QK, distance_QK), axis=-1)
    return Neighbours(np.take_along_axis(distance_QK, order_QK, -1), np.take_along_axis(row_QK, order_QK, -1))


def kmeans(
    x_ND: Floats, k: int, seed: int, *, spherical: bool = False, iterations: int = 20, start_KD: Floats | None = None
) -> Clusters:
    """k-means on every row (FAISS would silently keep 256 a cluster), the same for the same seed.

    Starts by k-means++ (Arthur and Vassilvitskii 2007), or from given centroids, which keep their numbers.
    Spherical: centroids are kept on the unit sphere and compared by inner product; the rows should be normalised.
    """
    if not 1 <= k <= len(x_ND):
        raise SelectionError(f"cannot make {k} clusters of {len(x_ND)} rows; k must be 1 to {len(x_ND)}")
    with faiss_threads(1):
        solver = faiss.Kmeans(
            x_ND.shape[1],
            k,
            niter=iterations,
            seed=seed,
            spherical=spherical,
            init_method=faiss.ClusteringInitMethod_KMEANS_PLUS_PLUS,  # random rows often start two in one group
            max_points_per_centroid=len(x_ND),
            min_points_per_centroid=1,  # fewer points a cluster than FAISS likes is what selection asks for
        )
        solver.train(x_ND, init_centroids=start_KD)
        _, cluster_N = solver.assign(x_ND)
    return Clusters(np.asarray(solver.centroids, np.float32), np.asarray(cluster_N, np.int64))


def unit_rows(x_ND: Floats | NDArray[np.float16]) -> Floats:
    """Rows scaled to length 1, in single precision; a row of zeros stays zero."""
    x_ND = x_ND.astype(np.float32, copy=False)
    length_N = np.sqrt(np.einsum("nd,nd->n", x_ND, x_ND))
    divisor_N = np.where(length_N > 0, length_N, 1).astype(np.float32)
    return x_ND / divisor_N[:, None]


def within(query_QD: Floats, base_ND: Floats, radius: float) -> csr_array:
    """Which base rows lie within `radius` of every query, as booleans (Q, N) of which only the true ones are kept."""
    index = faiss.IndexFlatL2(base_ND.shape[1])
    index.add(base_ND)
    count_Q, rows = [np.zeros(1, np.int64)], []
    with faiss_threads(1):
        for start in range(0, len(query_QD), CHUNK):
            # Single precision: a row is within reach of its copy however small the radius.
            limits, _, found = index.range_search(query_QD[start : start + CHUNK], radius * radius + 1e-6)
            count_Q.append(np.diff(limits).astype(np.int64))
            rows.append(found)
    pointer = np.cumsum(np.concatenate(count_Q))
    flat = np.concatenate([*rows, np.empty(0, np.int64)])
    return csr_array((np.ones(len(flat), bool), flat, pointer), shape=(len(query_QD), len(base_ND)))
