"""Near-duplicates in a pool, and how far each utterance lies from all others, by the features of an encoder.

POOL/screen/<fingerprint>.parquet   schema.SCREEN, one row an utterance with features

Two utterances are near-duplicates when their vectors point the same way and their durations agree: the same recording
in another codec, at another level, or cut a little differently. A vector is the mean and the standard deviation over
time of one hidden state, whitened: the first principal components of the pool, each scaled to variance 1. Without that,
all that one speaker says looks alike. Noise, telephone bands and cuts of more than a tenth of a second hide a copy.

Up to `exact_rows` rows the search is exact: rows in order of duration, each block against those whose durations can
match. Above, an index is asked that misses next to nothing (`seral.vectors.index.likely_within`), and so many rows,
drawn at random, are what the whitening is learnt on and what distances to the pool are taken to. The features are read
once, or twice above the limit. Memory is that of the drawn vectors in fp16, of `components` fp32 numbers a row, and for
the index of as many in fp16: 0.9 GB for 10^6 utterances and an encoder of width 192. The order of shards plays no part.
"""

# N rows · M clips drawn · D features · P pairs or principal directions · K neighbours
from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray
from scipy.sparse import coo_array
from scipy.sparse.csgraph import connected_components

from seral import storage
from seral.errors import FeatureError, OptionError
from seral.features.audio import extract_features
from seral.features.options import ScreenOptions
from seral.features.store import FeatureStore, stack_vectors
from seral.pool.screened import FOLDER
from seral.pool.shards import Pool, open_pool
from seral.schema import SCREEN, UTTERANCE
from seral.vectors.index import likely_within, nearest, within
from seral.vectors.view import slabs, unit_rows

Floats = NDArray[np.float32]
Rows = NDArray[np.int64]

BLOCK = 4096
"""Rows that are looked up at a time."""
SHOWN = 20
COLUMNS = 64
"""Features whose mean and standard deviation are taken at a time: all of them would be four times as large in fp64."""
MOST_PAIRS = 2_000_000
"""Pairs in memory: ten thousand copies of one recording are fifty million."""
ID = "utterance_id"


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
    ids, x_ND = _vectors(store, options)
    duration_N = _durations(pool, ids)
    pairs = near_duplicates(
        x_ND, duration_N, options.similarity, options.duration_tolerance, options.exact_rows, options.threads
    )
    near = neighbourhood(x_ND, options.neighbours, options.exact_rows, options.threads)
    leader_N = leaders(pairs.pair_P2, len(ids))
    is_copy = leader_N != np.arange(len(ids))
    table = pa.table(
        {
            "utterance_id": ids,
            "near_duplicate_of": ids.take(pa.array(leader_N, mask=~is_copy)),
            "nearest_id": ids.take(pa.array(near.row_N)),
            "similarity": near.similarity_N,
            "distance": near.distance_N,
        },
        schema=SCREEN,
    )
    uri = storage.join(pool.uri, FOLDER, f"{store.fingerprint}.parquet")
    with pool.publishing(lambda: [uri]):
        storage.write_table(uri, table)
    farthest = [f"{ids[row]} ({near.distance_N[row]:.2f})" for row in np.argsort(-near.distance_N)[:5].tolist()]
    return "\n".join(
        [
            f"near-duplicates among {len(ids)} utterances: {'' if pairs.complete else 'more than '}{pairs.count} pairs",
            *_pair_lines(ids, x_ND, duration_N, pairs),
            f"farthest from all others: {', '.join(farthest)}",
            f"table: {uri}",
        ]
    )


@dataclass(frozen=True, kw_only=True)
class NearDuplicates:
    """Pairs of near-duplicates."""

    pair_P2: Rows
    """Each once and sorted. Of more than MOST_PAIRS only the most similar, and what connects the groups."""
    count: int
    complete: bool
    """Whether that is all of them."""


def near_duplicates(
    x_ND: Floats,
    duration_N: NDArray[np.float64],
    similarity: float,
    tolerance: float,
    exact_rows: int,
    threads: int = 1,
) -> NearDuplicates:
    """Pairs of rows with at least this cosine and durations within the tolerance; x of length 1."""
    radius = float(np.sqrt(2 - 2 * similarity))
    if len(x_ND) <= exact_rows:
        blocks = _near_in_time(x_ND, duration_N, radius, tolerance, threads)
    else:
        blocks = likely_within(x_ND, radius, threads=threads)
    pairs = NearDuplicates(pair_P2=np.empty((0, 2), np.int64), count=0, complete=True)
    waiting: list[Rows] = []
    for pair_P2 in blocks:
        low_P, high_P = np.sort(duration_N[pair_P2], axis=1).T
        waiting.append(pair_P2[high_P <= low_P * (1 + tolerance)])
        if sum(map(len, waiting)) > MOST_PAIRS:
            pairs, waiting = _joined(pairs, waiting, x_ND), []
    return _joined(pairs, waiting, x_ND)


def _joined(pairs: NearDuplicates, further: Sequence[Rows], x_ND: Floats) -> NearDuplicates:
    """Pairs with further ones, each once; where they are too many, the most similar and what connects the groups."""
    pair_P2 = _once(np.concatenate([pairs.pair_P2, *further]), len(x_ND))
    joined = NearDuplicates(pair_P2=pair_P2, count=max(pairs.count, len(pair_P2)), complete=pairs.complete)
    if len(pair_P2) <= MOST_PAIRS:
        return joined
    leader_N = leaders(pair_P2, len(x_ND))
    copies = np.flatnonzero(leader_N != np.arange(len(x_ND)))
    most_similar = pair_P2[np.argsort(-_cosines(x_ND, pair_P2), kind="stable")[:SHOWN]]
    connecting = np.stack([leader_N[copies], copies], axis=1)
    pair_P2 = _once(np.concatenate([most_similar, connecting]), len(x_ND))
    return replace(joined, pair_P2=pair_P2, complete=False)


def _once(pair_P2: Rows, count: int) -> Rows:
    """Pairs sorted, each once."""
    return np.stack(np.divmod(np.unique(pair_P2[:, 0] * count + pair_P2[:, 1]), count), axis=1)


def _near_in_time(
    x_ND: Floats, duration_N: NDArray[np.float64], radius: float, tolerance: float, threads: int
) -> Iterator[Rows]:
    """Pairs of rows within `radius` whose durations may match, (P, 2), the smaller row first."""
    order = np.argsort(duration_N, kind="stable")
    sorted_N = duration_N[order]
    for start in range(0, len(order), BLOCK):
        block = order[start : start + BLOCK]
        longest = sorted_N[start : start + BLOCK][-1] * (1 + tolerance)
        base = order[start : np.searchsorted(sorted_N, longest, side="right")]
        first, second = within(x_ND[block], x_ND[base], radius, threads=threads).nonzero()
        yield np.sort(np.stack([block[first], base[second]], axis=1)[first < second], axis=1)


def neighbourhood(x_ND: Floats, neighbours: int, exact_rows: int, threads: int = 1) -> Neighbourhood:
    """Every row among the others, or among `exact_rows` of them when there are more; x of length 1."""
    count = len(x_ND)
    base = _drawn(count, exact_rows)
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


@dataclass(frozen=True, kw_only=True)
class Whitening:
    """Principal components of standardised rows, each scaled to variance 1."""

    mean_D: NDArray[np.float64]
    turn_DP: Floats

    def __call__(self, x_ND: NDArray[np.float16]) -> Floats:
        """The components of rows, which are scaled to length 1: (N, P)."""
        x_NP = np.empty((len(x_ND), self.turn_DP.shape[1]), np.float32)
        for part in slabs(*x_ND.shape):
            x_NP[part] = unit_rows((x_ND[part] - self.mean_D).astype(np.float32) @ self.turn_DP)
        return x_NP


def fit_whitening(x_MD: NDArray[np.float16], components: int) -> Whitening:
    """The first principal components of some rows.

    Of less than 8·P rows fewer components are taken, else the last ones would be what single rows are made of.
    """
    count, width = x_MD.shape
    columns = [x_MD[:, start : start + COLUMNS] for start in range(0, width, COLUMNS)]
    mean_D, std_D = (
        np.concatenate([of(column, axis=0, dtype=np.float64) for column in columns]) for of in (np.mean, np.std)
    )
    scale_D = 1 / np.maximum(std_D, 1e-6)
    covariance_DD = np.zeros((width, width))
    for part in slabs(count, width):
        z_BD = ((x_MD[part] - mean_D) * scale_D).astype(np.float32)
        covariance_DD += z_BD.T @ z_BD
    variance_D, axis_DD = np.linalg.eigh(covariance_DD / count)
    count_P = min(components, width, max(8, count // 8), count - 1)
    turn_DP = scale_D[:, None] * axis_DD[:, -count_P:] / np.sqrt(np.maximum(variance_D[-count_P:], 1e-9))
    return Whitening(mean_D=mean_D, turn_DP=turn_DP.astype(np.float32))


def _vectors(store: FeatureStore, options: ScreenOptions) -> tuple[pa.Array, Floats]:
    """Ids sorted, and of each the whitened mean and standard deviation over time of one hidden state, (N, P)."""
    state = store.num_layers if options.state is None else options.state
    if state > store.num_layers:
        raise OptionError(f"state must be 0 to {store.num_layers}, the hidden states of {store.encoder}, got {state}")
    ids = storage.read_tables([store.table_uri("pooled", shard) for shard in store.shards], UTTERANCE, [ID])[ID]
    if len(ids) < 3:
        raise FeatureError(f"{store.pool.uri} has {len(ids)} utterances with features: there is nothing to compare")
    order_N = np.asarray(pc.sort_indices(ids)).astype(np.int64)
    rank_N = np.empty(len(ids), np.int64)
    rank_N[order_N] = np.arange(len(ids))
    drawn_M = _drawn(len(ids), options.exact_rows)
    slot_N = np.full(len(ids), -1)
    slot_N[drawn_M] = np.arange(len(drawn_M))
    x_MD = np.empty((len(drawn_M), 2 * store.width), np.float16)
    for row_B, x_BD in _slabs_of(store, state, rank_N):
        is_drawn_B = slot_N[row_B] >= 0
        x_MD[slot_N[row_B[is_drawn_B]]] = x_BD[is_drawn_B]
    whitening = fit_whitening(x_MD, options.components)
    sorted_ids = ids.combine_chunks().take(pa.array(order_N))
    if len(drawn_M) == len(ids):
        return sorted_ids, whitening(x_MD)
    x_NP = np.empty((len(ids), whitening.turn_DP.shape[1]), np.float32)
    # A product's rounding may depend on how many rows there are, and that on the shards: so there are always as many.
    slab_BD = np.zeros_like(x_MD, shape=(next(slabs(len(ids), x_MD.shape[1])).stop, x_MD.shape[1]))
    for row_B, x_BD in _slabs_of(store, state, rank_N):
        slab_BD[: len(x_BD)] = x_BD
        x_NP[row_B] = whitening(slab_BD)[: len(x_BD)]
    return sorted_ids, x_NP


def _slabs_of(store: FeatureStore, state: int, rank_N: Rows) -> Iterator[tuple[Rows, NDArray[np.float16]]]:
    """Ranks of rows in the order of ids, (B,), and the vectors of one hidden state, (B, 2·width), shard after shard."""
    rows = next(slabs(len(rank_N), 2 * store.width)).stop
    start = 0
    for shard in store.shards:
        for table in storage.read_batches(store.table_uri("pooled", shard), ["mean", "std"], rows=rows):
            shape = (table.num_rows, store.num_layers + 1, store.width)
            vectors = [stack_vectors(table[name], shape)[:, state] for name in ("mean", "std")]
            yield rank_N[start : start + table.num_rows], np.concatenate(vectors, axis=1)
            start += table.num_rows


def _drawn(count: int, limit: int) -> Rows:
    """All rows, or so many of them drawn at random, in order."""
    if count <= limit:
        return np.arange(count)
    return np.sort(np.random.default_rng(0).choice(count, limit, replace=False))


def _durations(pool: Pool, ids: pa.Array) -> NDArray[np.float64]:
    """Durations of some utterances in seconds, (N,)."""
    uris = [pool.table_uri("utterances", shard) for shard in pool.shards]
    table = storage.read_tables(uris, UTTERANCE, [ID, "duration_s"]).combine_chunks()
    rows = pc.index_in(ids, value_set=table[ID].combine_chunks())
    return np.asarray(table["duration_s"].combine_chunks().take(rows), dtype=np.float64)


def _cosines(x_ND: Floats, pair_P2: Rows) -> Floats:
    """Cosine of the rows of every pair, (P,)."""
    parts = [pair_P2[part] for part in slabs(len(pair_P2), x_ND.shape[1])]
    return np.concatenate(
        [np.einsum("pd,pd->p", x_ND[p[:, 0]], x_ND[p[:, 1]]) for p in parts] or [np.empty(0, np.float32)]
    )


def _pair_lines(ids: pa.Array, x_ND: Floats, duration_N: NDArray[np.float64], pairs: NearDuplicates) -> Iterator[str]:
    """The most similar pairs, a line each."""
    cosine_P = _cosines(x_ND, pairs.pair_P2)
    for pair in np.argsort(-cosine_P, kind="stable")[:SHOWN]:
        first, second = pairs.pair_P2[pair].tolist()
        lengths = f"{duration_N[first]:.2f} s and {duration_N[second]:.2f} s"
        yield f"  {ids[first]}  {ids[second]}  {lengths}, cosine {cosine_P[pair]:.3f}"
    if pairs.count > SHOWN:
        yield f"  and {pairs.count - SHOWN} more"
