"""The shard and the row of every utterance: the one thing that is in memory of each row of a pool."""

# N utterances
from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass
from itertools import pairwise

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from seral import storage
from seral.errors import FeatureError
from seral.pool.ids import Ids, one_array, positions

NAMED = 5
"""Utterances without features that a message names."""


@dataclass(frozen=True, kw_only=True)
class ShardIndex:
    """Shard and row of each utterance, in the order of the ids: some 40 bytes each."""

    ids: pa.Array
    """(N,) strings, sorted."""
    shard_N: NDArray[np.int32]
    """Index of its shard in `shards`."""
    row_N: NDArray[np.int32]
    shards: Sequence[str]

    @staticmethod
    def of_files(shards: Sequence[str], uris: Sequence[str]) -> ShardIndex:
        """The index of tables with a column `utterance_id`, one a shard."""
        columns = [one_array(storage.read_table(uri, ["utterance_id"])["utterance_id"]) for uri in uris]
        counts = [len(column) for column in columns]
        ids = pa.concat_arrays(columns) if columns else pa.array([], pa.string())
        del columns
        storage.release_memory()
        order = pc.sort_indices(ids)
        ids = ids.take(order)
        storage.release_memory()
        shard_N = np.repeat(np.arange(len(shards), dtype=np.int32), counts)[order]
        row_N = np.concatenate([np.empty(0, np.int32), *(np.arange(count, dtype=np.int32) for count in counts)])[order]
        del order
        storage.release_memory()
        return ShardIndex(ids=ids, shard_N=shard_N, row_N=row_N, shards=tuple(shards))

    def __len__(self) -> int:
        return len(self.ids)

    def names(self) -> list[str]:
        """All ids, sorted."""
        names: list[str] = self.ids.to_pylist()
        return names

    def positions(self, ids: Collection[str]) -> NDArray[np.int64]:
        """Positions of some ids; -1 for those that are not there."""
        return positions(pa.array(Ids(ids)), self.ids)

    def present(self, ids: Sequence[str]) -> tuple[str, ...]:
        """The ids that are there, of some, in their order."""
        return tuple(name for name, at in zip(ids, self.positions(ids).tolist(), strict=True) if at >= 0)

    def rows(self, ids: Sequence[str]) -> NDArray[np.int64]:
        """Positions of some ids. Raises FeatureError that names those that are not there."""
        position = self.positions(ids)
        if (position < 0).any():
            absent = [ids[int(at)] for at in np.flatnonzero(position < 0)]
            raise FeatureError(f"{len(absent)} utterances have no features, e.g. {', '.join(absent[:NAMED])}")
        return position

    def rows_by_shard(self, ids: Collection[str]) -> dict[str, NDArray[np.int32]]:
        """Shard -> ascending rows of those of the ids that are there, in the order of the shards."""
        position = self.positions(ids)
        if (position < 0).any():
            position = position[position >= 0]
        shard_row = self.shard_N[position].astype(np.int64)
        shard_row <<= 32
        shard_row |= self.row_N[position]
        del position
        shard_row.sort()
        starts = np.searchsorted(shard_row, np.arange(len(self.shards) + 1) << 32)
        row = shard_row.astype(np.int32)  # the lower half
        spans = zip(self.shards, pairwise(starts.tolist()), strict=True)
        return {shard: row[start:end] for shard, (start, end) in spans if end > start}
