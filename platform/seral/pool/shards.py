"""A pool on storage: Parquet shards of utterances, a quarantine table, and a manifest that is written last.

POOL/manifest.json               the list of shards; what it does not list does not exist
POOL/utterances/<shard>.parquet  schema.UTTERANCE
POOL/quarantine/<shard>.parquet  schema.QUARANTINE: files that did not become rows, and why
POOL/gold/<shard>.parquet        schema.GOLD: opened by seral.task.gold alone
POOL/votes/<shard>.parquet       schema.VOTES: opened by nothing here
POOL/features/<fingerprint>/     cached features, see seral.features.audio
POOL/revisions/<number>.json     the manifest of a revision, see seral.pool.revisions
POOL/revisions/<number>.parquet  schema.CHANGE: what a revision brought and took
POOL/snapshots/<name>.json       the manifest of a revision that was named: POOL@name opens it
"""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc

from seral import storage
from seral.errors import DamagedError, PoolError, StateError, unknown_name
from seral.pool.ids import one_array
from seral.pool.tombstones import tombstones_of
from seral.schema import GOLD, METADATA_COLUMNS, QUARANTINE, UTTERANCE, VOTES
from seral.security.paths import check_name, check_names

MANIFEST, SNAPSHOTS, REVISIONS = "manifest.json", "snapshots", "revisions"
FORMAT = 2
EMPTY: dict[str, Any] = {"format": FORMAT, "revision": 0, "shards": {}}
"""The manifest of a pool that is not there yet."""
TABLES = {"utterances": UTTERANCE, "gold": GOLD, "votes": VOTES, "quarantine": QUARANTINE}
"""The tables of every shard."""
ID_COLUMNS = ["utterance_id", "duplicate_of"]
NAMES = frozenset({"utterance_id", "corpus"})
"""Columns whose values become names of files."""
HASHED = 65_536
"""Rows whose lines are hashed at a time."""
REWRITTEN = re.compile(r"\.[0-9a-f]{8}$")
"""End of the name of a shard of which rows were changed or dropped."""


def shard_uri(pool: str, table: str, shard: str) -> str:
    """Address of one shard of one of TABLES."""
    return storage.join(pool, table, f"{shard}.parquet")


def renamed(shard: str, change: Any) -> str:
    """The name of a shard after a change: what a manifest lists is never altered in place."""
    digest = hashlib.sha256(json.dumps([shard, *change]).encode()).hexdigest()[:8]
    return f"{REWRITTEN.sub('', shard)}.{digest}"


@dataclass(frozen=True)
class Pool:
    """A pool opened for reading."""

    uri: str
    manifest: dict[str, Any]
    columns: tuple[str, ...] = tuple(METADATA_COLUMNS)
    """Columns of METADATA_COLUMNS that `metadata` has: of a large pool not more than are read."""
    tombstones: frozenset[str] = frozenset()
    """Erasures from the pool before it was opened."""

    def __getstate__(self) -> dict[str, Any]:
        """Send another process the address and the manifest, not the tables that were read here."""
        return {"uri": self.uri, "manifest": self.manifest, "tombstones": self.tombstones}

    def refuse_erased(self) -> None:
        """Raise StateError where something was erased since the pool was opened: it may be in memory here."""
        if tombstones_of(self.uri) - self.tombstones:
            raise StateError(
                f"something was erased from {self.uri} since this began, and nothing more is written that may have it: "
                "give the command again"
            )

    @contextmanager
    def publishing(self, files: Callable[[], Iterable[str]]) -> Iterator[None]:
        """For the block that puts files with utterances in their place, none of which may outlive an erasure.

        Raises StateError where something was erased since the pool was opened, also during the block: then `files`,
        which it has put there, are deleted. An erasure looks for files after it has said what is erased, so one of the
        two sees the other.
        """
        self.refuse_erased()
        yield
        try:
            self.refuse_erased()
        except StateError:
            for file in files():
                storage.remove(file)
            raise

    @property
    def hash(self) -> str:
        """Hash of the utterance ids and duplicate marks, whatever the sharding: the identity of the pool."""
        return str(self.manifest["pool_hash"])

    @property
    def tables_hash(self) -> str:
        """Hash of the bytes of all tables, the same wherever the pool lies; that of a noisy copy is another."""
        sums = {name: entry["sha256"] for name, entry in self.manifest["shards"].items()}
        return hashlib.sha256(json.dumps(sums, sort_keys=True).encode()).hexdigest()[:16]

    @property
    def shards(self) -> list[str]:
        """Names of the shards, sorted."""
        return sorted(self.manifest["shards"])

    def shards_of(self, corpora: Collection[str] | None) -> list[str]:
        """Names of the shards that hold a clip of some corpora, sorted; None = all."""
        return self.shards if corpora is None else [s for s in self.shards if self._corpora[s] & set(corpora)]

    @cached_property
    def _corpora(self) -> dict[str, set[str]]:
        """Shard -> the corpora that it holds clips of."""
        return {shard: set(self.read(shard, ["corpus"])[0].unique().to_pylist()) for shard in self.shards}

    @property
    def rows(self) -> int:
        """Number of utterances."""
        return sum(shard["rows"] for shard in self.manifest["shards"].values())

    def table_uri(self, table: str, shard: str) -> str:
        """Address of one shard of the table `utterances`, `gold`, `votes` or `quarantine`."""
        return shard_uri(self.uri, table, shard)

    def read(self, shard: str, columns: list[str] | None = None) -> pa.Table:
        """One shard of utterances."""
        with self._whole(shard):
            table = storage.read_table(self.table_uri("utterances", shard), columns, schema=UTTERANCE)
        for name in NAMES.intersection(table.column_names):
            check_names(table[name], f"{self.uri}, shard {shard}, {name}")
        return table

    def batches(self, shard: str, columns: list[str], *, rows: int) -> Iterator[pa.Table]:
        """One shard of utterances, so many rows at a time."""
        with self._whole(shard):
            uri = self.table_uri("utterances", shard)
            yield from storage.read_batches(uri, columns, rows=rows, schema=UTTERANCE)

    @contextmanager
    def _whole(self, shard: str) -> Iterator[None]:
        """Raise PoolError, which names the shard, where it cannot be read."""
        try:
            yield
        except (OSError, DamagedError) as error:
            raise PoolError(f"shard {shard!r} of {self.uri} is missing or damaged: {error}") from error

    def clips(self, ids: Collection[str] | None = None) -> Iterator[tuple[str, bytes]]:
        """Ids and FLAC of some utterances, or of all, 256 at a time; of shards with none of them only the ids."""
        asked_ids = None if ids is None else pa.array(sorted(ids), pa.string())
        for shard in self.shards:
            shard_ids = self.read(shard, ["utterance_id"])[0]
            if asked_ids is not None and not pc.any(pc.is_in(shard_ids, asked_ids)).as_py():
                continue
            for rows in self.batches(shard, ["utterance_id", "audio"], rows=256):
                rows = rows if asked_ids is None else rows.filter(pc.is_in(rows["utterance_id"], asked_ids))
                yield from ((name.as_py(), audio.as_py()) for name, audio in zip(*rows.columns, strict=True))

    def audio_hashes(self, ids: pa.ChunkedArray | None = None) -> dict[str, str]:
        """Utterance -> hash of its samples, of some or of all."""
        uris = [self.table_uri("utterances", shard) for shard in self.shards]
        table = storage.read_tables(uris, UTTERANCE, ["utterance_id", "pcm_hash"])
        table = table if ids is None else table.filter(pc.is_in(table["utterance_id"], ids.combine_chunks()))
        return dict(zip(*(column.to_pylist() for column in table.columns), strict=True))

    @property
    def ids(self) -> pa.Table:
        """ID_COLUMNS of every utterance, in no particular order."""
        uris = [self.table_uri("utterances", shard) for shard in self.shards]
        ids = storage.read_tables(uris, UTTERANCE, ID_COLUMNS)
        check_names(ids["utterance_id"], f"{self.uri}, utterance_id")
        return ids

    def column(self, name: str, shards: Sequence[str] | None = None) -> pa.ChunkedArray:
        """One of METADATA_COLUMNS of every utterance, or of those in some shards, in no particular order."""
        parts = (self.read(shard, [name]) for shard in (self.shards if shards is None else shards))
        return storage.one_table(parts, pa.schema([UTTERANCE.field(name)]))[0]

    @cached_property
    def metadata(self) -> pa.Table:
        """Metadata of every utterance, without audio, sorted by id."""
        schema = pa.schema([UTTERANCE.field(name) for name in self.columns])
        table = storage.one_table((self.read(shard, list(self.columns)) for shard in self.shards), schema)
        storage.release_memory()
        order, columns = pc.sort_indices(table["utterance_id"]), list[pa.Array]()
        storage.release_memory()
        for name in self.columns:  # one by one: the whole of a large pool is not in memory twice
            column = one_array(table[name])
            table = table.drop_columns(name)
            storage.release_memory()
            columns.append(column.take(order))
            del column
            storage.release_memory()
        return pa.table(columns, schema=schema)

    @cached_property
    def quarantine(self) -> pa.Table:
        """Files that did not become utterances, with the reason."""
        uris = [self.table_uri("quarantine", shard) for shard in self.shards]
        return storage.read_tables(uris, QUARANTINE).sort_by("source")


def open_pool(uri: str) -> Pool:
    """Open a complete pool, or with POOL@NAME a snapshot of one.

    Raises PoolError when there is none, or when an import was interrupted before its end.
    """
    where, snapshot = split_address(uri)
    erased_before = tombstones_of(where)  # before anything else is read
    manifest = read_manifest(where)
    if manifest is None:
        unfinished = storage.list_names(storage.join(where, "utterances"))
        hint = "its import was interrupted: run the same import again" if unfinished else "make one: seral pool import"
        raise PoolError(f"there is no pool at {where} ({hint})")
    if snapshot is not None:
        names = snapshot_names(where)
        if snapshot not in names:
            raise PoolError(f"{where}: {unknown_name('snapshot', snapshot, names or ['none'])}")
        manifest = _read(snapshot_uri(where, snapshot))
    return Pool(uri=storage.absolute(where), manifest=manifest, tombstones=erased_before)


def split_address(uri: str) -> tuple[str, str | None]:
    """The pool and the snapshot that an address names: POOL@NAME, or POOL and None."""
    folder, slash, name = str(uri).rstrip("/").rpartition("/")
    stem, mark, snapshot = name.partition("@")
    return (f"{folder}{slash}{stem}", snapshot) if mark else (str(uri), None)


def snapshot_uri(pool: str, name: str) -> str:
    """Address of the manifest of a snapshot."""
    return storage.join(pool, SNAPSHOTS, f"{name}.json")


def snapshot_names(pool: str) -> list[str]:
    """Names of a pool's snapshots."""
    return [name.removesuffix(".json") for name in storage.list_names(storage.join(pool, SNAPSHOTS), ".json")]


def manifest_uri(pool: str, revision: int) -> str:
    """Address of the manifest of one revision."""
    return storage.join(pool, REVISIONS, f"{revision:06d}.json")


def read_manifest(uri: str) -> dict[str, Any] | None:
    """The newest manifest of a pool, None when there is none yet."""
    if split_address(uri)[1] is not None:
        raise PoolError(f"{uri} is the address of a snapshot, which never changes; a pool's has no @ in its last part")
    manifest = stored_manifest(uri)
    while (after := next_manifest(uri, manifest)) is not None:  # its writer has not come to copy it
        manifest = after
    return None if manifest is EMPTY else manifest


def stored_manifest(pool: str) -> dict[str, Any]:
    """POOL/manifest.json, EMPTY where it is not."""
    path = storage.join(pool, MANIFEST)
    return _read(path) if storage.exists(path) else EMPTY


def next_manifest(pool: str, manifest: Mapping[str, Any]) -> dict[str, Any] | None:
    """The manifest of the revision after another's, None where there is none."""
    path = manifest_uri(pool, manifest.get("revision", 0) + 1)
    return _read(path) if storage.exists(path) else None


def _read(uri: str) -> dict[str, Any]:
    """A manifest of this format whose names of shards are names. Raises PoolError for any other."""
    manifest = storage.read_json(uri)
    version = manifest.get("format") if isinstance(manifest, dict) else None
    if version != FORMAT:
        raise PoolError(f"{uri} has format {version}, this version of seral reads format {FORMAT}: import it again")
    shards = manifest.get("shards")
    if not isinstance(shards, dict) or not all(isinstance(entry, dict) for entry in shards.values()):
        raise PoolError(f"{uri} lists no shards: is it the manifest of a pool?")
    for shard in shards:
        check_name(shard, f"{uri}, shard")
    return manifest  # type: ignore[no-any-return]


def pool_hash(ids: pa.Table) -> str:
    """Hash of (utterance_id, duplicate_of) in order of the ids."""
    digest = hashlib.sha256()
    order = pc.sort_indices(ids["utterance_id"])
    for start in range(0, len(order), HASHED):
        rows = ids.take(order[start : start + HASHED])
        lines = pc.binary_join_element_wise(
            rows["utterance_id"], "\t", pc.fill_null(rows["duplicate_of"], ""), "\n", ""
        )
        digest.update("".join(lines.to_pylist()).encode())
    return digest.hexdigest()[:16]
