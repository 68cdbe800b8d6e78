"""Statistics of a pool, by one pass over what is known of its utterances, of which sixty bytes a row stay in memory."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc

from seral import storage
from seral.pool.shards import Pool, open_pool
from seral.schema import PROVENANCE, QUARANTINE, UTTERANCE

WORDS = ("corpus", "speaker", "language", "channel_fault")
"""Columns of words that are counted."""
MEASURES = [field.name for field in UTTERANCE if pa.types.is_floating(field.type) and field.name not in PROVENANCE]
"""Everything of an utterance that is a number and a measure."""
MEDIANS = ("duration_s", "quality", "snr_db", "clipping", "speech_ratio", "voice_ratio", "loudness_db", "bandwidth_hz")
"""Measures whose median is among the statistics."""


def pool_stats(uri: str) -> dict[str, Any]:
    """Counts, hours and quality of a pool, by corpus, as plain values."""
    pool = open_pool(uri)
    return describe(pool, read_facts(pool))


def read_facts(pool: Pool, look: Callable[[pa.Table], object] = len) -> pa.Table:
    """WORDS as codes, MEASURES and `is_duplicate` of every utterance, in no particular order.

    `look` is called with these columns, `utterance_id` and `duplicate_of` of one shard after another.
    """
    names = ["utterance_id", "duplicate_of", *WORDS, *MEASURES]
    parts = [_coded(pa.Table.from_batches([], pa.schema([UTTERANCE.field(name) for name in names])))]
    for shard in pool.shards:
        rows = pool.read(shard, names)
        look(rows)
        parts.append(_coded(rows))
    return pa.concat_tables(parts).unify_dictionaries()


def _coded(rows: pa.Table) -> pa.Table:
    columns = {name: rows[name].dictionary_encode() for name in WORDS} | {name: rows[name] for name in MEASURES}
    return pa.table(columns | {"is_duplicate": pc.is_valid(rows["duplicate_of"])})


def describe(pool: Pool, facts: pa.Table) -> dict[str, Any]:
    """The statistics of a pool by what `read_facts` has read of it."""
    corpora = {name.as_py(): name for name in facts["corpus"].unique().dictionary}
    parts = ((name, facts.filter(pc.equal(facts["corpus"], corpora[name]))) for name in sorted(corpora))
    by_corpus = {name: _stats(part, len(part["speaker"].drop_null().unique())) for name, part in parts}
    uris = [pool.table_uri("quarantine", shard) for shard in pool.shards]
    reasons = storage.read_tables(uris, QUARANTINE, ["reason"])["reason"]
    return {
        "pool": pool.uri,
        "pool_hash": pool.hash,
        "shards": len(pool.shards),
        "bytes": sum(shard["bytes"] for shard in pool.manifest["shards"].values()),
        **_stats(facts, sum(corpus["speakers"] for corpus in by_corpus.values())),
        "quarantined": _counts(reasons),
        "corpora": by_corpus,
    }


def _stats(facts: pa.Table, speakers: int) -> dict[str, Any]:
    hours = pc.sum(facts["duration_s"]).as_py() or 0.0
    return {
        "utterances": facts.num_rows,
        "hours": round(hours / 3600, 3),
        "speakers": speakers,
        "languages": sorted(language for language in facts["language"].unique().to_pylist() if language),
        "duplicates": pc.sum(facts["is_duplicate"]).as_py() or 0,
        "channel_faults": _counts(facts["channel_fault"].drop_null()),
        "median": {name: _median(facts[name]) for name in MEDIANS},
    }


def _counts(column: pa.ChunkedArray) -> dict[str, int]:
    """Values and how often they stand in a column, by name."""
    return dict(sorted((item["values"], item["counts"]) for item in pc.value_counts(column).to_pylist()))


def _median(column: pa.ChunkedArray) -> float | None:
    value = pc.quantile(column, q=0.5)[0].as_py()
    return None if value is None else round(value, 4)
