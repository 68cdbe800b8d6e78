"""The check of a pool: every table against the manifest, and every clip decoded, on all CPUs where there are many."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from seral import storage
from seral.audio.decode import BadAudio, decode_flac
from seral.errors import PoolError
from seral.pool.dedupe import codes
from seral.pool.repair import DAMAGED
from seral.pool.shards import ID_COLUMNS, TABLES, Pool, open_pool, pool_hash
from seral.pool.tombstones import read_erased
from seral.progress import track
from seral.schema import SAMPLE_RATE, UTTERANCE
from seral.storage.check import check_files

ALONE_BYTES = 1e9
"""Up to so many bytes of audio are decoded in this process: half a minute's work, of which starting Ray takes ten."""
TASKS_PER_CPU = 16


def check_pool(uri: str) -> list[str]:
    """Every problem found in a pool, in words: missing or altered tables, wrong counts, bad audio, doubled ids.

    A process has 256 rows of one shard in memory at a time; at the end there are the ids of the whole pool.
    """
    pool = open_pool(uri)
    reports: dict[str, dict[str, Any]] = {}
    with track(f"checking {len(pool.shards)} shards", pool.rows) as advance:
        for report in _reports(pool):
            reports[report["shard"]] = report
            advance(pool.manifest["shards"][report["shard"]]["rows"])
    problems = [problem for shard in pool.shards for problem in json.loads(reports[shard]["problems"])]
    ids_of = {
        shard: storage.read_tables([pool.table_uri("utterances", shard)], UTTERANCE, ID_COLUMNS)
        for shard in pool.shards
        if reports[shard]["readable"]
    }
    problems += _doubled({shard: ids["utterance_id"] for shard, ids in ids_of.items()})
    if not problems and pool_hash(pa.concat_tables([*ids_of.values()] or [pool.ids])) != pool.hash:
        problems.append("the ids do not match the manifest's pool hash")
    problems += _other_files(pool.uri)
    unfinished = [t["begun"] for t in read_erased(pool.uri).tombstones if t["finished"] is None]
    return problems + [f"an erasure begun {begun} did not come to its end: give it again" for begun in unfinished]


def _other_files(pool: str) -> list[str]:
    """Problems of what lies in a pool besides the tables of its shards: manifests, tombstones, features, screens."""
    names = [name for name in storage.list_files(pool) if name.split("/")[0] not in (*TABLES, DAMAGED)]
    problems = list[str]()
    with track("checking features and records", len(names)) as advance:
        for outcome in check_files(pool, names):
            problems += outcome.problems
            advance(1)
    return problems


def _reports(pool: Pool) -> Iterator[dict[str, Any]]:
    """The answers of `check_shard` about every shard, in any order."""
    items = [{"shard": shard} for shard in pool.shards]
    if sum(entry["bytes"] for entry in pool.manifest["shards"].values()) <= ALONE_BYTES:
        yield from (check_shard(item, pool=pool) for item in items)
        return
    import ray  # late: it takes a second, and small pools do without

    from seral.cluster import connect, cpu_count

    connect()
    tasks = min(len(items), TASKS_PER_CPU * cpu_count())
    yield from (
        ray.data.from_items(items, override_num_blocks=tasks).map(check_shard, fn_kwargs={"pool": pool}).iter_rows()
    )


def check_shard(row: dict[str, Any], *, pool: Pool) -> dict[str, Any]:
    """Problems of a shard, as JSON, and whether its rows mean anything."""
    shard = row["shard"]
    problems = _file_problems(pool, shard)
    # What the rows of an altered file say means nothing, and reading them may fail in any way.
    readable = not problems
    if readable:
        problems = [*_row_problems(pool, shard), *_answer_problems(pool, shard)]
    return {"shard": shard, "problems": json.dumps(problems), "readable": readable}


def _file_problems(pool: Pool, shard: str) -> list[str]:
    """Tables of a shard that are missing or not those of the manifest, or else have other columns."""
    problems = []
    for table in TABLES:
        if not storage.exists(pool.table_uri(table, shard)):
            problems.append(f"shard {shard}: its table `{table}` is missing")
            continue
        digest = storage.checksum(pool.table_uri(table, shard)).sha256
        if digest != pool.manifest["shards"][shard]["sha256"][table]:
            problem = f"the bytes of its table `{table}` are not those of the manifest (sha256 {digest[:12]}…)"
            problems.append(f"shard {shard}: {problem}")
    if problems:
        return problems
    for table, schema in TABLES.items():
        try:
            names = storage.read_footer(pool.table_uri(table, shard)).schema.to_arrow_schema().names
        except PoolError as error:
            problems.append(f"shard {shard}: {error}")
            continue
        if names != schema.names:
            problems.append(f"shard {shard}: columns {names} of `{table}`, expected {schema.names}")
    return problems


def _row_problems(pool: Pool, shard: str) -> Iterator[str]:
    """Utterances that are not there, do not decode, or are not as long as their row says."""
    uri, rows = pool.table_uri("utterances", shard), pool.manifest["shards"][shard]["rows"]
    if (count := storage.read_footer(uri).num_rows) != rows:
        yield f"shard {shard}: {count} rows, the manifest says {rows}"
    for batch in storage.read_batches(uri, ["utterance_id", "audio", "duration_s"], rows=256):
        for utterance_id, audio, duration_s in zip(*(column.to_pylist() for column in batch.columns), strict=True):
            try:
                seconds = len(decode_flac(audio)) / SAMPLE_RATE
            except BadAudio as error:
                yield f"{utterance_id} in shard {shard} does not decode: {error}"
                continue
            if abs(seconds - duration_s) > 1e-3:
                yield f"{utterance_id}: {seconds:.3f} s of audio, the row says {duration_s:.3f} s"


def _answer_problems(pool: Pool, shard: str) -> Iterator[str]:
    """Gold labels and votes that are about no utterance of their shard; only their ids are read."""
    ids = pool.read(shard, ["utterance_id"])["utterance_id"].combine_chunks()
    for table in ("gold", "votes"):
        about = storage.read_table(pool.table_uri(table, shard), ["utterance_id"])["utterance_id"]
        if strangers := about.filter(pc.invert(pc.is_in(about, ids))).unique().sort().to_pylist():
            yield f"shard {shard}: `{table}` is about {', '.join(strangers[:5])}, which it does not hold"
        if table == "gold" and pc.count_distinct(about).as_py() < len(about):
            yield f"shard {shard}: `gold` has two rows about one utterance"


def _doubled(ids_of: Mapping[str, pa.ChunkedArray]) -> Iterator[str]:
    """Ids that stand in several rows of the pool."""
    shards, columns = list(ids_of), list(ids_of.values())
    ids = pa.chunked_array([chunk for column in columns for chunk in column.chunks], pa.string())
    shard_N = np.repeat(np.arange(len(columns)), [len(column) for column in columns])
    code_N = codes(ids)
    order_N = np.argsort(code_N, kind="stable")
    again = np.flatnonzero(code_N[order_N[1:]] == code_N[order_N[:-1]])
    for row, row_before in sorted(zip(order_N[again + 1].tolist(), order_N[again].tolist(), strict=True)):
        yield f"{ids[row]} stands in shard {shards[shard_N[row]]} and again in {shards[shard_N[row_before]]}"
