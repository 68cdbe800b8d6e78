"""Exact duplicates: the same decoded audio twice, whatever the file it came in, and the same row twice.

Rows are compared by numbers, one for every different value, so that a million of them are a few arrays.
"""

# N rows · G groups of rows with one value
from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from seral import storage
from seral.pool.revisions import Change, read_entry, shard_entry
from seral.pool.shards import TABLES, renamed, shard_uri
from seral.schema import QUARANTINE, UTTERANCE

COLUMNS = ["utterance_id", "pcm_hash", "duplicate_of"]


def codes(column: pa.ChunkedArray) -> NDArray[np.int64]:
    """A number for every different value of a column, counted up in the order in which they appear, (N,).

    By sorting, which takes a third of the memory of a table of all values.
    """
    order_N = np.asarray(pc.sort_indices(column)).astype(np.int64)  # stable: of equal values the first one leads
    values = column.take(pa.array(order_N))
    differs_N = np.ones(len(order_N), dtype=bool)
    differs_N[1:] = ~np.asarray(pc.equal(values[1:], values[:-1]).fill_null(False), dtype=bool)
    differs_N[1:] &= ~(np.asarray(values[1:].is_null()) & np.asarray(values[:-1].is_null()))
    del values
    storage.release_memory()
    rank_G = np.empty(np.count_nonzero(differs_N), np.int64)
    rank_G[np.argsort(order_N[differs_N])] = np.arange(len(rank_G))
    code_N = np.empty(len(order_N), np.int64)
    code_N[order_N] = rank_G[np.cumsum(differs_N) - 1]
    return code_N


def first_rows(code_N: NDArray[np.int64]) -> NDArray[np.int64]:
    """The first row of every value that `codes` has numbered, (G,)."""
    largest_before_N = np.maximum.accumulate(np.concatenate([[-1], code_N]))[:-1]
    return np.flatnonzero(code_N > largest_before_N)


def exact_duplicates(ids: pa.ChunkedArray, hashes: pa.ChunkedArray) -> pa.ChunkedArray:
    """Of every row the smallest id that has the same audio, null where that is its own, (N,).

    The outcome does not depend on the order of the rows.
    """
    code_N = codes(hashes)
    order_N = np.asarray(pc.sort_indices(ids)).astype(np.int64)[::-1]
    keeper_G = np.empty(code_N.max(initial=-1) + 1, np.int64)
    keeper_G[code_N[order_N]] = order_N  # the smallest id is written last
    keeper_N = keeper_G[code_N]
    copies = np.flatnonzero(keeper_N != np.arange(len(keeper_N)))
    same_id = pc.equal(ids.take(pa.array(copies)), ids.take(pa.array(keeper_N[copies])))
    is_copy_N = np.zeros(len(keeper_N), dtype=bool)
    is_copy_N[copies] = ~np.asarray(same_id, dtype=bool)
    return ids.take(pa.array(keeper_N, mask=~is_copy_N))


def marked(pool: str, shards: Sequence[str], entry_of: Mapping[str, Any] | None = None) -> Change:
    """A pool of these shards and no others, with duplicates marked; entries that are not given are read."""
    entries = {
        name: new or (entry_of or {}).get(name) or read_entry(pool, name)
        for name, new in mark_duplicates(pool, shards).items()
    }
    return Change(entries=entries, written={*shards, *entries})


def mark_duplicates(pool: str, shards: Sequence[str]) -> dict[str, dict[str, Any] | None]:
    """Set `duplicate_of` across the pool and drop rows that repeat another's id.

    Returns the shards of the outcome, sorted, with the entries in the manifest of those that were written. Of rows with
    the same id the first in the order of `shards` stays. A shard that changes is written under a new name, so that what
    a manifest lists is never altered in place.
    """
    part_schema = pa.schema([UTTERANCE.field(name) for name in COLUMNS])
    parts = [storage.read_table(shard_uri(pool, "utterances", shard), COLUMNS).cast(part_schema) for shard in shards]
    table = pa.concat_tables([part_schema.empty_table(), *parts])
    storage.release_memory()
    marks = exact_duplicates(table["utterance_id"], table["pcm_hash"])
    stays_N = np.zeros(table.num_rows, dtype=bool)
    stays_N[first_rows(codes(table["utterance_id"]))] = True
    is_marked_N = ~np.asarray(pc.equal(pc.fill_null(marks, ""), pc.fill_null(table["duplicate_of"], "")), dtype=bool)
    outcome: dict[str, dict[str, Any] | None] = {}
    start = 0
    for shard, part in zip(shards, parts, strict=True):
        rows = slice(start, start := start + part.num_rows)
        if stays_N[rows].all() and not is_marked_N[rows].any():
            outcome[shard] = None
        else:
            name, entry = _rewrite(pool, shard, stays_N[rows], marks.slice(rows.start, part.num_rows))
            outcome[name] = entry
    return dict(sorted(outcome.items()))


def _rewrite(pool: str, shard: str, stays_N: NDArray[np.bool_], marks: pa.ChunkedArray) -> tuple[str, dict[str, Any]]:
    keep = np.flatnonzero(stays_N)
    name = renamed(shard, [keep.tolist(), marks.filter(pa.array(stays_N)).to_pylist()])
    others = ("gold", "votes", "quarantine")
    gold, votes, bad = (storage.read_table(shard_uri(pool, name, shard), schema=TABLES[name]) for name in others)
    column = UTTERANCE.get_field_index("duplicate_of")
    repeated, ids, row = [QUARANTINE.empty_table()], [pa.array([], pa.string())], 0
    with storage.table_writer(shard_uri(pool, "utterances", name), UTTERANCE, row_group_rows=256) as utterances:
        for part in storage.read_batches(shard_uri(pool, "utterances", shard), rows=256, schema=UTTERANCE):
            stays = pa.array(stays_N[row : row + part.num_rows])
            repeated.append(_repeated(part.filter(pc.invert(stays))))
            marked = part.set_column(column, UTTERANCE.field(column), marks.slice(row, part.num_rows)).filter(stays)
            utterances.write(marked.cast(UTTERANCE))
            ids += marked["utterance_id"].chunks
            row += part.num_rows
        outcome = {
            "quarantine": pa.concat_tables([bad, *repeated]),
            "gold": gold.take(pa.array(keep)),
            "votes": votes.filter(pc.is_in(votes["utterance_id"], pa.concat_arrays(ids))),
        }
        sums = {table: storage.write_table(shard_uri(pool, table, name), rows) for table, rows in outcome.items()}
    return name, shard_entry(len(keep), {**sums, "utterances": utterances.checksum})


def _repeated(rows: pa.Table) -> pa.Table:
    """Rows of the quarantine for utterances that stand in the pool already."""
    same = "the same audio under the same name is already there as "
    columns = {name: rows[name] for name in ("source", "corpus", "speaker", "source_bytes")}
    columns["reason"] = pa.array(["repeated"] * rows.num_rows, pa.string())
    columns["detail"] = pc.binary_join_element_wise(same, rows["utterance_id"], "")
    return pa.table({name: columns[name] for name in QUARANTINE.names}, schema=QUARANTINE)
