"""The shard and the row of every utterance: the one thing that is in memory of each row of a pool."""

# N utterances
from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from seral import storage
from seral.errors import FeatureError
from seral.pool.ids import Ids, positions

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
        columns = [storage.read_table(uri, ["utterance_id"])["utterance_id"].combine_chunks() for uri in uris]
        counts = [len(column) for column in columns]
        ids = pa.concat_arrays(columns) if columns else pa.array([], pa.string())
        order = pc.sort_indices(ids)
        at_N = order.to_numpy()
        starts = np.cumsum([0, *counts])[:-1]
        shard_N = np.repeat(np.arange(len(shards), dtype=np.int32), counts)[at_N]
        row_N = (at_N - starts[shard_N]).astype(np.int32) if len(at_N) else np.empty(0, np.int32)
        index = ShardIndex(ids=ids.take(order), shard_N=shard_N, row_N=row_N, shards=tuple(shards))
        del ids, order, at_N, columns
        storage.release_memory()
        return index

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
        position = position[position >= 0]
        shard, row = self.shard_N[position], self.row_N[position]
        order = np.lexsort((row, shard))
        present, starts = np.unique(shard[order], return_index=True)
        parts = np.split(row[order], starts[1:]) if len(present) else []
        return {self.shards[int(number)]: rows for number, rows in zip(present, parts, strict=True)}
