"""Snapshots: revisions that somebody named, which stay readable until the name is dropped; and what differs.

A snapshot is the manifest of its revision, kept under POOL/snapshots/. Its shards stay, so it costs nothing at first
and later the size of what the pool has changed since. `POOL@NAME` is its address wherever a pool is only read.
"""

from __future__ import annotations

import re
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from seral import storage
from seral.errors import OptionError, PoolError, StateError
from seral.pool.revisions import changes, revision_uri, sweep
from seral.pool.shards import SNAPSHOTS, open_pool, snapshot_names, snapshot_uri
from seral.schema import CHANGE

NAME = re.compile(r"[A-Za-z][A-Za-z0-9._-]*")
"""Valid names of snapshots: no number, which is a revision."""
EXAMPLES = 5


def take_snapshot(pool: str, name: str) -> dict[str, Any]:
    """Name the newest revision of a pool; returns what it holds. Raises StateError when the name is taken."""
    if not NAME.fullmatch(name):
        raise OptionError(f"a snapshot's name is letters, digits, `.`, `_` and `-`, a letter first; got {name!r}")
    newest = open_pool(pool)
    uri = snapshot_uri(newest.uri, name)
    if storage.exists(uri) and storage.read_json(uri) != newest.manifest:
        raise StateError(f"{pool} has another snapshot {name!r}: drop it, or take another name")
    storage.write_json(uri, newest.manifest)
    while (now := open_pool(pool)).manifest != newest.manifest:  # whose shards may be gone before they were named
        newest = now
        storage.write_json(uri, newest.manifest)
    storage.tidy(storage.join(newest.uri, SNAPSHOTS))
    return {"address": f"{newest.uri}@{name}", "revision": newest.manifest["revision"], "utterances": newest.rows}


def drop_snapshot(pool: str, name: str) -> None:
    """Forget a snapshot and delete the shards that nothing else lists."""
    snapshot = open_pool(f"{pool}@{name}")
    storage.remove(snapshot_uri(snapshot.uri, name))
    sweep(snapshot.uri, snapshot.shards)


def list_snapshots(pool: str) -> list[dict[str, Any]]:
    """Name, revision, utterances and hash of every snapshot."""
    snapshots = {name: open_pool(f"{pool}@{name}") for name in snapshot_names(open_pool(pool).uri)}
    return [
        {
            "name": name,
            "revision": snapshot.manifest["revision"],
            "utterances": snapshot.rows,
            "pool_hash": snapshot.hash,
        }
        for name, snapshot in snapshots.items()
    ]


def diff_revisions(pool: str, old: str, new: str | None = None) -> pa.Table:
    """Changes (came, went, marked) from one revision of a pool to another, schema.CHANGE sorted by id.

    A revision is its number, or a snapshot's name; `new` None is the newest. What was erased stands in no journal, so
    it is in no difference either.
    """
    uri = open_pool(pool).uri
    begin, end = _revision(uri, old), _revision(uri, new)
    journals = [_journal(uri, number) for number in range(min(begin, end) + 1, max(begin, end) + 1)]
    return _net(pa.concat_tables([CHANGE.empty_table(), *journals]), backwards=begin > end)


def _net(journal: pa.Table, *, backwards: bool) -> pa.Table:
    """Changes one after another as one of every id: what was there before the first and is there after the last."""
    journal = journal.take(pc.sort_indices(journal["utterance_id"]))  # stable: those of an id stay in their order
    ids = journal["utterance_id"].combine_chunks()
    is_other = np.asarray(pc.not_equal(ids[1:], ids[:-1]), dtype=bool)
    first = np.flatnonzero(np.concatenate([np.ones(min(len(ids), 1), dtype=bool), is_other]))
    last = np.append(first[1:], len(ids))[: len(first)] - 1
    was_there = np.asarray(pc.not_equal(journal["change"].take(pa.array(first)), "came"), dtype=bool)
    is_there = np.asarray(pc.not_equal(journal["change"].take(pa.array(last)), "went"), dtype=bool)
    if backwards:
        was_there, is_there = is_there, was_there
    change = np.where(is_there, np.where(was_there, "marked", "came"), "went")
    table = pa.table({"utterance_id": ids.take(pa.array(first)), "change": pa.array(change, pa.string())}, CHANGE)
    return table.filter(pa.array(was_there | is_there))


def diff_pools(old: str, new: str) -> pa.Table:
    """Changes (came, went, marked) from one pool to another, either of which may be a snapshot, schema.CHANGE."""
    return changes(open_pool(old).ids, open_pool(new).ids)


def summarise(difference: pa.Table) -> dict[str, Any]:
    """Counts of a difference, the same by corpus, and some ids of each kind."""
    counts: dict[str, Any] = {}
    for change in ("came", "went", "marked"):
        ids = difference.filter(pc.equal(difference["change"], change))["utterance_id"]
        corpora = pc.value_counts(pc.replace_substring_regex(ids, "(^|-)[^-]*$", "")).to_pylist()
        counts[change] = len(ids)
        counts |= {f"{change}.{line['values']}": line["counts"] for line in sorted(corpora, key=lambda c: c["values"])}
        counts |= {f"{change}.such_as": ids[:EXAMPLES].to_pylist()} if len(ids) else {}
    return counts


def _revision(uri: str, revision: str | None) -> int:
    newest = int(open_pool(uri).manifest["revision"])
    if revision is None:
        return newest
    if not revision.isdecimal():
        return int(open_pool(f"{uri}@{revision}").manifest["revision"])
    if int(revision) > newest:
        raise PoolError(f"{uri} has no revision {revision} yet: the newest is {newest}")
    return int(revision)


def _journal(uri: str, number: int) -> pa.Table:
    path = revision_uri(uri, number)
    if not storage.exists(path):
        raise PoolError(f"{uri} has no journal of its revision {number}: differences can be told after it only")
    return storage.read_table(path).cast(CHANGE)
