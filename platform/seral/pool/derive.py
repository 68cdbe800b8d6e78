"""Pools out of pools: several merged into one, or a part of one chosen by conditions, by chance, or by both.

What was erased from a source stays out of what is made of it: tombstones are the first thing that is copied. Duplicates
are marked anew, since in another company another row may count. Features are not copied; the encoder computes them.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Self

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray
from pydantic import Field, model_validator

from seral import storage
from seral.errors import OptionError, PoolError, StateError
from seral.options import Options
from seral.pool.ingest import mark_duplicates
from seral.pool.revisions import EMPTY, commit, read_entry
from seral.pool.shards import REWRITTEN, TABLES, Pool, open_pool, read_manifest, renamed, shard_uri
from seral.pool.tombstones import FOLDER, KINDS, Erased, read_erased
from seral.pool.where import COLUMNS, Condition, parse_conditions
from seral.progress import track
from seral.schema import UTTERANCE
from seral.vectors.stable_keys import hash_keys

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
    before = read_manifest(out) or EMPTY
    pools = [open_pool(source) for source in sources]
    if any(pool.uri == out for pool in pools):
        raise OptionError(f"{out} is to be merged into itself; name the others only")
    for pool in pools:
        copy_tombstones(pool.uri, out)
    own = Pool(uri=out, manifest=dict(before))
    pool_shards = [(pool, shard) for pool in (own, *pools) for shard in pool.shards]
    merge = _Merge(out=out, erased=read_erased(out))
    with track(f"merging {len(pools)} pools", len(pool_shards)) as advance:
        for pool, shard in pool_shards:
            merge.add(pool, shard)
            advance()
    shards = mark_duplicates(out, merge.names)
    commit(out, before, {name: before["shards"].get(name) or read_entry(out, name) for name in shards})
    pool_out = open_pool(out)
    return {
        "pool": out,
        "revision": pool_out.manifest["revision"],
        "given": sum(pool.rows for pool in pools),
        "there_before": own.rows,
        "utterances": pool_out.rows,
        "duplicates": pool_out.rows - pool_out.ids["duplicate_of"].null_count,
    }


def select_from_pool(options: SelectOptions) -> dict[str, Any]:
    """Make a pool of the utterances that fit the conditions, or of some drawn from them; returns the counts."""
    pool, out = open_pool(options.pool), storage.absolute(options.out)
    rows = choose(pool, options)
    if not rows.num_rows:
        raise PoolError(f"nothing in {options.pool} fits: {' and '.join(options.where)}")
    names = _plan(pool, rows, options)
    before = read_manifest(out)
    if before is not None and not {REWRITTEN.sub("", shard) for shard in before["shards"]} <= set(names):
        raise StateError(f"there is another pool at {out}: give another address")
    copy_tombstones(pool.uri, out)
    with track("writing", rows.num_rows) as advance:
        for name, ids in names.items():
            _write_part(pool, ids, out, name)
            advance(sum(map(len, ids.values())))
    shards = mark_duplicates(out, sorted(names))
    commit(out, before or EMPTY, {name: read_entry(out, name) for name in shards})
    hours = float(pc.sum(rows["duration_s"]).as_py()) / 3600
    return {"pool": out, "utterances": rows.num_rows, "of": pool.rows, "hours": round(hours, 3)}


def choose(pool: Pool, options: SelectOptions) -> pa.Table:
    """The utterances meant, with their shard: all that fit, or a draw from those of them that count."""
    conditions = parse_conditions(options.where)
    fitting = pa.concat_tables(list(_fitting(pool, conditions, options)))
    if not options.draws:
        return fitting
    fitting = fitting.filter(pc.is_null(fitting["duplicate_of"])).sort_by("utterance_id")
    group_N = np.asarray(fitting["group"].to_pylist(), dtype=np.str_)
    order_N = proportional_order(np.asarray(fitting["utterance_id"].to_pylist(), dtype=np.str_), group_N, options.seed)
    ordered = fitting.take(pa.array(order_N))
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


def proportional_order(ids: NDArray[np.str_], group_N: NDArray[np.str_], seed: int) -> NDArray[np.int64]:
    """A random order, (N,), of which every beginning holds the groups in about the shares that the whole has.

    Within a group by stable hash keys, which depend on the id and the seed alone; the r-th of a group of size n comes
    at (r + 1/2) / n of the way.
    """
    key_N = hash_keys(ids, hashlib.sha256(str(seed).encode()).hexdigest()[:16])
    position_N = np.empty(len(ids))
    for group in np.unique(group_N):
        rows = np.flatnonzero(group_N == group)
        position_N[rows[np.argsort(key_N[rows], kind="stable")]] = (np.arange(len(rows)) + 0.5) / len(rows)
    return np.lexsort((key_N, position_N))


def _fitting(pool: Pool, conditions: Sequence[Condition], options: SelectOptions) -> Iterator[pa.Table]:
    names = ["utterance_id", "duration_s", "duplicate_of", "corpus"]
    columns = sorted({*names, *(condition.column for condition in conditions), options.by or "corpus"})
    yield pa.schema([*map(UTTERANCE.field, names), ("group", pa.string()), ("shard", pa.string())]).empty_table()
    for shard in pool.shards:
        table = pool.read(shard, columns)
        mask = np.ones(table.num_rows, dtype=bool)
        for condition in conditions:
            mask &= condition.holds(table)
        table = table.filter(pa.array(mask))
        no_group = pa.array([""] * table.num_rows, pa.string())
        group = no_group if options.by is None else pc.fill_null(pc.cast(table[options.by], pa.string()), "")
        rows = table.select(names).append_column("group", group)
        yield rows.append_column("shard", pa.array([shard] * table.num_rows, pa.string()))


def _plan(pool: Pool, rows: pa.Table, options: SelectOptions) -> dict[str, dict[str, list[str]]]:
    """Name of each new shard -> old shard -> ids of it, about `shard_mb` of audio each."""
    parts: list[dict[str, list[str]]] = [{}]
    part_mb = 0.0
    ordered = rows.sort_by([("shard", "ascending"), ("utterance_id", "ascending")])
    entries = pool.manifest["shards"]
    for shard, name in zip(*(ordered[c].to_pylist() for c in ("shard", "utterance_id")), strict=True):
        size = entries[shard]["bytes"] / entries[shard]["rows"] / 1e6
        if parts[-1] and part_mb + size > options.shard_mb:
            parts.append({})
            part_mb = 0.0
        parts[-1].setdefault(shard, []).append(name)
        part_mb += size
    corpus = dict(zip(rows["utterance_id"].to_pylist(), rows["corpus"].to_pylist(), strict=True))
    parts_by_name = {}
    for part in parts:
        ids = [name for inside in part.values() for name in inside]
        parts_by_name[f"{corpus[ids[0]]}-{hashlib.sha256(' '.join(ids).encode()).hexdigest()[:12]}"] = part
    return parts_by_name


def _write_part(pool: Pool, ids: Mapping[str, Sequence[str]], out: str, name: str) -> None:
    for table in ORDER:
        parts = [TABLES[table].empty_table()]
        for shard, shard_ids in ids.items() if table != "quarantine" else ():
            rows = storage.read_table(pool.table_uri(table, shard))
            parts.append(rows.filter(pc.is_in(rows["utterance_id"], pa.array(shard_ids))).cast(TABLES[table]))
        storage.write_table(shard_uri(out, table, name), pa.concat_tables(parts), row_group_rows=256)


@dataclass(kw_only=True)
class _Merge:
    """A pool in the making: which shards it has so far, and what stands in them."""

    out: str
    erased: Erased
    names: list[str] = field(default_factory=list)
    utterances: set[str] = field(default_factory=set)
    bad: set[tuple[Any, ...]] = field(default_factory=set)

    def add(self, pool: Pool, shard: str) -> None:
        """Add what a shard has that is new here and was not erased; as it is where that is all of it."""
        tables = {table: self.erased.without(storage.read_table(pool.table_uri(table, shard))) for table in TABLES}
        rows = [
            pool.manifest["shards"][shard]["rows"],
            storage.read_footer(pool.table_uri("quarantine", shard)).num_rows,
        ]
        new = self._new(tables)
        ids, bad = new["utterances"]["utterance_id"].to_pylist(), new["quarantine"].to_pylist()
        self.utterances.update(ids)
        self.bad.update(tuple(line.values()) for line in bad)
        if not ids and not bad and any(rows):
            return
        is_whole = [len(ids), len(bad)] == rows
        name = shard if is_whole and shard not in self.names else renamed(shard, ids)
        self.names.append(name)
        if is_whole and pool.uri == self.out:
            return
        for table in ORDER:
            if is_whole:
                storage.write_bytes(shard_uri(self.out, table, name), storage.read_bytes(pool.table_uri(table, shard)))
            else:
                storage.write_table(shard_uri(self.out, table, name), new[table], row_group_rows=256)

    def _new(self, tables: Mapping[str, pa.Table]) -> dict[str, pa.Table]:
        names = tables["utterances"]["utterance_id"].to_pylist()
        fresh = [name for name in names if name not in self.utterances]
        bad = [tuple(line.values()) not in self.bad for line in tables["quarantine"].to_pylist()]
        parts = {
            table: tables[table].filter(pc.is_in(tables[table]["utterance_id"], pa.array(fresh, pa.string())))
            for table in ("utterances", "gold", "votes")
        }
        return {**parts, "quarantine": tables["quarantine"].filter(pa.array(bad, pa.bool_()))}


def copy_tombstones(source: str, out: str) -> None:
    """Copy the tombstones of one pool to another, so that what was erased cannot come back by way of it."""
    for name in storage.list_names(storage.join(source, FOLDER), ".json"):
        tombstone, target = storage.read_json(storage.join(source, FOLDER, name)), storage.join(out, FOLDER, name)
        if storage.exists(target):
            hashes = storage.read_json(target)["hashes"]
            tombstone["hashes"] = {kind: sorted({*hashes[kind], *tombstone["hashes"][kind]}) for kind in KINDS}
        storage.write_json(target, tombstone)
