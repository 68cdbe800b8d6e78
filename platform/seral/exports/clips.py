"""Clips of a pool as they leave it: FLAC, and all that is known of them, under names that readers of seral know."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc

from seral import storage
from seral.errors import LabelError
from seral.pool.shards import Pool
from seral.pool.tombstones import Erased
from seral.progress import track
from seral.schema import GOLD, RATED, VOTES

ROWS = 64
"""Clips in memory at a time."""
KNOWN = ("corpus", "speaker", "gender", "session", "language", "style", "text", "split")
LABELS = ("emotion", *RATED)
COLUMNS = (*KNOWN, *LABELS, "votes")
"""Fields of a clip, in the order of columns."""
SPLITS = ("train", "dev", "test")
UNSPLIT = "unsplit"
"""Folder of clips that are in no split, where others are."""


@dataclass(frozen=True, kw_only=True)
class Clip:
    """One utterance: its id, FLAC of 16 kHz mono, seconds, and the values of COLUMNS that it has."""

    id: str
    flac: bytes
    duration_s: float
    values: Mapping[str, Any]
    """`votes` is JSON: a list of objects."""

    @property
    def split(self) -> str:
        """The split, or UNSPLIT."""
        return str(self.values.get("split") or UNSPLIT)


@dataclass(frozen=True, kw_only=True)
class About:
    """Facts about an export as a whole."""

    name: str
    """The corpus where there is one, else the name of the pool."""
    licence: str | None
    version: str
    """Hash of what is exported."""
    corpora: tuple[str, ...]
    splits: tuple[str, ...]
    """Splits in use, UNSPLIT among them, in the order train, dev, test."""
    raters: tuple[str, ...]
    """Known by name, sorted."""
    shard_bytes: int
    """Size of a file of many clips."""


def clips_of(
    pool: Pool, erased: Erased, labels: Mapping[str, dict[str, Any]] | None, *, duplicates: bool
) -> Iterator[Clip]:
    """The clips of a pool, sorted by shard and then as they stand; with `labels`, these instead of gold and votes."""
    columns = ["utterance_id", "audio", "duration_s", *KNOWN, "duplicate_of", "source", "pcm_hash"]
    with track("exporting", pool.rows) as advance:
        for shard in pool.shards:
            gold, votes = ({}, {}) if labels is not None else _gold_and_votes(pool, shard)
            for batch in pool.batches(shard, columns, rows=ROWS):
                rows = erased.without(batch)
                rows = rows if duplicates else rows.filter(pc.is_null(rows["duplicate_of"]))
                for row in rows.to_pylist():
                    name = row["utterance_id"]
                    facts = {column: row[column] for column in KNOWN} | (gold if labels is None else labels).get(
                        name, {}
                    )
                    facts |= {"votes": votes[name]} if name in votes else {}
                    values = {column: facts[column] for column in COLUMNS if facts.get(column) is not None}
                    yield Clip(id=name, flac=row["audio"], duration_s=row["duration_s"], values=values)
                advance(batch.num_rows)


def _gold_and_votes(pool: Pool, shard: str) -> tuple[dict[str, dict[str, Any]], dict[str, str]]:
    """Id -> gold labels, and id -> votes as JSON, of one shard."""
    gold = storage.read_table(pool.table_uri("gold", shard), schema=GOLD).to_pylist()
    votes: dict[str, list[dict[str, Any]]] = {}
    for row in storage.read_table(pool.table_uri("votes", shard), schema=VOTES).to_pylist():
        vote = {name: value for name, value in row.items() if value not in (None, []) and (name, value) != ("count", 1)}
        votes.setdefault(vote.pop("utterance_id"), []).append(vote)
    as_json = {name: json.dumps(listed, ensure_ascii=False) for name, listed in votes.items()}
    return {row.pop("utterance_id"): row for row in gold}, as_json


def read_labels(address: str) -> dict[str, dict[str, Any]]:
    """Id -> LABELS, of a table, or of all `labels.parquet` and `consensus.parquet` below a folder, such as a run.

    Of a clip that several label the last one counts, by the order of the paths. Raises LabelError where there is none.
    """
    files = [address]
    if not storage.is_file(address):
        names = [name for name in storage.list_files(address) if name.endswith(("labels.parquet", "consensus.parquet"))]
        files = [storage.join(address, name) for name in names]
    labels: dict[str, dict[str, Any]] = {}
    for file in files:
        table = storage.read_table(file)
        if not {"utterance_id", "emotion"} <= set(table.column_names):
            raise LabelError(f"{file} is no table of labels: it lacks utterance_id or emotion")
        if "answer" in table.column_names:
            table = table.filter(pc.equal(table["answer"], "label"))
        table = table.select(["utterance_id", *(name for name in LABELS if name in table.column_names)])
        labels |= {row.pop("utterance_id"): row for row in table.to_pylist()}
    if not labels:
        raise LabelError(f"there are no labels at {address}: name a run, a consensus, or a Parquet table of labels")
    return labels


def facts_of(pool: Pool, licence: str | None, shard_mb: float, version: str) -> About:
    """Facts about a pool as a whole, read from the columns they need."""
    corpora = sorted(pool.column("corpus").unique().to_pylist())
    splits = {value or UNSPLIT for value in pool.column("split").unique().to_pylist()}
    raters = (storage.read_table(pool.table_uri("votes", shard), ["rater"], schema=VOTES) for shard in pool.shards)
    names = pc.unique(storage.one_table(raters, pa.schema([VOTES.field("rater")]))["rater"]).drop_null().to_pylist()
    return About(
        name=corpora[0] if len(corpora) == 1 else pool.uri.rstrip("/").rpartition("/")[2],
        licence=licence,
        version=version,
        corpora=tuple(corpora),
        splits=tuple(name for name in (*SPLITS, UNSPLIT) if name in splits),
        raters=tuple(sorted(names)),
        shard_bytes=int(shard_mb * 1e6),
    )


def write_clip(out: Path, clip: Clip, folder: str = "audio", data: bytes | None = None, suffix: str = ".flac") -> str:
    """Write a clip to a file of its own, in one of 256 folders by the end of its id; returns its path in `out`."""
    path = f"{folder}/{clip.id[-2:]}/{clip.id}{suffix}"
    (out / path).parent.mkdir(parents=True, exist_ok=True)
    (out / path).write_bytes(clip.flac if data is None else data)
    return path
