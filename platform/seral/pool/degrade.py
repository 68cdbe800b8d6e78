"""A pool with noise, rooms, narrow bands or codecs laid over it: for studies of what bad recordings cost.

The utterances keep their ids, so that results compare clip by clip with those of the pool it was made of; the two are
not meant to be merged. What was measured of the audio is measured anew.

OUT/degraded.json   the options, and which pool it was
"""

# S samples at 16 kHz
from __future__ import annotations

import hashlib
import zlib
from collections.abc import Mapping
from typing import Any

import numpy as np
import pyarrow as pa
import ray

from seral import storage
from seral.audio.decode import decode_flac, encode_flac, pcm16, pcm_hash
from seral.audio.effects import corrupt
from seral.audio.listening import listen
from seral.audio.quality import measure
from seral.cluster import connect
from seral.errors import StateError
from seral.pool.dedupe import marked
from seral.pool.derive import ORDER, copy_tombstones
from seral.pool.noises import read_noises
from seral.pool.options import DegradeOptions
from seral.pool.revisions import Change, commit, refuse_erased
from seral.pool.shards import EMPTY, REWRITTEN, TABLES, Pool, open_pool, read_manifest, shard_uri
from seral.pool.tombstones import Erased
from seral.progress import track
from seral.schema import UTTERANCE

OPTIONS = "degraded.json"


def degrade_pool(options: DegradeOptions) -> dict[str, Any]:
    """Make the pool, or go on where a making of it was interrupted; returns the counts."""
    pool, out = open_pool(options.pool), storage.absolute(options.out)
    noise = None if options.noise is None else open_pool(options.noise)
    # Pools by what is in them: wherever they are moved, this is the same pool.
    facts = options.model_dump(mode="json", exclude={"cluster", "pool", "out", "noise"})
    facts |= {"pool_tables": pool.tables_hash, "noise_tables": None if noise is None else noise.tables_hash}
    _check_own(read_manifest(out) or EMPTY, out, facts)
    storage.write_json(storage.join(out, OPTIONS), facts | {"pool": pool.uri, "noise": options.noise})
    copy_tombstones(pool.uri, out)
    noises = [] if noise is None else read_noises(noise)
    digest = hashlib.sha256(repr(sorted(facts.items())).encode()).hexdigest()[:8]
    names = {shard: f"{REWRITTEN.sub('', shard)}.{digest}" for shard in pool.shards}
    missing = [shard for shard, name in names.items() if not storage.exists(shard_uri(out, "utterances", name))]
    if missing:
        connect(options.cluster)
        arguments = {"pool": pool, "out": out, "names": names, "noises": ray.put(noises), "options": options}
        dataset = ray.data.from_items([{"shard": shard} for shard in missing], override_num_blocks=len(missing))
        with track("degrading", sum(pool.manifest["shards"][shard]["rows"] for shard in missing)) as advance:
            for row in dataset.map(degrade_shard, fn_kwargs=arguments).iter_rows():
                advance(row["rows"])

    def change(newest: Mapping[str, Any]) -> Change:
        _check_own(newest, out, facts)
        copy_tombstones(pool.uri, out)
        refuse_erased(out, names.values(), Erased(()))
        return marked(out, sorted(names.values()))

    commit(out, change)
    return {"pool": out, "utterances": open_pool(out).rows, "of": pool.uri}


def _check_own(manifest: Mapping[str, Any], out: str, facts: Mapping[str, Any]) -> None:
    options = storage.join(out, OPTIONS)
    if manifest["shards"] and not (storage.exists(options) and facts.items() <= storage.read_json(options).items()):
        raise StateError(f"there is another pool at {out}: give another address")


def degrade_shard(
    row: dict[str, Any], *, pool: Pool, out: str, names: dict[str, str], noises: ray.ObjectRef, options: DegradeOptions
) -> dict[str, Any]:
    """Write one shard of the new pool; `utterances` last, since it marks the shard as done."""
    shard, noise_clips = row["shard"], ray.get(noises)
    for table in ORDER[:-1]:
        storage.read_footer(pool.table_uri(table, shard), TABLES[table])  # no more columns than such a table has
        storage.copy_file(pool.table_uri(table, shard), shard_uri(out, table, names[shard]))
    rows = []
    for utterance in pool.read(shard).to_pylist():
        rng = np.random.default_rng([options.seed, zlib.crc32(utterance["utterance_id"].encode())])
        samples = corrupt(decode_flac(utterance["audio"]), noise_clips, options, rng)
        quality = measure(samples, listen(samples) if options.voice else None)
        pcm = pcm16(samples)
        audio = {"audio": encode_flac(pcm), "pcm_hash": pcm_hash(pcm), "duplicate_of": None}
        rows.append(utterance | vars(quality) | audio)
    table = pa.Table.from_pylist(rows, UTTERANCE)
    storage.write_table(shard_uri(out, "utterances", names[shard]), table, row_group_rows=256)
    return {"rows": len(rows)}
