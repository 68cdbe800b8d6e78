"""Clips out of a pool, one at a time, by id. Nothing else of a pool can be reached through here."""

# N utterances
from __future__ import annotations

from functools import lru_cache

import numpy as np

from seral import storage
from seral.errors import PoolError
from seral.pool.shards import Pool
from seral.schema import UTTERANCE
from seral.security.tables import open_parquet

BATCH_ROWS = 16
"""Rows decoded at a time on the way to the wanted one: a row group of audio is never in memory as a whole."""
CACHED = 256
"""Clips that are kept, newest first; most are heard a few times, by several people. About 25 MB of speech."""


class Sounds:
    """The location of the audio of each utterance. Holds the ids alone: about their length and eight bytes each."""

    def __init__(self, pool: Pool) -> None:
        ids: list[bytes] = []
        self._groups: list[tuple[str, int]] = []
        starts = []
        for shard in pool.shards:
            uri = pool.table_uri("utterances", shard)
            footer = storage.read_footer(uri)
            for group in range(footer.num_row_groups):
                starts.append(len(ids) + sum(footer.row_group(before).num_rows for before in range(group)))
                self._groups.append((uri, group))
            ids += [name.encode() for name in pool.read(shard, ["utterance_id"])["utterance_id"].to_pylist()]
        names = np.array(ids, dtype=np.bytes_)
        self._row_N = np.argsort(names)
        self._names_N = names[self._row_N]
        self._starts = np.array(starts)
        self.read = lru_cache(CACHED)(self._read)

    def __contains__(self, utterance_id: str) -> bool:
        return self._find(utterance_id) is not None

    def _find(self, utterance_id: str) -> int | None:
        name = utterance_id.encode()
        at = int(np.searchsorted(self._names_N, np.bytes_(name))) if len(self._names_N) else 0
        return int(self._row_N[at]) if at < len(self._names_N) and self._names_N[at] == name else None

    def _read(self, utterance_id: str) -> bytes:
        """The FLAC bytes of an utterance. Raises PoolError when the pool does not hold it, or its shard is gone."""
        row = self._find(utterance_id)
        if row is None:
            raise PoolError(f"the pool does not hold {utterance_id}")
        at = int(np.searchsorted(self._starts, row, side="right")) - 1
        uri, group = self._groups[at]
        return _read_row(uri, group, row - int(self._starts[at]))


def _read_row(uri: str, group: int, row: int) -> bytes:
    fs, path = storage.resolve(uri)
    try:
        with fs.open_input_file(path) as file:
            parts = open_parquet(file, uri, UTTERANCE).iter_batches(BATCH_ROWS, row_groups=[group], columns=["audio"])
            for number, part in enumerate(parts):
                if row < number * BATCH_ROWS + len(part):
                    return bytes(part["audio"][row - number * BATCH_ROWS].as_py())
    except OSError as error:
        raise PoolError(
            f"{uri} is gone or damaged: start the server again if the pool was changed ({error})"
        ) from error
    raise PoolError(f"{uri} has changed: start the server again")
