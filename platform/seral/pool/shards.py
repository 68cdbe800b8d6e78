"""A pool on storage: Parquet shards of utterances, a quarantine table, and a manifest that is written last.

POOL/manifest.json               the list of shards; what it does not list does not exist
POOL/utterances/<shard>.parquet  schema.UTTERANCE
POOL/quarantine/<shard>.parquet  schema.QUARANTINE: files that did not become rows, and why
POOL/gold/<shard>.parquet        schema.GOLD: opened by seral.task.gold alone
POOL/votes/<shard>.parquet       schema.VOTES: opened by nothing here
POOL/features/<fingerprint>/     cached features, see seral.features.audio
POOL/revisions/<number>.parquet  schema.CHANGE: what a revision brought and took, see seral.pool.revisions
POOL/snapshots/<name>.json       the manifest of a revision that was named: POOL@name opens it
"""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc

from seral import storage
from seral.audio.decode import BadAudio, decode_flac
from seral.errors import PoolError, unknown_name
from seral.pool.tombstones import read_erased
from seral.progress import track
from seral.schema import GOLD, METADATA_COLUMNS, QUARANTINE, SAMPLE_RATE, UTTERANCE, VOTES

MANIFEST, SNAPSHOTS = "manifest.json", "snapshots"
FORMAT = 2
TABLES = {"utterances": UTTERANCE, "gold": GOLD, "votes": VOTES, "quarantine": QUARANTINE}
"""The tables of every shard."""
ID_COLUMNS = ["utterance_id", "duplicate_of"]
MEDIANS = ("duration_s", "quality", "snr_db", "clipping", "speech_ratio", "voice_ratio", "loudness_db", "bandwidth_hz")
"""Measures whose median is among the statistics."""
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

    @property
    def hash(self) -> str:
        """Hash of the utterance ids and duplicate marks, whatever the sharding: the identity of the pool."""
        return str(self.manifest["pool_hash"])

    @property
    def shards(self) -> list[str]:
        """Names of the shards, sorted."""
        return sorted(self.manifest["shards"])

    @property
    def rows(self) -> int:
        """Number of utterances."""
        return sum(shard["rows"] for shard in self.manifest["shards"].values())

    def table_uri(self, table: str, shard: str) -> str:
        """Address of one shard of the table `utterances`, `gold`, `votes` or `quarantine`."""
        return shard_uri(self.uri, table, shard)

    def read(self, shard: str, columns: list[str] | None = None) -> pa.Table:
        """One shard of utterances."""
        try:
            return storage.read_table(self.table_uri("utterances", shard), columns)
        except (OSError, pa.ArrowInvalid) as error:
            raise PoolError(f"shard {shard!r} of {self.uri} is missing or damaged: {error}") from error

    def clips(self, ids: Collection[str] | None = None) -> Iterator[tuple[str, bytes]]:
        """Ids and FLAC of some utterances, or of all, a shard at a time; of shards with none of them only the ids."""
        asked_ids = None if ids is None else pa.array(sorted(ids), pa.string())
        for shard in self.shards:
            if asked_ids is not None and not pc.any(pc.is_in(self.read(shard, ["utterance_id"])[0], asked_ids)).as_py():
                continue
            table = self.read(shard, ["utterance_id", "audio"])
            table = table if asked_ids is None else table.filter(pc.is_in(table["utterance_id"], asked_ids))
            yield from ((name.as_py(), audio.as_py()) for name, audio in zip(*table.columns, strict=True))

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
        return storage.read_tables(uris, UTTERANCE, ID_COLUMNS)

    @cached_property
    def metadata(self) -> pa.Table:
        """Metadata of every utterance, without audio (schema.METADATA_COLUMNS), sorted by id."""
        schema = pa.schema([UTTERANCE.field(name) for name in METADATA_COLUMNS])
        tables = [self.read(shard, METADATA_COLUMNS).cast(schema) for shard in self.shards]
        return (pa.concat_tables(tables) if tables else schema.empty_table()).sort_by("utterance_id")

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
    manifest = read_manifest(where)
    if manifest is None:
        unfinished = storage.list_names(storage.join(where, "utterances"))
        hint = "its import was interrupted: run the same import again" if unfinished else "make one: seral pool import"
        raise PoolError(f"there is no pool at {where} ({hint})")
    if snapshot is not None:
        names = snapshot_names(where)
        if snapshot not in names:
            raise PoolError(f"{where}: {unknown_name('snapshot', snapshot, names or ['none'])}")
        manifest = storage.read_json(snapshot_uri(where, snapshot))
    return Pool(uri=storage.absolute(where), manifest=manifest)


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


def read_manifest(uri: str) -> dict[str, Any] | None:
    """The manifest of a pool, None when there is none yet."""
    if split_address(uri)[1] is not None:
        raise PoolError(f"{uri} is the address of a snapshot, which never changes; a pool's has no @ in its last part")
    path = storage.join(uri, MANIFEST)
    if not storage.exists(path):
        return None
    manifest: dict[str, Any] = storage.read_json(path)
    if manifest.get("format") != FORMAT:
        raise PoolError(
            f"{path} has format {manifest.get('format')}, this version of seral reads format {FORMAT}: import it again"
        )
    return manifest


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


def check_pool(uri: str) -> list[str]:
    """Every problem found in a pool, in words: missing or altered tables, wrong counts, doubled ids, bad audio.

    One shard is in memory at a time.
    """
    pool = open_pool(uri)
    problems: list[str] = []
    shard_of: dict[str, str] = {}
    with track(f"checking {len(pool.shards)} shards", pool.rows) as advance:
        for shard in pool.shards:
            entry = pool.manifest["shards"][shard]
            problems += _check_shard(pool, shard, entry, shard_of)
            advance(entry["rows"])
    if not problems and pool_hash(pool.ids) != pool.hash:
        problems.append("the ids do not match the manifest's pool hash")
    unfinished = [t["begun"] for t in read_erased(pool.uri).tombstones if t["finished"] is None]
    return problems + [f"an erasure begun {begun} did not come to its end: give it again" for begun in unfinished]


def _check_shard(pool: Pool, shard: str, entry: Mapping[str, Any], shard_of: dict[str, str]) -> list[str]:
    problems = []
    for table in TABLES:
        if not storage.exists(pool.table_uri(table, shard)):
            problems.append(f"shard {shard}: its table `{table}` is missing")
            continue
        digest = storage.checksum(pool.table_uri(table, shard)).sha256
        if digest != entry["sha256"][table]:
            problem = f"the bytes of its table `{table}` are not those of the manifest (sha256 {digest[:12]}…)"
            problems.append(f"shard {shard}: {problem}")
    if problems:
        # What the rows of such a file say means nothing, and reading them may fail in any way.
        return problems
    for table, schema in TABLES.items():
        names = storage.read_footer(pool.table_uri(table, shard)).schema.to_arrow_schema().names
        if names != schema.names:
            problems.append(f"shard {shard}: columns {names} of `{table}`, expected {schema.names}")
    if problems:
        return problems
    rows = pool.read(shard, ["utterance_id", "audio", "duration_s"])
    if rows.num_rows != entry["rows"]:
        problems.append(f"shard {shard}: {rows.num_rows} rows, the manifest says {entry['rows']}")
    return problems + _check_rows(shard, rows, shard_of) + _check_answers(pool, shard, rows["utterance_id"])


def _check_answers(pool: Pool, shard: str, ids: pa.ChunkedArray) -> list[str]:
    """Problems of gold labels and votes that are about no utterance of their shard; only their ids are read."""
    problems = []
    for table in ("gold", "votes"):
        about = storage.read_table(pool.table_uri(table, shard), ["utterance_id"])["utterance_id"]
        if strangers := sorted(set(about.to_pylist()) - set(ids.to_pylist())):
            problems.append(f"shard {shard}: `{table}` is about {', '.join(strangers[:5])}, which it does not hold")
        if table == "gold" and len(about.unique()) < len(about):
            problems.append(f"shard {shard}: `gold` has two rows about one utterance")
    return problems


def _check_rows(shard: str, table: pa.Table, shard_of: dict[str, str]) -> list[str]:
    problems = []
    columns = (table[name].to_pylist() for name in ("utterance_id", "audio", "duration_s"))
    for utterance_id, audio, duration_s in zip(*columns, strict=True):
        if utterance_id in shard_of:
            problems.append(f"{utterance_id} stands in shard {shard} and again in {shard_of[utterance_id]}")
        shard_of[utterance_id] = shard
        try:
            samples = len(decode_flac(audio))
        except BadAudio as error:
            problems.append(f"{utterance_id} in shard {shard} does not decode: {error}")
            continue
        if abs(samples / SAMPLE_RATE - duration_s) > 1e-3:
            problems.append(f"{utterance_id}: {samples / SAMPLE_RATE:.3f} s of audio, the row says {duration_s:.3f} s")
    return problems


def pool_stats(uri: str) -> dict[str, Any]:
    """Counts, hours and quality of a pool, by corpus, as plain values."""
    pool = open_pool(uri)
    table = pool.metadata
    by_corpus = {
        corpus: _stats(table.filter(pc.equal(table["corpus"], corpus)))
        for corpus in sorted(set(table["corpus"].to_pylist()))
    }
    return {
        "pool": pool.uri,
        "pool_hash": pool.hash,
        "shards": len(pool.shards),
        "bytes": sum(shard["bytes"] for shard in pool.manifest["shards"].values()),
        **_stats(table),
        "quarantined": _counts(pool.quarantine["reason"]),
        "corpora": by_corpus,
    }


def _stats(table: pa.Table) -> dict[str, Any]:
    hours = pc.sum(table["duration_s"]).as_py() or 0.0
    named = table.filter(pc.is_valid(table["speaker"]))
    return {
        "utterances": table.num_rows,
        "hours": round(hours / 3600, 3),
        "speakers": len(set(zip(named["corpus"].to_pylist(), named["speaker"].to_pylist(), strict=True))),
        "languages": sorted({language for language in table["language"].to_pylist() if language}),
        "duplicates": table.num_rows - table["duplicate_of"].null_count,
        "channel_faults": _counts(table["channel_fault"].drop_null()),
        "median": {name: _median(table[name]) for name in MEDIANS},
    }


def _counts(column: pa.ChunkedArray) -> dict[str, int]:
    return {item["values"]: item["counts"] for item in pc.value_counts(column).to_pylist()}


def _median(column: pa.ChunkedArray) -> float | None:
    value = pc.quantile(column, q=0.5)[0].as_py()
    return None if value is None else round(value, 4)
