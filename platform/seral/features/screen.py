"""Near-duplicates in a pool, and how far each utterance lies from all others, by the features of an encoder.

POOL/screen/<fingerprint>.parquet   schema.SCREEN, one row an utterance with features

Two utterances are near-duplicates when their vectors point the same way and their durations agree: the same recording
in another codec, at another level, or cut a little differently. A vector is the mean and the standard deviation over
time of one hidden state, whitened: the first principal components of the pool, each scaled to variance 1. Without that,
all that one speaker says looks alike. Noise, telephone bands and cuts of more than a tenth of a second hide a copy.

The search is exact at any size: rows in order of duration, each block against the rows whose durations can match.
Distances to the pool are exact up to `exact_rows` rows, and to so many drawn at random above. Memory is that of the
vectors in fp16 and of `components` fp32 numbers a row: 130 MB for 10^5 utterances and an encoder of width 192.
"""

# N rows · D features · P pairs or principal directions · K neighbours
from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray
from pydantic import Field
from scipy.sparse import coo_array
from scipy.sparse.csgraph import connected_components

from seral import storage
from seral.cluster import ClusterOptions
from seral.errors import FeatureError, OptionError
from seral.features.audio import FeatureOptions, extract_features
from seral.features.store import FeatureStore, stack_vectors
from seral.options import Options
from seral.pool.shards import open_pool
from seral.schema import SCREEN
from seral.vectors.index import nearest, within
from seral.vectors.view import slabs, unit_rows

Floats = NDArray[np.float32]
Rows = NDArray[np.int64]

BLOCK = 4096
"""Rows that are looked up at a time."""
SHOWN = 20
FOLDER = "screen"


class ScreenOptions(Options):
    """Options of the search for near-duplicates and outliers."""

    pool: str
    """The pool."""
    encoder: str = "seral-tiny"
    """A hub id, a folder, or an embedded encoder; features that are not there yet are computed."""
    feature_cache: str | None = None
    """Address of the features; None = inside the pool."""
    state: int | None = Field(default=None, ge=0)
    """Index of the hidden state; None = the last one."""
    components: int = Field(default=128, ge=2)
    """Principal components of the vectors; fewer in a pool of less than eight utterances for each."""
    similarity: float = Field(default=0.9, gt=0, le=1)
    """Cosine from which two utterances are near-duplicates."""
    duration_tolerance: float = Field(default=0.05, ge=0, lt=1)
    """Share by which the longer of two may be longer."""
    neighbours: int = Field(default=10, ge=1)
    """The distance to the pool is the mean over so many nearest others."""
    exact_rows: int = Field(default=100_000, ge=2)
    """Above so many utterances, the distance is to others among so many drawn at random."""
    threads: int = Field(default=1, ge=1)
    """Threads of the search."""
    features: FeatureOptions = FeatureOptions()
    cluster: ClusterOptions = ClusterOptions()


@dataclass(frozen=True, kw_only=True)
class Neighbourhood:
    """The nearest other row of every row, and the mean distance to its nearest ones."""

    row_N: Rows
    similarity_N: Floats
    """Cosine to that row."""
    distance_N: Floats
    """Mean of 1 - cosine to the K nearest others."""


def screen_pool(options: ScreenOptions) -> str:
    """Find near-duplicates and outliers of a pool, write the table, and tell of the pairs."""
    pool = open_pool(options.pool)
    store = extract_features(
        pool, options.encoder, uri=options.feature_cache, options=options.features, on=options.cluster
    )
    ids, raw_ND = _vectors(store, options.state)
    if len(ids) < 3:
        raise FeatureError(f"{pool.uri} has {len(ids)} utterances with features: there is nothing to compare")
    x_ND = whitened(raw_ND, options.components)
    duration_of = dict(zip(*(pool.metadata[name].to_pylist() for name in ("utterance_id", "duration_s")), strict=True))
    duration_N = np.array([duration_of[name] for name in ids], dtype=np.float64)
    pair_P2 = near_duplicates(x_ND, duration_N, options.similarity, options.duration_tolerance, options.threads)
    near = neighbourhood(x_ND, options.neighbours, options.exact_rows, options.threads)
    leader_N = leaders(pair_P2, len(ids))
    table = pa.table(
        {
            "utterance_id": ids,
            "near_duplicate_of": [None if first == row else ids[first] for row, first in enumerate(leader_N.tolist())],
            "nearest_id": [ids[row] for row in near.row_N],
            "similarity": near.similarity_N,
            "distance": near.distance_N,
        },
        schema=SCREEN,
    )
    uri = storage.join(pool.uri, FOLDER, f"{store.fingerprint}.parquet")
    storage.write_table(uri, table)
    farthest = [f"{ids[row]} ({near.distance_N[row]:.2f})" for row in np.argsort(-near.distance_N)[:5]]
    return "\n".join(
        [
            f"near-duplicates among {len(ids)} utterances: {len(pair_P2)} pairs",
            *_pair_lines(ids, x_ND, duration_N, pair_P2),
            f"farthest from all others: {', '.join(farthest)}",
            f"table: {uri}",
        ]
    )


def near_duplicates(
    x_ND: Floats, duration_N: NDArray[np.float64], similarity: float, tolerance: float, threads: int = 1
) -> Rows:
    """Pairs of rows with at least this cosine and durations within the tolerance, (P, 2), sorted; x of length 1."""
    order = np.argsort(duration_N, kind="stable")
    sorted_N, radius = duration_N[order], float(np.sqrt(2 - 2 * similarity))
    pairs = [np.empty((0, 2), np.int64)]
    for start in range(0, len(order), BLOCK):
        block = order[start : start + BLOCK]
        longest = sorted_N[start : start + BLOCK][-1] * (1 + tolerance)
        base = order[start : np.searchsorted(sorted_N, longest, side="right")]
        first, second = within(x_ND[block], x_ND[base], radius, threads=threads).nonzero()
        fits = (first < second) & (duration_N[base[second]] <= duration_N[block[first]] * (1 + tolerance))
        pairs.append(np.stack([block[first[fits]], base[second[fits]]], axis=1))
    pair_P2 = np.sort(np.concatenate(pairs), axis=1)
    return pair_P2[np.lexsort(pair_P2.T[::-1])]


def neighbourhood(x_ND: Floats, neighbours: int, exact_rows: int, threads: int = 1) -> Neighbourhood:
    """Every row among the others, or among `exact_rows` of them when there are more; x of length 1."""
    count = len(x_ND)
    base = np.arange(count)
    if count > exact_rows:
        base = np.sort(np.random.default_rng(0).choice(count, exact_rows, replace=False))
    k = min(neighbours, len(base) - 1)
    row_N, similarity_N, distance_N = (
        np.empty(count, np.int64),
        np.empty(count, np.float32),
        np.empty(count, np.float32),
    )
    base_ND = x_ND if len(base) == count else x_ND[base]
    for start in range(0, count, BLOCK):
        part = slice(start, min(start + BLOCK, count))
        hits = nearest(x_ND[part], base_ND, k + 1, threads=threads)
        row_BK, half_square_BK = base[hits.row_QK], hits.distance_QK / 2
        half_square_BK[row_BK == np.arange(part.start, part.stop)[:, None]] = np.inf  # itself
        order_BK = np.argsort(half_square_BK, axis=1, kind="stable")[:, :k]
        half_square_BK = np.take_along_axis(half_square_BK, order_BK, 1)
        row_N[part] = np.take_along_axis(row_BK, order_BK[:, :1], 1)[:, 0]
        similarity_N[part], distance_N[part] = 1 - half_square_BK[:, 0], half_square_BK.mean(axis=1)
    return Neighbourhood(row_N=row_N, similarity_N=similarity_N, distance_N=distance_N)


def leaders(pair_P2: Rows, count: int) -> Rows:
    """The smallest row of every row's group of near-duplicates, directly or through others, (N,)."""
    edges = np.ones(len(pair_P2), dtype=bool)
    group_N = connected_components(coo_array((edges, tuple(pair_P2.T)), shape=(count, count)), directed=False)[1]
    first_G = np.unique(group_N, return_index=True)[1]
    return np.asarray(first_G[group_N], dtype=np.int64)


def whitened(x_ND: NDArray[np.float16], components: int) -> Floats:
    """The first principal components of the standardised rows, scaled to variance 1, then rows to length 1: (N, P).

    In pools of less than 8·P rows fewer components are taken, else the last ones would be what single rows are made of.
    """
    count, width = x_ND.shape
    mean_D, std_D = x_ND.mean(0, dtype=np.float64), x_ND.std(0, dtype=np.float64)
    scale_D = 1 / np.maximum(std_D, 1e-6)
    covariance_DD = np.zeros((width, width))
    for part in slabs(count, width):
        z_BD = ((x_ND[part] - mean_D) * scale_D).astype(np.float32)
        covariance_DD += z_BD.T @ z_BD
    variance_D, axis_DD = np.linalg.eigh(covariance_DD / count)
    count_P = min(components, width, max(8, count // 8), count - 1)
    turn_DP = (scale_D[:, None] * axis_DD[:, -count_P:] / np.sqrt(np.maximum(variance_D[-count_P:], 1e-9))).astype(
        np.float32
    )
    x_NP = np.empty((count, count_P), np.float32)
    for part in slabs(count, width):
        x_NP[part] = (x_ND[part] - mean_D).astype(np.float32) @ turn_DP
    return unit_rows(x_NP)


def _vectors(store: FeatureStore, state: int | None) -> tuple[list[str], NDArray[np.float16]]:
    """Ids sorted, and mean and standard deviation over time of one hidden state, (N, 2·width)."""
    state = store.num_layers if state is None else state
    if state > store.num_layers:
        raise OptionError(f"state must be 0 to {store.num_layers}, the hidden states of {store.encoder}, got {state}")
    ids, parts = list[str](), list[NDArray[np.float16]]()
    for shard in store.pool.shards:
        table = storage.read_table(store.table_uri("pooled", shard))
        shape = (table.num_rows, store.num_layers + 1, store.width)
        parts.append(np.concatenate([stack_vectors(table[name], shape)[:, state] for name in ("mean", "std")], axis=1))
        ids += table["utterance_id"].to_pylist()
    order = np.argsort(ids)
    return [ids[row] for row in order], np.concatenate(parts)[order]


def _pair_lines(ids: Sequence[str], x_ND: Floats, duration_N: NDArray[np.float64], pair_P2: Rows) -> Iterator[str]:
    """The most similar pairs, a line each."""
    cosine_P = np.einsum("pd,pd->p", x_ND[pair_P2[:, 0]], x_ND[pair_P2[:, 1]])
    for pair in np.argsort(-cosine_P, kind="stable")[:SHOWN]:
        first, second = pair_P2[pair].tolist()
        lengths = f"{duration_N[first]:.2f} s and {duration_N[second]:.2f} s"
        yield f"  {ids[first]}  {ids[second]}  {lengths}, cosine {cosine_P[pair]:.3f}"
    if len(pair_P2) > SHOWN:
        yield f"  and {len(pair_P2) - SHOWN} more"
