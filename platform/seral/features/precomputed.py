"""Features that were computed elsewhere, by utterance id: a folder that is an `encoder`, and its way to a pool's cache.

    FOLDER/pooled/<number>.parquet   schema.pooled_schema and `pcm_hash`, the audio's; fp16, in any order
    FOLDER/quarantine.parquet        schema.QUARANTINE: utterances whose features cannot be used, `source` holds the id
    FOLDER/features.json             what made them, states, width and digest; written last

`seral.features.ingest` makes the folder. What a pool's cache gets of it has the form of extracted features, so whatever
reads, checks or erases these does so with them. They are never computed.
"""

# L hidden states · D features
from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc

from ser_models.encoders import PrecomputedEncoder, SpeechEncoder, load_encoder
from ser_models.encoders.precomputed import FACTS, NETWORK_NEEDED
from seral import storage
from seral.errors import FeatureError, OptionError
from seral.features.index import ShardIndex
from seral.features.store import FeatureStore
from seral.pool.derivations import note_derivation
from seral.pool.ids import one_array
from seral.progress import say, track
from seral.schema import ENCODER_KEY, QUARANTINE, pooled_schema

FORMAT = 1
"""Goes up whenever the folder is written otherwise."""
POOLED, BAD = "pooled", "quarantine.parquet"
COMMAND = "`seral pool import-features TABLE --pool POOL --made-by NAME --out FOLDER`"
"""The way to such a folder, for messages."""
BYTES_AT_ONCE = 256e6
"""Features, about, that are read together, of whole shards."""
NAMED = 3
"""Utterances without features that a message names."""


def is_precomputed(encoder: str) -> bool:
    """Whether an encoder is a folder of features, on a disk or in a store; a name of the hub or of seral's is none."""
    somewhere = "://" in encoder or Path(encoder).expanduser().is_dir()
    return somewhere and storage.exists(storage.join(encoder, FACTS))


def need_network(encoder: str, what: str | None) -> None:
    """Raise OptionError where an encoder is a folder of features, and something needs more; None = nothing does."""
    if what is not None and is_precomputed(encoder):
        raise OptionError(f"{what} needs a network: {encoder} {NETWORK_NEEDED}")


def load_frozen(encoder: str) -> SpeechEncoder:
    """An encoder whose pooled states are enough: any that `load_encoder` gives, or the face of a folder of features.

    Raises what `load_encoder` raises, and FeatureError for a folder of another version.
    """
    if not is_precomputed(encoder):
        return load_encoder(encoder)
    facts = read_facts(encoder)
    return PrecomputedEncoder(facts["made_by"], states=facts["states"], width=facts["width"], digest=facts["digest"])


def read_facts(folder: str) -> dict[str, Any]:
    """`made_by`, `states`, `width` and `digest` of a folder of features. Raises FeatureError for another version's."""
    facts: dict[str, Any] = storage.read_json(storage.join(folder, FACTS))
    if facts.get("format") != FORMAT:
        raise FeatureError(
            f"{folder}/{FACTS} has format {facts.get('format')}, this version of seral reads {FORMAT}: import the "
            f"features again, by {COMMAND}"
        )
    return facts


def fill_cache(store: FeatureStore, shards: Sequence[str]) -> None:
    """Write what a store lacks from the folder of features that its `encoder` names; others go to its quarantine.

    Raises FeatureError where the folder has nothing of the whole store.
    """
    folder, pool = store.encoder, store.pool
    index = read_index(folder)
    clips_of = {shard: pool.read(shard, ["utterance_id", "pcm_hash"]) for shard in shards}
    every = pa.concat_arrays([pa.array([], pa.string()), *(one_array(clips[0]) for clips in clips_of.values())])
    absent = [name for name, at in zip(every.to_pylist(), index.positions(every), strict=True) if at < 0]
    if absent and len(absent) == len(every) and len(shards) == len(store.shards):
        raise FeatureError(
            f"{folder} has features of none of the {len(every)} utterances of {pool.uri}, such as "
            f"{', '.join(absent[:NAMED])}: import those of this pool, by {COMMAND}, and give that folder as the encoder"
        )
    reasons = _reasons(folder)
    if new := [name for name in absent if name not in reasons]:
        say(
            f"{len(new)} utterances of {pool.uri} have no features in {folder}, e.g. {new[0]}: they are left out. "
            f"Import features of all into another folder, by {COMMAND}"
        )
    note_derivation(pool.uri, folder, "features")
    with track(f"features of {len(shards)} shards from {folder}", len(every)) as advance:
        for some in _groups(store, clips_of):
            rows = _read(store, index, pa.concat_tables(some.values()))
            for shard, clips in some.items():
                _write_shard(store, shard, one_array(clips["utterance_id"]), rows, reasons)
                advance(len(clips))


def stored_schema(numbers: int) -> pa.Schema:
    """Columns of the tables of a folder, for features of so many numbers."""
    return pooled_schema(numbers).append(pa.field("pcm_hash", pa.string()))


def read_index(folder: str) -> ShardIndex:
    """The part and the row of every utterance that a folder has features of."""
    parts = [name.removesuffix(".parquet") for name in storage.list_names(storage.join(folder, POOLED), ".parquet")]
    return ShardIndex.of_files(parts, [_part_uri(folder, part) for part in parts])


def _part_uri(folder: str, part: str) -> str:
    return storage.join(folder, POOLED, f"{part}.parquet")


def _reasons(folder: str) -> dict[str, str]:
    """Utterance -> why its features cannot be used."""
    table = storage.read_table(storage.join(folder, BAD), ["source", "detail"])
    return dict(zip(*(column.to_pylist() for column in table.columns), strict=True))


def _groups(store: FeatureStore, clips_of: Mapping[str, pa.Table]) -> Iterator[dict[str, pa.Table]]:
    """Shards and their clips, as many together as may be read at once."""
    limit, some, rows = BYTES_AT_ONCE / (4 * (store.num_layers + 1) * store.width), dict[str, pa.Table](), 0
    for shard, clips in clips_of.items():
        if some and rows + len(clips) > limit:
            yield some
            some, rows = {}, 0
        some[shard], rows = clips, rows + len(clips)
    if some:
        yield some


def _read(store: FeatureStore, index: ShardIndex, clips: pa.Table) -> pa.Table:
    """Features of those of the clips that the folder of a store has, in its own order.

    Raises FeatureError where they are of other audio: a noisy copy of a pool has its ids.
    """
    schema, folder = stored_schema((store.num_layers + 1) * store.width), store.encoder
    rows_of = index.rows_by_shard(clips["utterance_id"].to_pylist())
    parts = (storage.read_rows(_part_uri(folder, part), rows, schema.names) for part, rows in rows_of.items())
    rows = storage.one_table(parts, schema)
    at = pc.index_in(rows["utterance_id"], value_set=one_array(clips["utterance_id"]))
    other = rows["utterance_id"].filter(pc.not_equal(rows["pcm_hash"], clips["pcm_hash"].take(at)))
    if len(other):
        raise FeatureError(
            f"{folder} has features of other audio than {store.pool.uri} holds of {len(other)} utterances, e.g. "
            f"{other[0]}: import features of this pool, by {COMMAND}"
        )
    return rows.select(store.schema.names)


def _write_shard(store: FeatureStore, shard: str, ids: pa.Array, rows: pa.Table, reasons: Mapping[str, str]) -> None:
    """Write one shard of the cache in the order of the pool's, and the quarantine of what there is nothing of."""
    at = pc.index_in(ids, value_set=one_array(rows["utterance_id"]))
    bad = [
        {"source": name, "reason": "features", "detail": reasons.get(name, "nothing was imported of it")}
        for name in ids.filter(pc.is_null(at)).to_pylist()
    ]
    tables = {
        "quarantine": pa.Table.from_pylist(bad, QUARANTINE),
        POOLED: rows.take(at.drop_null()),
    }
    with store.pool.publishing(lambda: [store.table_uri(name, shard) for name in tables]):
        for name, table in tables.items():
            named = table.replace_schema_metadata({ENCODER_KEY: store.fingerprint})
            storage.write_table(store.table_uri(name, shard), named, row_group_rows=store.rows_in_group)
