"""Rows of pools that tests write without an import."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa

from seral import storage
from seral.audio.decode import encode_flac, pcm_hash
from seral.pool.revisions import Change, commit, read_entry, shard_entry
from seral.pool.shards import TABLES, shard_uri
from seral.pool.stats import MEASURES
from seral.schema import GOLD, QUARANTINE, UTTERANCE, VOTES


def row(name: str, *, seconds: float = 0.25, **values: Any) -> dict[str, Any]:
    seed = int(hashlib.sha256(name.encode()).hexdigest()[:8], 16)
    samples = (0.1 * np.random.default_rng(seed).standard_normal(int(seconds * 16_000))).astype(np.float32)
    return {
        "utterance_id": name,
        "audio": encode_flac(samples),
        "duration_s": seconds,
        "corpus": "made",
        "speaker": "s1",
        "language": "en",
        "snr_db": 10.0,
        "pcm_hash": pcm_hash(samples),
        "source": f"{name}.wav",
    } | values


def put_shard(pool: str, shard: str, rows: Sequence[dict[str, Any]]) -> dict[str, Any]:
    """Write a shard of such rows, which no manifest lists yet; returns its entry."""
    for table, schema in TABLES.items():
        content = rows if table == "utterances" else []
        storage.write_table(shard_uri(pool, table, shard), pa.Table.from_pylist(content, schema))
    return read_entry(pool, shard)


def set_shards(pool: str, entries: Mapping[str, Any]) -> dict[str, Any]:
    """Make these shards, whose tables are written, the whole of a pool; returns the manifest."""
    return commit(pool, lambda _: Change(entries=entries))


def write_large_pool(pool: Path, count: int, *, shard_rows: int = 2000, speakers: int = 50) -> str:
    """A sound pool of many rows that share a few clips; every fiftieth is an exact copy of the row before it."""
    clips = [row(f"clip{number}", seconds=0.1) for number in range(10)]
    entries = {}
    for start in range(0, count, shard_rows):
        rng, size = np.random.default_rng(start), min(shard_rows, count - start)
        ids = [f"made-{digits}" for digits in _hex_digits(rng, size, 8)]
        hashes = _hex_digits(rng, size, 16)
        marks: list[str | None] = [None] * size
        for copy in range(49, size, 50):
            hashes[copy] = hashes[copy - 1]
            smaller, larger = sorted((copy - 1, copy), key=ids.__getitem__)
            marks[larger] = ids[smaller]
        numbers = rng.integers(0, speakers, size)
        columns = {name: [clips[n % 10][name] for n in range(size)] for name in ("audio", "duration_s")} | {
            "utterance_id": ids,
            "pcm_hash": hashes,
            "duplicate_of": marks,
            "corpus": ["made"] * size,
            "speaker": [f"s{number}" for number in numbers],
            "language": [("de", "en", None)[number % 3] for number in numbers],
            "source": [f"part-{number}/recording-{start + n:09d}.wav" for n, number in enumerate(numbers)],
            "text": [f"what speaker {number} says in sentence {n}" for n, number in enumerate(numbers)],
            **{name: rng.uniform(size=size).astype(np.float32) for name in MEASURES if name != "duration_s"},
        }
        nothing = pa.nulls(size)
        tables = {
            "utterances": pa.table({name: columns.get(name, nothing) for name in UTTERANCE.names}, schema=UTTERANCE),
            "gold": pa.table({name: columns.get(name, nothing) for name in GOLD.names}, schema=GOLD),
            "votes": VOTES.empty_table(),
            "quarantine": QUARANTINE.empty_table(),
        }
        name = f"made-{start:09d}"
        sums = {table: storage.write_table(shard_uri(str(pool), table, name), tables[table]) for table in TABLES}
        entries[name] = shard_entry(size, sums)
    set_shards(str(pool), entries)
    return str(pool)


def _hex_digits(rng: np.random.Generator, count: int, size: int) -> list[str]:
    digits = rng.bytes(count * size).hex()
    return [digits[start : start + 2 * size] for start in range(0, len(digits), 2 * size)]
