"""Moments of the features of many clips, in one pass over their shards."""

from __future__ import annotations

from collections.abc import Hashable, Mapping, Sequence
from typing import TypeVar

import numpy as np
import ray
import torch
from numpy.typing import NDArray

from ser_models.moments import PooledMoments
from seral.errors import FeatureError
from seral.features.index import ShardIndex
from seral.features.store import FeatureStore, PooledShard
from seral.progress import track

K = TypeVar("K", bound=Hashable)
LONG = 20_000
"""Clips whose moments take a while: progress is shown, and they are read by several processes."""


def pooled_moments(
    store: FeatureStore, index: ShardIndex, ids_of: Mapping[K, Sequence[str]], processes: int = 1
) -> dict[K, PooledMoments]:
    """The moments of several sets of clips that overlap, by name; shards are added up in their order.

    With `processes` above 1 a large pool is read by tasks of Ray, so many at a time. Raises FeatureError for a set
    without a clip.
    """
    processes = processes if len(index) > LONG else 1
    rows_of = {key: index.rows_by_shard(ids) for key, ids in ids_of.items()}
    if empty := [key for key, rows in rows_of.items() if not rows]:
        raise FeatureError(f"no clip of {empty[0]} has features")
    work = [{key: rows[shard] for key, rows in rows_of.items() if shard in rows} for shard in index.shards]
    shards = [shard for shard, rows in zip(index.shards, work, strict=True) if rows]
    work = [rows for rows in work if rows]
    parts = dict[K, list[PooledMoments]]()
    running = list[ray.ObjectRef]()
    shared = ray.put(store) if processes > 1 else None
    with track("moments of the features" if len(index) > LONG else None, len(shards)) as advance:
        for number, shard in enumerate(shards):
            if processes == 1:
                done = _of_shard(store, shard, work[number])
            else:
                for ahead in range(number + len(running), min(number + 2 * processes, len(shards))):
                    running.append(_task.remote(shared, shards[ahead], work[ahead]))
                done = ray.get(running.pop(0))
            for key, moments in done.items():
                parts.setdefault(key, []).append(moments)
            if len(next(iter(parts.values()))) > 2 * processes:
                parts = {key: [PooledMoments.sum(own)] for key, own in parts.items()}
            advance(1)
    return {key: PooledMoments.sum(own) for key, own in parts.items()}


def _of_shard(store: FeatureStore, shard: str, rows_of: Mapping[K, NDArray[np.int32]]) -> dict[K, PooledMoments]:
    """Moments of some sets of rows of a shard."""
    every = np.unique(np.concatenate(list(rows_of.values())))
    parts: dict[K, list[PooledMoments]] = {key: [] for key in rows_of}
    for chosen in store.pieces(every):
        part = store.read_shard(shard, chosen)
        for key, rows in rows_of.items():
            parts[key].append(_moments(part, np.isin(chosen, rows)))
    return {key: PooledMoments.sum(own) for key, own in parts.items()}


def _moments(part: PooledShard, keep_N: NDArray[np.bool_]) -> PooledMoments:
    whole = bool(keep_N.all())
    mean, std = (torch.from_numpy(array if whole else array[keep_N]) for array in (part.mean_NLD, part.std_NLD))
    return PooledMoments.of(mean, std, None if part.text_NE is None else torch.from_numpy(part.text_NE[keep_N]))


def _in_task(store: FeatureStore, shard: str, rows_of: Mapping[K, NDArray[np.int32]]) -> dict[K, PooledMoments]:
    torch.set_num_threads(1)
    return _of_shard(store, shard, rows_of)


_task = ray.remote(_in_task)
