"""The clips of a pool as files, for tools that cannot look into one."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

from seral import storage
from seral.errors import PoolError
from seral.pool.derivations import RECORD, note_derivation
from seral.pool.shards import Pool


def write_clips(pool: Pool, ids: Iterable[str], folder: Path) -> int:
    """Write `<id>.flac` for each utterance, a shard at a time; returns how many. Raises PoolError for unknown ids."""
    wanted = set(ids)
    if unknown := wanted - set(pool.ids["utterance_id"].to_pylist()):
        raise PoolError(f"{pool.uri} does not hold {len(unknown)} of the utterances, e.g. {min(unknown)}")
    note_derivation(pool.uri, folder, "clips")
    storage.write_json(storage.join(folder, RECORD), {"pool": pool.uri, "pool_hash": pool.hash})
    for name, audio in pool.clips(wanted):
        storage.write_bytes(folder / f"{name}.flac", audio)
    return len(wanted)
