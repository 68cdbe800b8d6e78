"""Erasure: one speaker or one utterance taken out of a pool and of everything that was made of it.

First the tombstone is written, then whatever fits its hashes goes. So the same command, run again after a kill at any
point, ends in the same state, and run again with a further folder it clears that one too. Nothing that a manifest lists
is altered in place: shards get new names, features follow them, and the old files are deleted at the end.

An exact copy under another id is the same audio and goes too. Weights cannot be unlearned: models that learnt from the
erased are named, and it is for people to delete or retrain them.
"""

from __future__ import annotations

from collections.abc import Container, Iterable, Iterator, Mapping, Sequence
from contextlib import suppress
from datetime import UTC, datetime
from typing import Any, Literal, Self

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import yaml
from numpy.typing import NDArray
from pydantic import Field, model_validator

from seral import storage
from seral.erase import traces
from seral.erase.writers import wait_for_writers
from seral.errors import PoolError
from seral.labels.database import is_database
from seral.options import Options
from seral.pool.derivations import derivations
from seral.pool.repair import DAMAGED
from seral.pool.revisions import Change, commit, drop_shard, holds, manifests, read_entry
from seral.pool.shards import (
    ID_COLUMNS,
    MANIFEST,
    SNAPSHOTS,
    TABLES,
    open_pool,
    pool_hash,
    read_manifest,
    renamed,
    shard_uri,
    snapshot_names,
    snapshot_uri,
)
from seral.pool.tombstones import FOLDER, KINDS, Erased, read_erased, salt_of, salted
from seral.progress import track
from seral.schema import QUARANTINE, UTTERANCE
from seral.vectors.stable_keys import column_keys

COLUMNS = ["utterance_id", "corpus", "speaker", "source", "pcm_hash", "duplicate_of"]
FEATURES, WEIGHTS, MARK = "features", ".safetensors", "erased.json"
NOTE = "weights cannot be unlearned: delete the models named, or train them anew"


MOVED = "made of the pool and not there any more: where it was moved, name it with --run"


class Unknown(PoolError):
    """A pool has nothing of what is to be erased, and never had."""


class EraseOptions(Options):
    """Options of an erasure."""

    pool: str
    """The pool."""
    speaker: str | None = Field(default=None, pattern="^[^/]+/.+$")
    """corpus/name: every utterance of this speaker."""
    utterance: str | None = None
    """Or the id of one utterance."""
    also: list[str] = Field(default=[])
    """Run folders, feature caches and prediction files that were made of the pool and moved since, and URLs of label
    ledgers. Whatever lies where it was made is found by itself, and so are caches and ledgers that runs name."""
    models: Literal["name", "mark", "delete"] = "name"
    """Name models that learnt from the erased, and no more; leave a note in their folders, of which `predict` speaks;
    or delete them."""

    @model_validator(mode="after")
    def _check(self) -> Self:
        if (self.speaker is None) == (self.utterance is None):
            raise ValueError("give a speaker or an utterance, one of the two")
        return self

    @property
    def subject(self) -> tuple[str, ...]:
        """Kind and words, as seral.pool.tombstones knows them."""
        if self.utterance is not None:
            return ("utterance", self.utterance)
        return ("speaker", *str(self.speaker).split("/", 1))


def erase(options: EraseOptions) -> dict[str, Any]:
    """Erase, or go on with it, in the pool and all that was made of it; returns the tombstone without its hashes.

    Raises PoolError when there is nothing such in the pool and never was, or when anything is left at the end.
    """
    done, pools = _erase(options), [open_pool(options.pool).uri]
    for pool in pools:
        for made in derivations(pool):
            if made.kind == "pool" and made.at not in pools and read_manifest(made.at) is not None:
                pools.append(made.at)
                with suppress(Unknown):
                    done["pools"][made.at] = _erase(options.model_copy(update={"pool": made.at, "also": []}))["rows"]
    return done


def _erase(options: EraseOptions) -> dict[str, Any]:
    """Erase in one pool, and in what was made of it but for further pools."""
    pool = open_pool(options.pool).uri
    salt = salt_of(read_erased(pool))
    uri = storage.join(pool, FOLDER, f"{salted(salt, *options.subject)}.json")
    before = storage.read_json(uri) if storage.exists(uri) else None
    tombstone, clean = _tombstone(pool, options, salt, before)
    erased = Erased((tombstone,))
    made = [one for one in derivations(pool) if one.kind != "pool"]
    gone = [one.at for one in made if not storage.exists(one.at)]
    others = _locations([*options.also, *(one.at for one in made if one.at not in gone)])
    if before is None or before["hashes"] != tombstone["hashes"]:
        storage.write_json(uri, tombstone | {"finished": None})  # first: who writes has to see it
    wait_for_writers(others)
    _drop_half_written([pool, *others])
    storage.remove(storage.join(pool, DAMAGED))  # may hold anything too
    counts = _look(pool, [pool, *others], erased, besides=clean)
    tombstone |= _counted(tombstone, counts, pool, erased)
    if before != tombstone:
        tombstone["finished"] = None
        storage.write_json(uri, tombstone)
    _clear_pool(pool, counts[pool], erased)
    for name in (name for location in others for name in counts[location]):
        traces.clear(name, erased)
    for name in _left([pool, *others], pool, erased):
        if _folder(name, pool) not in TABLES:
            traces.clear(name, erased)  # put there by a command that ran, before it saw the tombstone
    if left := _left([pool, *others], pool, erased):
        raise PoolError(f"{', '.join(left[:5])} still speak of what was erased, and seral cannot take it out")
    if tombstone["finished"] is None:
        storage.write_json(uri, tombstone | {"finished": _now()})
    done = storage.read_json(uri)
    models = [name for location in done["elsewhere"].values() for name in location["models"]]
    _deal_with(models, options.models)
    note = {"note": NOTE} if models and options.models != "delete" else {}
    moved = {"moved": gone, "moved_note": MOVED} if gone else {}
    shown = {name: value for name, value in done.items() if name not in ("hashes", "salt")}
    return shown | note | moved | {"pools": {}}


def _left(locations: Sequence[str], pool: str, erased: Erased) -> list[str]:
    """Files that still say anything of what was erased."""
    return [name for location in locations for name in _files(location, pool) if traces.refers(name, erased)]


def _deal_with(models: Iterable[str], how: str) -> None:
    for folder in models:
        if storage.exists(folder) and how == "delete":
            storage.remove(folder)
        elif storage.exists(folder) and how == "mark":
            storage.write_json(storage.join(folder, MARK), {"erased": _now(), "note": NOTE})


def _counted(
    tombstone: Mapping[str, Any], counts: Mapping[str, Mapping[str, int]], pool: str, erased: Erased
) -> dict[str, Any]:
    """The rows and models that a tombstone names, with those that were counted just now."""
    elsewhere = dict(tombstone["elsewhere"])
    for location in counts.keys() - {pool}:
        recorded = elsewhere.get(location, {"rows": {}, "models": []})
        rows = _most(recorded["rows"], _by_table(counts[location], location, pool))
        elsewhere[location] = {"rows": rows, "models": sorted({*recorded["models"], *_models(location, erased)})}
    return {"rows": _most(tombstone["rows"], _by_table(counts[pool], pool, pool)), "elsewhere": elsewhere}


def _tombstone(
    pool: str, options: EraseOptions, salt: str, before: Mapping[str, Any] | None
) -> tuple[dict[str, Any], set[str]]:
    """The tombstone with the hashes of all that is there now, beside those it has already.

    Also tables of utterances in which there is nothing of it.
    """
    tombstone: dict[str, Any] = {
        "kind": options.subject[0],
        "salt": salt,
        "corpora": [],
        "hashes": {kind: [] for kind in KINDS},
        "rows": {},
        "elsewhere": {},
        "begun": _now(),
        "finished": None,
        **(before or {}),
    }
    shards = sorted({shard for manifest in manifests(pool).values() for shard in manifest["shards"]})
    rows, hit = _rows_of(pool, shards, options.subject, Erased((tombstone,)))
    if before is None and not rows.num_rows:
        raise Unknown(f"{pool} has no {options.subject[0]} {options.speaker or options.utterance}")
    tombstone["corpora"] = sorted({*tombstone["corpora"], *rows["corpus"].to_pylist()})
    hashes = {
        "speaker": [salted(salt, *options.subject)] if options.speaker else [],
        "utterance": [salted(salt, "utterance", name) for name in rows["utterance_id"].to_pylist()],
        "audio": [salted(salt, "audio", name) for name in rows["pcm_hash"].to_pylist()],
        "source": [salted(salt, "source", *words) for words in _pairs(rows, "corpus", "source")],
    }
    tombstone["hashes"] = {kind: sorted({*tombstone["hashes"][kind], *hashes[kind]}) for kind in KINDS}
    # Files that never became an utterance, but were this speaker's, or the same clip once more.
    bad = {salted(salt, "source", *words) for words in _bad_files(pool, shards, Erased((tombstone,)))}
    tombstone["hashes"]["source"] = sorted({*tombstone["hashes"]["source"], *bad})
    return tombstone, {shard_uri(pool, "utterances", shard) for shard in shards if shard not in hit}


def _rows_of(pool: str, shards: Sequence[str], subject: Sequence[str], erased: Erased) -> tuple[pa.Table, set[str]]:
    """COLUMNS of the utterances meant, of what the tombstone knows, and of all with the audio or the file of one.

    Also the shards that have any, or refer to one. Every shard is read once; sixteen bytes of a row stay in memory,
    which tell what to look at again.
    """
    keys_of, parts = {}, [pa.schema([UTTERANCE.field(name) for name in COLUMNS]).empty_table()]
    for shard in shards:
        table = storage.read_table(shard_uri(pool, "utterances", shard), COLUMNS)
        keys_of[shard] = _keys(table["pcm_hash"], _files_of(table), table["duplicate_of"])
        parts.append(table.filter(pa.array(_meant(table, subject) | erased.belongs(table))))
    rows, wanted = pa.concat_tables(parts), np.empty(0)
    while len(new := np.setdiff1d(_keys(rows["pcm_hash"], _files_of(rows), rows["utterance_id"]), wanted)):
        wanted = np.concatenate([wanted, new])
        hit = [shard for shard, keys in keys_of.items() if np.isin(keys, wanted).any()]
        audio, files = rows["pcm_hash"].combine_chunks(), _files_of(rows).combine_chunks()
        parts = [parts[0]]
        for shard in hit:
            table = storage.read_table(shard_uri(pool, "utterances", shard), COLUMNS)
            same = pc.or_(pc.is_in(table["pcm_hash"], audio), pc.is_in(_files_of(table), files))
            parts.append(table.filter(same))
        rows = pa.concat_tables(parts)
    return rows, {shard for shard, keys in keys_of.items() if np.isin(keys, wanted).any()}


def _files_of(table: pa.Table) -> pa.ChunkedArray:
    """Corpus and path of every row, as one text."""
    return pc.binary_join_element_wise(table["corpus"], table["source"], "\0")


def _keys(*columns: pa.ChunkedArray) -> NDArray[np.float64]:
    """Numbers for the texts of some columns, the same for the same text."""
    return np.concatenate([column_keys(column.drop_null(), "0" * 16) for column in columns])


def _meant(table: pa.Table, subject: Sequence[str]) -> NDArray[np.bool_]:
    if subject[0] == "utterance":
        mask = pc.equal(table["utterance_id"], subject[1])
    else:
        mask = pc.and_(pc.equal(table["corpus"], subject[1]), pc.equal(table["speaker"], subject[2]))
    return np.asarray(pc.fill_null(mask, False))


def _bad_files(pool: str, shards: Iterable[str], erased: Erased) -> Iterator[tuple[str, str]]:
    for shard in shards:
        table = storage.read_table(shard_uri(pool, "quarantine", shard), schema=QUARANTINE)
        yield from _pairs(table.filter(pa.array(erased.belongs(table))), "corpus", "source")


def _pairs(table: pa.Table, *names: str) -> Iterator[tuple[str, str]]:
    return zip(*(table[name].to_pylist() for name in names), strict=True)


def _locations(also: Sequence[str]) -> list[str]:
    """The folders and files given, and the feature caches and ledgers that runs among them name."""
    locations = []
    for location in also:
        if "://" in location and is_database(location):
            locations.append(location)
            continue
        location = storage.absolute(location)
        if not storage.exists(location):
            raise PoolError(f"there is nothing at {location}")
        locations.append(location)
        config = storage.join(location, "config.yaml")
        named = yaml.safe_load(storage.read_bytes(config)) if storage.exists(config) else {}
        named = named.get("training") or named.get("loop") or named  # a sweep's options hold those of its trials
        cache, ledger = named.get("feature_cache"), (named.get("people") or {}).get("ledger")
        if cache and storage.exists(cache):
            locations.append(storage.absolute(cache))
        if ledger:
            locations.append(ledger if "://" in ledger else storage.absolute(ledger))
    return list(dict.fromkeys(locations))


def _files(location: str, pool: str) -> list[str]:
    """All files of a location that may hold traces: those of a pool without its manifests and tombstones."""
    if is_database(location) or storage.is_file(location):
        return [location]
    own = (MANIFEST, FOLDER, SNAPSHOTS) if location == pool else ()
    return [storage.join(location, name) for name in storage.list_files(location) if name.split("/")[0] not in own]


def _drop_half_written(locations: Iterable[str]) -> None:
    """Delete what killed jobs have left: nobody can read it, and it may hold anything."""
    for location in locations:
        if not is_database(location):
            for name, _ in storage.half_written(location):
                storage.remove(name)


def _look(pool: str, locations: Sequence[str], erased: Erased, besides: Container[str]) -> dict[str, dict[str, int]]:
    """Location -> file -> rows of it that are about what is to be erased."""
    files = {location: [name for name in _files(location, pool) if name not in besides] for location in locations}
    counts: dict[str, dict[str, int]] = {location: {} for location in locations}
    with track("looking through files", sum(map(len, files.values()))) as advance:
        for location, names in files.items():
            for name in names:
                if rows := traces.count(name, erased):
                    counts[location][name] = rows
                advance()
    return counts


def _by_table(rows_of: Mapping[str, int], location: str, pool: str) -> dict[str, int]:
    """Rows by table: of a pool, a folder of shards is one; of a run, what has the same name in all rounds."""
    total: dict[str, int] = {}
    for name, rows in rows_of.items():
        table = _folder(name, location) if location == pool else name.rsplit("/", 1)[-1].partition(".")[0]
        table = "clips" if name.endswith(traces.AUDIO) else table  # whose names are ids
        total[table] = total.get(table, 0) + rows
    return total


def _most(recorded: Mapping[str, int], counted: Mapping[str, int]) -> dict[str, int]:
    """The larger of two counts: rows that were counted before a kill stay, although fewer are there now."""
    return {name: max(recorded.get(name, 0), counted.get(name, 0)) for name in sorted({*recorded, *counted})}


def _clear_pool(pool: str, counts: Mapping[str, int], erased: Erased) -> None:
    """Put shards without the erased in the place of those with it, in the manifest and in every snapshot."""
    hit = {_stem(name) for name in counts if _folder(name, pool) in TABLES} & _listed(pool)
    new_name = {shard: _write_cleared(pool, shard, erased) for shard in sorted(hit)}
    entries = {old: {new: read_entry(pool, new)} for old, new in new_name.items()}
    # Snapshots first: the commit deletes what no manifest lists.
    for name in snapshot_names(pool):
        manifest = storage.read_json(snapshot_uri(pool, name))
        shards = _replaced(manifest["shards"], entries)
        if shards != manifest["shards"]:
            uris = [shard_uri(pool, "utterances", shard) for shard in shards]
            ids = storage.read_tables(uris, UTTERANCE, ID_COLUMNS)
            storage.write_json(snapshot_uri(pool, name), manifest | {"shards": shards, "pool_hash": pool_hash(ids)})
    commit(pool, lambda newest: _cleared(pool, newest["shards"], entries, erased))
    _drop_unlisted(pool, erased)
    _clear_derived(pool, counts, erased)


def _cleared(pool: str, shards: Mapping[str, Any], entries: Mapping[str, Mapping[str, Any]], erased: Erased) -> Change:
    """Shards without the erased; those that came since they were looked through are looked through."""
    own = {name for new in entries.values() for name in new}
    came = {shard for shard in shards.keys() - entries.keys() - own if holds(pool, shard, erased)}
    names = {shard: _write_cleared(pool, shard, erased) for shard in sorted(came)}
    entries = {**entries, **{shard: {new: read_entry(pool, new)} for shard, new in names.items()}}
    return Change(entries=_replaced(shards, entries), written={name for new in entries.values() for name in new})


def _drop_unlisted(pool: str, erased: Erased) -> None:
    """Delete shards that no manifest lists and that hold something erased, of an import under way or cut off, or that
    have lost a table, as when this was killed."""
    there = {_stem(name) for name in storage.list_names(storage.join(pool, "utterances"), ".parquet")}
    for shard in there - _listed(pool):
        whole = all(storage.exists(shard_uri(pool, table, shard)) for table in TABLES)
        if not whole or holds(pool, shard, erased):
            drop_shard(pool, shard)


def _write_cleared(pool: str, shard: str, erased: Erased) -> str:
    """Write a shard without the erased under a new name, and all features of it; returns the name."""
    read = {name: storage.read_table(shard_uri(pool, name, shard), schema=schema) for name, schema in TABLES.items()}
    tables = {name: erased.without(table) for name, table in read.items()}
    name = renamed(shard, tables["utterances"]["utterance_id"].to_pylist())
    for file in _derived(pool):
        if _stem(file) == shard:
            rows = erased.without(storage.read_table(file))
            storage.write_table(storage.join(pool, _folder(file, pool), f"{name}.parquet"), rows)
    for table, rows in tables.items():
        storage.write_table(shard_uri(pool, table, name), rows, row_group_rows=256)
    return name


def _clear_derived(pool: str, files: Iterable[str], erased: Erased) -> None:
    """Delete features of shards that are gone, and clear what else lies in the pool."""
    shards = _listed(pool)
    for name in _derived(pool):
        if _stem(name) not in shards:
            storage.remove(name)
    for name in files:
        if _folder(name, pool) not in TABLES and storage.exists(name):
            traces.clear(name, erased)


def _listed(pool: str) -> set[str]:
    return {shard for manifest in manifests(pool).values() for shard in manifest["shards"]}


def _derived(pool: str) -> list[str]:
    """Files of features, whole or half-written, each named after the shard it was made of."""
    files = (storage.join(pool, FEATURES, name) for name in storage.list_files(storage.join(pool, FEATURES)))
    return [name for name in files if not name.endswith(".json")]


def _replaced(shards: Mapping[str, Any], entries: Mapping[str, Mapping[str, Any]]) -> dict[str, Any]:
    return {name: entry for old, own in shards.items() for name, entry in entries.get(old, {old: own}).items()}


def _folder(name: str, location: str) -> str:
    return name.removeprefix(location).strip("/").rpartition("/")[0]


def _stem(name: str) -> str:
    return name.rsplit("/", 1)[-1].removesuffix(".parquet")


def _models(location: str, erased: Erased) -> list[str]:
    """Folders of weights that learnt from something erased, or may have; of a round, those that had its label."""
    files = [] if is_database(location) or storage.is_file(location) else storage.list_files(location)
    folders = sorted({name.rpartition("/")[0] for name in files if name.endswith(WEIGHTS)})
    return [storage.join(location, folder) for folder in folders if _may_know(location, folder, erased)]


def _may_know(location: str, folder: str, erased: Erased) -> bool:
    trajectory, mark, round_path = folder.partition("/rounds/")
    if not mark:
        return True
    number = int(round_path.split("/")[0])
    return any(_used(storage.join(location, trajectory, "rounds", f"{n:04d}"), erased) for n in range(number + 1))


def _used(path: str, erased: Erased) -> bool:
    """True for a round that had a label of something erased, or chose its model by it."""
    labels = storage.read_table(storage.join(path, "labels.parquet"), ["utterance_id"])
    if erased.belongs(labels).any():
        return True
    dev = storage.join(path, "predictions", "dev.parquet")
    return storage.exists(dev) and bool(erased.belongs(storage.read_table(dev, ["utterance_id"])).any())


def _now() -> str:
    return datetime.now(UTC).isoformat(timespec="seconds")
