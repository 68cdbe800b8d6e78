"""Revisions of a pool: a change becomes one when its manifest is put in place, after everything the manifest lists.

Every revision leaves a journal of the utterances that came, went, or were marked as duplicates anew, so that any two
revisions can be compared although the shards in between are long gone.

POOL/manifest.json                   the newest revision
POOL/revisions/<number>.parquet      schema.CHANGE: the journal of a revision
POOL/snapshots/<name>.json           the manifest of a revision that somebody named: its shards stay until it is dropped
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc

from seral import storage
from seral.errors import StateError
from seral.pool.shards import (
    FORMAT,
    ID_COLUMNS,
    MANIFEST,
    TABLES,
    pool_hash,
    read_manifest,
    shard_uri,
    snapshot_names,
    snapshot_uri,
)
from seral.pool.tombstones import read_erased
from seral.schema import CHANGE, UTTERANCE

EMPTY: dict[str, Any] = {"format": FORMAT, "revision": 0, "shards": {}}
"""The manifest of a pool that is not there yet."""
REVISIONS = "revisions"


def commit(pool: str, before: Mapping[str, Any], entries: Mapping[str, Any]) -> dict[str, Any]:
    """Make these shards the newest revision after `before`, and delete what no manifest lists. Returns the manifest.

    Raises StateError when another revision came meanwhile.
    """
    current = read_manifest(pool)
    if (current or EMPTY)["revision"] != before["revision"]:
        raise StateError(f"something else changed {pool} meanwhile; run this again, it goes on from here")
    new, gone = sorted(entries.keys() - before["shards"].keys()), sorted(before["shards"].keys() - entries.keys())
    new_ids, stayed_ids = _ids(pool, new), _ids(pool, entries.keys() - set(new))
    manifest = {
        "format": FORMAT,
        "revision": before["revision"] + int(entries != before["shards"]),
        "pool_hash": pool_hash(pa.concat_tables([new_ids, stayed_ids])),
        "shards": dict(entries),
    }
    if manifest != current:
        journal = changes(_ids(pool, gone), new_ids)
        storage.write_table(revision_uri(pool, manifest["revision"]), read_erased(pool).without(journal))
        storage.write_json(storage.join(pool, MANIFEST), manifest)
    sweep(pool)
    return manifest


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
    uris = [storage.join(pool, MANIFEST), *(snapshot_uri(pool, name) for name in snapshot_names(pool))]
    return {uri: storage.read_json(uri) for uri in uris}


def sweep(pool: str) -> None:
    """Delete what no manifest lists: chunks of an abandoned import, shards that were rewritten, half-written files."""
    listed = {shard for manifest in manifests(pool).values() for shard in manifest["shards"]}
    for table in TABLES:
        for name in storage.list_names(storage.join(pool, table)):
            if name.removesuffix(".parquet") not in listed:
                storage.remove(storage.join(pool, table, name))


def _ids(pool: str, shards: Iterable[str]) -> pa.Table:
    return storage.read_tables([shard_uri(pool, "utterances", name) for name in shards], UTTERANCE, ID_COLUMNS)
