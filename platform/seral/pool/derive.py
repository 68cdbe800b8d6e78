"""Pools out of pools: several merged into one, or a part of one chosen by conditions, by chance, or by both.

What was erased from a source stays out of what is made of it: tombstones are the first thing that is copied. Duplicates
are marked anew, since in another company another row may count. Features are not copied; the encoder computes them.
"""

from __future__ import annotations

import hashlib
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Self

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray
from pydantic import Field, model_validator

from seral import storage
from seral.errors import OptionError, PoolError, StateError
from seral.options import Options
from seral.pool.dedupe import codes, first_rows, marked
from seral.pool.derivations import note_derivation
from seral.pool.revisions import Change, commit, refuse_erased, shard_entry
from seral.pool.shards import EMPTY, REWRITTEN, TABLES, Pool, open_pool, read_manifest, renamed, shard_uri
from seral.pool.tombstones import FOLDER, KINDS, Erased, read_erased
from seral.pool.where import COLUMNS, Condition, parse_conditions
from seral.progress import track
from seral.schema import QUARANTINE, UTTERANCE
from seral.vectors.stable_keys import column_keys

ORDER = ("quarantine", "gold", "votes", "utterances")
"""Tables of a shard as they are written: `utterances` marks it as complete."""


class SelectOptions(Options):
    """A part of a pool as a pool of its own."""

    pool: str
    """The pool, or a snapshot of it: POOL@NAME."""
    out: str
    """The pool to make; nothing may be there yet."""
    where: list[str] = Field(default=[])
    """Conditions on columns, such as `language == de and snr_db > 10`; all have to hold."""
    count: int | None = Field(default=None, gt=0)
    """Draw so many utterances of those; None = all."""
    hours: float | None = Field(default=None, gt=0)
    """Or draw so many hours of them."""
    by: str | None = None
    """Draw so that every value of this column keeps its share."""
    seed: int = 0
    """Of the draw; with the same seed a larger draw holds the smaller one."""
    shard_mb: float = Field(default=128.0, gt=0)
    """Size of a shard's audio, in MB."""

    @model_validator(mode="after")
    def _check(self) -> Self:
        if self.count is not None and self.hours is not None:
            raise ValueError("draw a count or hours, one of the two")
        if self.by is not None and self.by not in COLUMNS:
            raise ValueError(f"by is one of {', '.join(COLUMNS)}; got {self.by!r}")
        return self

    @property
    def draws(self) -> bool:
        """Whether utterances are drawn at random."""
        return self.count is not None or self.hours is not None


def merge_pools(sources: Sequence[str], out: str) -> dict[str, Any]:
    """Add the shards of some pools to another one, made when missing; run again after a kill, it goes on.

    An utterance that several of them hold is taken from the first.
    """
    out = storage.absolute(out)
    pools = [open_pool(source) for source in sources]
    if any(pool.uri == out for pool in pools):
        raise OptionError(f"{out} is to be merged into itself; name the others only")
    own = Pool(uri=out, manifest=read_manifest(out) or EMPTY)
    commit(out, lambda newest: _merged(pools, Pool(uri=out, manifest=newest)))
    pool_out = open_pool(out)
    return {
        "pool": out,
        "revision": pool_out.manifest["revision"],
        "given": sum(pool.rows for pool in pools),
        "there_before": own.rows,
        "utterances": pool_out.rows,
        "duplicates": pool_out.rows - pool_out.ids["duplicate_of"].null_count,
    }


def _merged(pools: Sequence[Pool], own: Pool) -> Change:
    """A pool and what others bring to it."""
    out = own.uri
    for pool in pools:
        copy_tombstones(pool.uri, out)
    erased = read_erased(out)
    entries: dict[str, Any] = {}
    parts = _new_parts([(pool, shard) for pool in (own, *pools) for shard in pool.shards], erased)
    with track(f"merging {len(pools)} pools", len(parts)) as advance:
        for part in parts:
            if not part.has_nothing_new:
                is_free = part.is_whole and part.shard not in entries
                name = part.shard if is_free else renamed(part.shard, part.ids.to_pylist())
                entries[name] = _add(part, out, name, erased)
            advance()
    return marked(out, list(entries), entries)


def select_from_pool(options: SelectOptions) -> dict[str, Any]:
    """Make a pool of the utterances that fit the conditions, or of some drawn from them; returns the counts."""
    pool, out = open_pool(options.pool), storage.absolute(options.out)
    rows = choose(pool, options)
    if not rows.num_rows:
        raise PoolError(f"nothing in {options.pool} fits: {' and '.join(options.where)}")
    names = _plan(pool, rows, options.shard_mb)
    _check_own(read_manifest(out) or EMPTY, out, names)
    copy_tombstones(pool.uri, out)
    entries = {}
    with track("writing", rows.num_rows) as advance:
        for name, ids in names.items():
            entries[name] = _write_part(pool, ids, out, name)
            advance(entries[name]["rows"])

    def change(newest: Mapping[str, Any]) -> Change:
        _check_own(newest, out, names)
        copy_tombstones(pool.uri, out)
        refuse_erased(out, names, Erased(()))
        return marked(out, sorted(names), entries)

    commit(out, change)
    hours = float(pc.sum(rows["duration_s"]).as_py()) / 3600
    return {"pool": out, "utterances": rows.num_rows, "of": pool.rows, "hours": round(hours, 3)}


def _check_own(manifest: Mapping[str, Any], out: str, names: Collection[str]) -> None:
    if not {REWRITTEN.sub("", shard) for shard in manifest["shards"]} <= set(names):
        raise StateError(f"there is another pool at {out}: give another address")


def choose(pool: Pool, options: SelectOptions) -> pa.Table:
    """The utterances meant, with the number of their shard: all that fit, or a draw from those of them that count."""
    conditions = parse_conditions(options.where)
    fitting = pa.concat_tables(list(_fitting(pool, conditions, options)))
    if not options.draws:
        return fitting
    fitting = fitting.sort_by("utterance_id")
    key_N = column_keys(fitting["utterance_id"], hashlib.sha256(str(options.seed).encode()).hexdigest()[:16])
    ordered = fitting.take(pa.array(proportional_order(key_N, codes(fitting["group"]))))
    if options.count is not None:
        if options.count > fitting.num_rows:
            raise PoolError(f"{fitting.num_rows} utterances fit and are no duplicates, {options.count} are asked for")
        return ordered.slice(0, options.count)
    total_s = np.cumsum(np.asarray(ordered["duration_s"], dtype=np.float64))
    asked_s = 3600 * float(options.hours or 0)
    if not len(total_s) or total_s[-1] < asked_s:
        have = total_s[-1] / 3600 if len(total_s) else 0
        raise PoolError(f"{have:.3f} hours fit and are no duplicates, {options.hours:g} are asked for")
    return ordered.slice(0, int(np.searchsorted(total_s, asked_s)) + 1)


def proportional_order(key_N: NDArray[np.float64], group_N: NDArray[np.int64]) -> NDArray[np.int64]:
    """A random order, (N,), of which every beginning holds the groups in about the shares that the whole has.

    Within a group by random keys; the r-th of a group of size n comes at (r + 1/2) / n of the way.
    """
    order_N, size_G = np.lexsort((key_N, group_N)), np.bincount(group_N)
    group_N = group_N[order_N]
    position_N = np.empty(len(key_N))
    position_N[order_N] = (np.arange(len(key_N)) - (np.cumsum(size_G) - size_G)[group_N] + 0.5) / size_G[group_N]
    return np.lexsort((key_N, position_N))


def _fitting(pool: Pool, conditions: Sequence[Condition], options: SelectOptions) -> Iterator[pa.Table]:
    names = ["utterance_id", "duration_s", "corpus"]
    columns = sorted({*names, "duplicate_of", *(condition.column for condition in conditions), options.by or "corpus"})
    yield pa.schema([*map(UTTERANCE.field, names), ("group", pa.string()), ("shard", pa.int32())]).empty_table()
    for number, shard in enumerate(pool.shards):
        table = pool.read(shard, columns)
        mask = np.asarray(pc.is_null(table["duplicate_of"])) if options.draws else np.ones(table.num_rows, dtype=bool)
        for condition in conditions:
            mask &= condition.holds(table)
        table = table.filter(pa.array(mask))
        no_group = pa.repeat("", table.num_rows)
        group = no_group if options.by is None else pc.fill_null(pc.cast(table[options.by], pa.string()), "")
        rows = table.select(names).append_column("group", group)
        yield rows.append_column("shard", pa.repeat(pa.scalar(number, pa.int32()), table.num_rows))


def _plan(pool: Pool, rows: pa.Table, shard_mb: float) -> dict[str, dict[str, pa.Array]]:
    """Name of each new shard -> old shard -> ids of it, about `shard_mb` of audio each."""
    ordered = rows.sort_by([("shard", "ascending"), ("utterance_id", "ascending")]).combine_chunks()
    ids, shard_N = ordered["utterance_id"].chunk(0), np.asarray(ordered["shard"])
    names, entries = pool.shards, pool.manifest["shards"]
    parts: list[dict[str, pa.Array]] = [{}]
    part_mb = 0.0
    for number in np.unique(shard_N):
        shard = names[number]
        size = entries[shard]["bytes"] / entries[shard]["rows"] / 1e6
        start, end = np.searchsorted(shard_N, [number, number + 1])
        while start < end:
            after_mb = np.cumsum(np.concatenate([[part_mb], np.full(end - start, size)]))[1:]
            fitting = int(np.searchsorted(after_mb, shard_mb, side="right"))
            fitting = fitting or int(not parts[-1])  # a part has one, however large
            if fitting:
                parts[-1][shard] = ids[start : start + fitting]
                part_mb, start = after_mb[fitting - 1], start + fitting
            if start < end:
                parts.append({})
                part_mb = 0.0
    corpus = ordered["corpus"]
    parts_by_name, first = {}, 0
    for part in parts:
        part_ids = pa.concat_arrays(list(part.values())).to_pylist()
        parts_by_name[f"{corpus[first].as_py()}-{hashlib.sha256(' '.join(part_ids).encode()).hexdigest()[:12]}"] = part
        first += len(part_ids)
    return parts_by_name


def _write_part(pool: Pool, ids: Mapping[str, pa.Array], out: str, name: str) -> dict[str, Any]:
    """Write a shard of some utterances of others; returns its entry in the manifest."""
    sums = {}
    for table in ORDER:
        parts = [TABLES[table].empty_table()]
        for shard, shard_ids in ids.items() if table != "quarantine" else ():
            batches = storage.read_batches(pool.table_uri(table, shard), rows=256, schema=TABLES[table])
            parts += (rows.filter(pc.is_in(rows["utterance_id"], shard_ids)).cast(TABLES[table]) for rows in batches)
        sums[table] = storage.write_table(shard_uri(out, table, name), pa.concat_tables(parts), row_group_rows=256)
    return shard_entry(sum(map(len, ids.values())), sums)


@dataclass(frozen=True, kw_only=True)
class _Part:
    """A shard of a pool, and the share of it that no shard before it in a merge has."""

    pool: Pool
    shard: str
    ids: pa.ChunkedArray
    """Utterances that are new and were not erased."""
    is_new_bad_N: NDArray[np.bool_]
    """Mask of the rows of its quarantine, likewise."""

    @property
    def is_whole(self) -> bool:
        """Whether that is all of it."""
        return len(self.ids) == self.rows and bool(self.is_new_bad_N.all())

    @property
    def has_nothing_new(self) -> bool:
        """Whether it has rows, and all of them stand in a shard before it."""
        return not (len(self.ids) or self.is_new_bad_N.any()) and bool(self.rows or len(self.is_new_bad_N))

    @property
    def rows(self) -> int:
        """Number of its utterances."""
        return int(self.pool.manifest["shards"][self.shard]["rows"])


def _new_parts(pool_shards: Sequence[tuple[Pool, str]], erased: Erased) -> list[_Part]:
    """The rows that every shard brings; of utterances the ids are read, and what tells them from erased ones."""
    columns = ["utterance_id", "corpus", "speaker", "source", "pcm_hash"] if erased else ["utterance_id"]
    names, lines, alive = [], [], []
    for pool, shard in pool_shards:
        rows = storage.read_table(pool.table_uri("utterances", shard), columns)
        names.append(rows.filter(pa.array(~erased.belongs(rows)))["utterance_id"])
        bad = storage.read_table(pool.table_uri("quarantine", shard), schema=QUARANTINE)
        alive.append(~erased.belongs(bad))
        lines.append(_lines(bad).filter(pa.array(alive[-1])))
    is_new_name, is_new_line = (_not_before(columns) for columns in (names, lines))
    parts = []
    for (pool, shard), ids, new_ids, alive_N, new_bad in zip(
        pool_shards, names, is_new_name, alive, is_new_line, strict=True
    ):
        alive_N[alive_N] = new_bad
        parts.append(
            _Part(
                pool=pool,
                shard=shard,
                ids=ids if new_ids.all() else ids.filter(pa.array(new_ids)),
                is_new_bad_N=alive_N,
            )
        )
    return parts


def _lines(rows: pa.Table) -> pa.ChunkedArray:
    """A text for every row that equal rows share, (N,)."""
    texts = [pc.fill_null(pc.cast(column, pa.string()), "\1") for column in rows.columns]
    return pc.binary_join_element_wise(*texts, "\0")


def _not_before(columns: Sequence[pa.ChunkedArray]) -> list[NDArray[np.bool_]]:
    """Mask of the values of every column that no column before it has, (N,) each."""
    ends = np.cumsum([len(column) for column in columns])
    column_N = np.repeat(np.arange(len(columns)), [len(column) for column in columns])
    code_N = codes(pa.chunked_array([chunk for column in columns for chunk in column.chunks], pa.string()))
    return np.split(column_N == column_N[first_rows(code_N)][code_N], ends[:-1])


def _add(part: _Part, out: str, name: str, erased: Erased) -> dict[str, Any]:
    """Write what a shard brings; as it is where that is all of it. Returns its entry in the manifest."""
    uris = {table: part.pool.table_uri(table, part.shard) for table in ORDER}
    if part.is_whole:
        if part.pool.uri != out or name != part.shard:
            for table, uri in uris.items():
                storage.read_footer(uri, TABLES[table])  # no more columns than such a table has
                storage.copy_file(uri, shard_uri(out, table, name))
        return dict(part.pool.manifest["shards"][part.shard])
    ids = part.ids.combine_chunks()
    sums = {}
    for table, uri in uris.items():
        rows = storage.read_table(uri, schema=TABLES[table])
        is_new = pa.array(part.is_new_bad_N) if table == "quarantine" else pc.is_in(rows["utterance_id"], ids)
        sums[table] = storage.write_table(
            shard_uri(out, table, name), erased.without(rows.filter(is_new)), row_group_rows=256
        )
    return shard_entry(len(ids), sums)


def copy_tombstones(source: str, out: str) -> None:
    """Copy the tombstones of one pool to another that is made of it, so that what was erased cannot come back so.

    The first notes the other, which an erasure then reaches too.
    """
    note_derivation(source, out, "pool")
    for name in storage.list_names(storage.join(source, FOLDER), ".json"):
        tombstone, target = storage.read_json(storage.join(source, FOLDER, name)), storage.join(out, FOLDER, name)
        if storage.exists(target):
            hashes = storage.read_json(target)["hashes"]
            tombstone["hashes"] = {kind: sorted({*hashes[kind], *tombstone["hashes"][kind]}) for kind in KINDS}
        storage.write_json(target, tombstone)
