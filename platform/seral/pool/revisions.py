"""Revisions of a pool: a change becomes one when its manifest is created, after everything the manifest lists.

Only one writer can create the manifest of a number. Whoever comes second makes its change anew, of what is there now.
What follows, the journal and the newest manifest's copy at the top, is done by whoever writes next, if the writer dies.

Every revision leaves a journal of the utterances that came, went, or were marked as duplicates anew, so that any two
revisions can be compared although the shards in between are long gone.

POOL/revisions/<number>.json         the manifest of a revision; those of older ones go after KEPT_S
POOL/manifest.json                   that of the newest, or of one before it
POOL/revisions/<number>.parquet      schema.CHANGE: the journal of a revision
POOL/snapshots/<name>.json           the manifest of a revision that somebody named: its shards stay until it is dropped
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.fs as pafs

from seral import storage
from seral.errors import DamagedError, PoolError, StateError, StoreError
from seral.pool.exclusive import create
from seral.pool.shards import (
    EMPTY,
    FORMAT,
    ID_COLUMNS,
    MANIFEST,
    REVISIONS,
    SNAPSHOTS,
    TABLES,
    manifest_uri,
    next_manifest,
    pool_hash,
    read_manifest,
    shard_uri,
    snapshot_names,
    snapshot_uri,
    stored_manifest,
)
from seral.pool.tombstones import Erased, read_erased
from seral.schema import CHANGE, QUARANTINE, UTTERANCE

OBSOLETE = "obsolete"
"""Key of a manifest: shards that were written on the way to it, which it does not list."""
TRIES = 20
KEPT_S = 7 * 86_400.0
"""Age from which on shards that no manifest lists are waited for by nobody, in seconds."""


@dataclass(frozen=True, kw_only=True)
class Change:
    """A pool as its writer wants it."""

    entries: Mapping[str, Any]
    """Shard -> its entry in the manifest, of all shards."""
    written: Collection[str] = ()
    """Shards that were written on the way and may be none of the outcome: they are deleted then."""


def commit(pool: str, change: Callable[[dict[str, Any]], Change]) -> dict[str, Any]:
    """Make a change of the newest manifest the next revision, and delete what it made obsolete. Returns the manifest.

    `change` has the newest manifest, and is called again where another writer was faster; what it read may be gone by
    then. Raises what `change` raises, and StateError when others are faster for ever.
    """
    written = set[str]()
    for _ in range(TRIES):
        before = settle(pool)
        try:
            wanted = change(before)
            written |= set(wanted.written)
            manifest = _after(pool, before, wanted.entries, written)
        except (OSError, PoolError):
            if (read_manifest(pool) or EMPTY) == before:
                raise
            continue
        if manifest == before:
            sweep(pool, written)
            return manifest
        if not manifest["revision"]:  # a pool of nothing
            storage.write_json(storage.join(pool, MANIFEST), manifest)
            return manifest
        if stored_manifest(pool)["revision"] > before["revision"]:
            continue
        if create(manifest_uri(pool, manifest["revision"]), storage.json_bytes(manifest)):
            settle(pool)
            sweep(pool, written)
            return manifest
    raise StateError(f"others changed {pool} {TRIES} times meanwhile; run this again, it goes on from here")


def settle(pool: str) -> dict[str, Any]:
    """The newest manifest, EMPTY where there is none, after what its writer may have left to do."""
    manifest = stored_manifest(pool)
    while (after := next_manifest(pool, manifest)) is not None:
        journal = revision_uri(pool, after["revision"])
        try:
            if not storage.exists(journal):
                rows = read_erased(pool).without(_changes(pool, manifest, after))
                if not storage.exists(journal):  # else its writer has gone on, and its shards may have been gone
                    storage.write_table(journal, rows)
        except (OSError, DamagedError):  # its writer has gone on, and deleted what was obsolete
            if not storage.exists(journal):
                raise
        storage.write_json(storage.join(pool, MANIFEST), after)
        manifest = after
    return manifest


def _after(pool: str, before: dict[str, Any], entries: Mapping[str, Any], written: Collection[str]) -> dict[str, Any]:
    if entries == before["shards"] and before["revision"]:
        return before
    ids = [_ids(pool, [shard]) for shard in sorted(entries)]
    manifest = {
        "format": FORMAT,
        "revision": before["revision"] + int(entries != before["shards"]),
        "pool_hash": pool_hash(pa.concat_tables([_ids(pool, []), *ids])),
        "shards": dict(entries),
    }
    # If this writer dies, the next one deletes them.
    unlisted = sorted({*written} - entries.keys())
    return manifest | ({OBSOLETE: unlisted} if unlisted else {})


def _changes(pool: str, before: Mapping[str, Any], after: Mapping[str, Any]) -> pa.Table:
    new, gone = after["shards"].keys() - before["shards"].keys(), before["shards"].keys() - after["shards"].keys()
    return changes(_ids(pool, _readable(pool, gone)), _ids(pool, sorted(new)))


def _readable(pool: str, shards: Iterable[str]) -> Iterator[str]:
    """Shards whose utterances can be read: what was damaged and has left the pool stands in no journal."""
    for shard in sorted(shards):
        try:
            _ids(pool, [shard])
        except StoreError:  # says nothing of the shard
            raise
        except (OSError, PoolError):
            continue
        yield shard


def refuse_erased(pool: str, shards: Iterable[str], written_by: Erased) -> None:
    """Delete those of some shards that were written before something in them was erased from the pool.

    `written_by`: the tombstones there were then. Raises StateError if there was anything. For a `change`.
    """
    erased = read_erased(pool)
    if erased == written_by:
        return
    stale = [shard for shard in shards if holds(pool, shard, erased)]
    for shard in stale:
        drop_shard(pool, shard)
    if stale:
        raise StateError(f"something was erased from {pool} meanwhile; run this again, it goes on from here")


def drop_shard(pool: str, shard: str) -> None:
    """Delete the tables of a shard; `utterances` last, by which it is found again after a kill."""
    for table in reversed(TABLES):
        storage.remove(shard_uri(pool, table, shard))


def holds(pool: str, shard: str, erased: Erased) -> bool:
    """Whether an utterance or a quarantined file of a shard was erased, or a row refers to one."""
    columns = [field.name for field in UTTERANCE if pa.types.is_string(field.type) and field.name != "text"]
    rows = storage.read_table(shard_uri(pool, "utterances", shard), columns, schema=UTTERANCE)
    bad = storage.read_table(shard_uri(pool, "quarantine", shard), schema=QUARANTINE)
    return bool(erased.belongs(rows).any() or erased.references(rows) or erased.belongs(bad).any())


def changes(old: pa.Table, new: pa.Table) -> pa.Table:
    """Changes between two tables of shards.ID_COLUMNS (came, went, marked): schema.CHANGE, sorted by id."""
    stayed_new = pc.is_in(new["utterance_id"], old["utterance_id"].combine_chunks())
    stayed_old = pc.is_in(old["utterance_id"], new["utterance_id"].combine_chunks())
    marks = [
        pc.fill_null(table.filter(stayed).sort_by("utterance_id")["duplicate_of"], "")
        for table, stayed in ((old, stayed_old), (new, stayed_new))
    ]
    both = new.filter(stayed_new).sort_by("utterance_id")
    rows_of = {
        "came": new.filter(pc.invert(stayed_new)),
        "went": old.filter(pc.invert(stayed_old)),
        "marked": both.filter(pc.not_equal(*marks)),
    }
    parts = [
        pa.table({"utterance_id": rows["utterance_id"], "change": pa.repeat(change, rows.num_rows)})
        for change, rows in rows_of.items()
    ]
    return pa.concat_tables(parts).sort_by("utterance_id").cast(CHANGE)


def revision_uri(pool: str, revision: int) -> str:
    """Address of the journal of one revision."""
    return storage.join(pool, REVISIONS, f"{revision:06d}.parquet")


def shard_entry(rows: int, checksums: Mapping[str, storage.Checksum]) -> dict[str, Any]:
    """Entry of a shard in a manifest: its utterances, the bytes of their table, and the checksum of every table."""
    sums = {table: checksums[table].sha256 for table in sorted(checksums)}
    return {"rows": rows, "bytes": checksums["utterances"].size, "sha256": sums}


def read_entry(pool: str, shard: str) -> dict[str, Any]:
    """Entry in a manifest of a shard that is on storage, from its files."""
    checksums = {table: storage.checksum(shard_uri(pool, table, shard)) for table in TABLES}
    return shard_entry(storage.read_footer(shard_uri(pool, "utterances", shard)).num_rows, checksums)


def manifests(pool: str) -> dict[str, dict[str, Any]]:
    """The manifest and those of all snapshots, by address."""
    newest = {storage.join(pool, MANIFEST): read_manifest(pool) or EMPTY}
    uris = (snapshot_uri(pool, name) for name in snapshot_names(pool))
    return newest | {uri: storage.read_json(uri) for uri in uris}


def sweep(pool: str, obsolete: Collection[str] = ()) -> None:
    """Delete shards that are these, or of the revision before, or KEPT_S old, as far as no manifest lists them.

    What an import has written stays: it is under way, or waits for the same command again. Ages are those at the time
    of the newest manifest, all by the clock of the storage: that of this machine may have jumped.
    """
    manifest = read_manifest(pool) or EMPTY
    newest = manifest["revision"]
    listed = {shard for manifest in manifests(pool).values() for shard in manifest["shards"]}
    before, now_s = manifest_uri(pool, newest - 1), _written_s(storage.join(pool, MANIFEST))
    former = {
        *obsolete,
        *manifest.get(OBSOLETE, ()),
        *(storage.read_json(before)["shards"] if storage.exists(before) else ()),
    }
    for table in TABLES:
        folder = storage.join(pool, table)
        storage.tidy(folder)
        for name, written_s in _times(folder).items():
            shard = name.removesuffix(".parquet")
            if shard not in listed and (shard in former or 0 < written_s < now_s - KEPT_S):
                storage.remove(storage.join(folder, name))
    for record in (storage.join(pool, MANIFEST), storage.join(pool, REVISIONS), storage.join(pool, SNAPSHOTS)):
        storage.tidy(record)
    for name, written_s in _times(storage.join(pool, REVISIONS)).items():
        old = 0 < written_s < now_s - KEPT_S
        if old and name.endswith(".json") and int(name.removesuffix(".json")) < newest - 1:
            storage.remove(storage.join(pool, REVISIONS, name))


def _times(folder: str) -> dict[str, float]:
    """Names directly under a folder, and when each was written, by the storage's clock; 0 where it does not say."""
    fs, path = storage.resolve(folder)
    entries = fs.get_file_info(pafs.FileSelector(path, allow_not_found=True))
    return {entry.base_name: (entry.mtime_ns or 0) / 1e9 for entry in entries}


def _written_s(uri: str) -> float:
    fs, path = storage.resolve(uri)
    return (fs.get_file_info(path).mtime_ns or 0) / 1e9


def _ids(pool: str, shards: Iterable[str]) -> pa.Table:
    return storage.read_tables([shard_uri(pool, "utterances", name) for name in shards], UTTERANCE, ID_COLUMNS)
