"""Clips out of a pool, one at a time, by id. Nothing else of a pool can be reached through here."""

# N utterances
from __future__ import annotations

from dataclasses import dataclass, replace
from functools import lru_cache
from threading import Lock

import numpy as np
import pyarrow.fs as pafs
from numpy.typing import NDArray

from seral import storage
from seral.errors import PoolError
from seral.pool.shards import MANIFEST, Pool, manifest_uri, open_pool, snapshot_uri, split_address
from seral.pool.tombstones import FOLDER, Erased, read_erased
from seral.schema import UTTERANCE
from seral.security.tables import open_parquet

BATCH_ROWS = 16
"""Rows decoded at a time on the way to the wanted one: a row group of audio is never in memory as a whole."""
CACHED = 256
"""Clips that are kept, newest first; most are heard a few times, by several people. About 25 MB of speech."""


@dataclass(frozen=True, kw_only=True)
class _Index:
    """Ids in their order, the row of each, and the row groups with the rows that they begin at."""

    names_N: NDArray[np.bytes_]
    row_N: NDArray[np.int64]
    groups: list[tuple[str, int]]
    starts: NDArray[np.int64]
    erased: Erased

    @staticmethod
    def of(pool: Pool) -> _Index:
        ids, groups, starts = list[bytes](), list[tuple[str, int]](), list[int]()
        for shard in pool.shards:
            uri = pool.table_uri("utterances", shard)
            footer = storage.read_footer(uri)
            for group in range(footer.num_row_groups):
                starts.append(len(ids) + sum(footer.row_group(before).num_rows for before in range(group)))
                groups.append((uri, group))
            ids += [name.encode() for name in pool.read(shard, ["utterance_id"])["utterance_id"].to_pylist()]
        names = np.array(ids, dtype=np.bytes_)
        row_N, erased = np.argsort(names), read_erased(pool.uri)
        return _Index(names_N=names[row_N], row_N=row_N, groups=groups, starts=np.array(starts), erased=erased)

    def find(self, utterance_id: str) -> int | None:
        """The row of an utterance that is there."""
        name = utterance_id.encode()
        at = int(np.searchsorted(self.names_N, np.bytes_(name))) if len(self.names_N) else 0
        is_there = at < len(self.names_N) and self.names_N[at] == name
        return int(self.row_N[at]) if is_there and not self.erased.knows("utterance", utterance_id) else None


class Sounds:
    """The location of the audio of each utterance. Holds the ids alone: about their length and eight bytes each.

    A change of the pool, or of the snapshot that an address names, is noticed at once, and all is looked up anew.
    """

    def __init__(self, address: str) -> None:
        self._address, self._lock = address, Lock()
        self._where, self._snapshot = split_address(address)
        self._cached = lru_cache(CACHED)(self._read)
        self._look_up()

    def __contains__(self, utterance_id: str) -> bool:
        self._refresh()
        return self._index.find(utterance_id) is not None

    def read(self, utterance_id: str) -> bytes:
        """The FLAC bytes of an utterance. Raises PoolError when the pool does not hold it, or its shard is gone."""
        if utterance_id not in self:
            raise PoolError(f"the pool does not hold {utterance_id}")
        try:
            return self._cached(utterance_id)
        except PoolError:
            if not self._refresh():
                raise
        return self._cached(utterance_id)

    def _look_up(self) -> None:
        pool = open_pool(self._address)
        self._revision = int(pool.manifest.get("revision", 0))
        self._files = self._now()
        self._index = _Index.of(pool)
        self._cached.cache_clear()

    def _refresh(self) -> bool:
        """Look the pool up anew if it has changed, and say whether."""
        if self._now() == self._files:
            return False
        with self._lock:
            # Refused from now on, whatever comes of the rest.
            self._index = replace(self._index, erased=read_erased(self._where))
            if self._now() != self._files:
                self._look_up()
        return True

    def _now(self) -> list[tuple[str, int, int]]:
        """Names, times and sizes of the files that are others, or more, after a change."""
        fs, path = storage.resolve(storage.join(self._where, FOLDER))
        tombstones = fs.get_file_info(pafs.FileSelector(path, allow_not_found=True))
        uris = [storage.join(self._where, MANIFEST), manifest_uri(self._where, self._revision + 1)]
        uris = uris if self._snapshot is None else [snapshot_uri(self._where, self._snapshot)]
        manifests = fs.get_file_info([storage.resolve(uri)[1] for uri in uris])
        return sorted((entry.path, entry.mtime_ns or 0, entry.size or 0) for entry in (*tombstones, *manifests))

    def _read(self, utterance_id: str) -> bytes:
        index = self._index
        row = index.find(utterance_id)
        if row is None:
            raise PoolError(f"the pool does not hold {utterance_id}")
        at = int(np.searchsorted(index.starts, row, side="right")) - 1
        uri, group = index.groups[at]
        return _read_row(uri, group, row - int(index.starts[at]))


def _read_row(uri: str, group: int, row: int) -> bytes:
    fs, path = storage.resolve(uri)
    try:
        with fs.open_input_file(path) as file:
            parts = open_parquet(file, uri, UTTERANCE).iter_batches(BATCH_ROWS, row_groups=[group], columns=["audio"])
            for number, part in enumerate(parts):
                if row < number * BATCH_ROWS + len(part):
                    return bytes(part["audio"][row - number * BATCH_ROWS].as_py())
    except OSError as error:
        raise PoolError(f"{uri} is gone or damaged: seral pool check tells ({error})") from error
    raise PoolError(f"{uri} has other rows than its footer says")
