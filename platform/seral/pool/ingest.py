"""Import a corpus into a pool: decode, resample, measure and shard it with Ray Data.

The work is cut into chunks by the list of files alone, so a chunk has the same name and the same rows whatever the
machine. Each chunk becomes one shard, written whole or not at all; the manifest is written last. Killed anywhere, the
same command goes on where it stopped and ends in the same pool. A file that cannot be used becomes a row of the
quarantine table and never takes its neighbours with it.
"""

from __future__ import annotations

import hashlib
import itertools
import json
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import ray
from numpy.typing import NDArray

from ser_models.channels import Channel
from seral import storage
from seral.audio.containers import Span
from seral.audio.decode import BadAudio, encode_flac, pcm16, pcm_hash
from seral.audio.limits import USUAL, SoundLimits
from seral.audio.listening import listen
from seral.audio.quality import REASONS, measure
from seral.cluster import connect, cpu_count
from seral.corpora.options import read_corpus
from seral.corpora.reading.utterance import Skipped, Utterance
from seral.errors import PoolError, StateError
from seral.pool.audit import belonging, total_remark
from seral.pool.chunks import Chunk, decode_utterance, plan_chunks, task_block
from seral.pool.dedupe import marked
from seral.pool.listing import BATCH_ROWS, Known, Listing, Source, quarantine_row
from seral.pool.options import ImportOptions
from seral.pool.revisions import Change, commit, read_entry, refuse_erased, shard_entry
from seral.pool.shards import EMPTY, TABLES, open_pool, read_manifest, renamed, shard_uri
from seral.pool.tombstones import Erased, read_erased
from seral.progress import track
from seral.schema import QUARANTINE, SAMPLE_RATE, UTTERANCE

ERASED = "erased"
TASKS_PER_CPU, TASK_BYTES = 8, 128_000_000
"""An import is at least so many tasks, none of more bytes, as far as it has shards."""
METADATA = ("corpus", "speaker", "gender", "session", "language", "style", "text", "split", "start_s", "end_s")
"""Columns of a row that are its reader's values unchanged."""


def import_corpus(options: ImportOptions) -> dict[str, Any]:
    """Import one corpus into a pool and return the counts. Raises ReaderError, PoolError, OptionError."""
    options = options.model_copy(update={"out": storage.absolute(options.out)})
    before = read_manifest(options.out) or EMPTY
    items = read_corpus(options)
    with Listing(item if isinstance(item, Skipped) else Source.listed(item) for item in items) as listing:
        return _import_listed(options, before, listing)


def _import_listed(options: ImportOptions, before: Mapping[str, Any], listing: Listing) -> dict[str, Any]:
    base = _without_retried(options, before, listing)
    pool_files, erased = _known_files(options.out, base), read_erased(options.out)
    blocked_N = _blocked(listing, erased, pool_files)
    fresh = np.flatnonzero(~blocked_N & ~pool_files.rows(listing.sources, "size"))
    skipped = pa.concat_tables([listing.skipped, _erased_rows(listing, np.flatnonzero(blocked_N), erased)])
    unplaced = skipped.filter(pa.array(~pool_files.rows(skipped, "source_bytes")))
    # A chunk that is tried again must not be taken for the one that failed.
    salt = f"{options.max_duration_s} {options.voice} {options.channel}" + (
        f" after {before['revision']}" if options.retry else ""
    )
    if options.limits != SoundLimits(seconds=options.max_duration_s):
        salt += f" {options.max_channels} {options.max_decoded_mb}"
    chunks = plan_chunks(listing, fresh, shard_bytes=int(options.shard_mb * 1e6), limits=options.limits, salt=salt)
    missing = [chunk for chunk in chunks if not storage.exists(shard_uri(options.out, "utterances", chunk.name))]
    entries: dict[str, Any] = {}
    if missing:
        connect(options.cluster)
        entries = _write_shards(options, listing, missing, erased)
    if unplaced.num_rows:
        _write_skipped(options.out, unplaced)
    listed = listing.sources.num_rows + listing.skipped.num_rows
    names = [chunk.name for chunk in chunks] + ([_skipped_name(unplaced)] if unplaced.num_rows else [])
    bad = storage.read_tables([shard_uri(options.out, "quarantine", name) for name in names], QUARANTINE)
    _check_bad_share(bad, listed, options)

    def change(newest: Mapping[str, Any]) -> Change:
        _check_there(options.out, names)
        refuse_erased(options.out, names, erased)
        others = _without_retried(options, newest, listing)["shards"]
        wanted = marked(options.out, list(dict.fromkeys([*sorted(others), *names])), {**entries, **others})
        return Change(entries=wanted.entries, written={*wanted.written, *base["shards"]})

    commit(options.out, change)
    counts = _counts(
        options.out, bad, files=sum(len(chunk.rows) for chunk in chunks) + unplaced.num_rows, listed=listed
    )
    usable = listing.sources.num_rows - int(blocked_N.sum())
    remark = total_remark(options.reader, belonging(usable, skipped["reason"].to_pylist()))
    return counts | ({"remark": remark} if remark else {})


def _blocked(listing: Listing, erased: Erased, pool_files: Known) -> NDArray[np.bool_]:
    """Sources of what was erased, (N,): they are not read again."""
    blocked_N = np.zeros(listing.sources.num_rows, dtype=bool)
    if not erased:
        return blocked_N
    columns = listing.sources.select(["corpus", "source", "speaker"])
    rows = (row for batch in columns.to_batches() for row in zip(*map(pa.Array.to_pylist, batch.columns), strict=True))
    for number, (corpus, source, speaker) in enumerate(rows):
        blocked_N[number] = (
            pool_files.has(corpus, erased.mask(corpus, source), 0)
            or erased.knows("source", corpus, source)
            or (speaker is not None and erased.knows("speaker", corpus, speaker))
        )
    return blocked_N


def _erased_rows(listing: Listing, rows: NDArray[np.int64], erased: Erased) -> pa.Table:
    """Rows of the quarantine that do not name the file."""
    pairs = [(listing.text("corpus", row), listing.text("source", row)) for row in rows.tolist()]
    return pa.Table.from_pylist([_erased_row(corpus, source, erased) for corpus, source in pairs], QUARANTINE)


def _without_retried(options: ImportOptions, manifest: Mapping[str, Any], listing: Listing) -> Mapping[str, Any]:
    """The manifest with shards whose quarantine lacks what is tried again; such shards are written under new names."""
    if not options.retry:
        return manifest
    pool = options.out
    shards = {}
    for shard, entry in manifest["shards"].items():
        rows = storage.read_table(shard_uri(pool, "quarantine", shard), schema=QUARANTINE).to_pylist()
        remaining = [
            row
            for row in rows
            if row["reason"] not in options.retry or not listing.files.has(row["corpus"], row["source"], None)
        ]
        if len(remaining) == len(rows):
            shards[shard] = entry
            continue
        if not remaining and not entry["rows"]:
            continue
        name = renamed(shard, [manifest["revision"], *options.retry])
        for table in TABLES:
            content = storage.read_table(shard_uri(pool, table, shard), schema=TABLES[table])
            content = pa.Table.from_pylist(remaining, QUARANTINE) if table == "quarantine" else content
            storage.write_table(shard_uri(pool, table, name), content, row_group_rows=256)
        shards[name] = read_entry(pool, name)
    return {**manifest, "shards": shards}


def _known_files(pool: str, manifest: Mapping[str, Any]) -> Known:
    """Everything the pool has dealt with."""
    columns = ["corpus", "source", "source_bytes"]
    uris = (shard_uri(pool, table, shard) for shard in manifest["shards"] for table in ("utterances", "quarantine"))
    return Known.of(storage.read_table(uri, columns) for uri in uris)


def _write_shards(options: ImportOptions, listing: Listing, chunks: Sequence[Chunk], erased: Erased) -> dict[str, Any]:
    """Write the chunks' shards and return their entries in the manifest."""
    # Between two tasks of a worker Ray Data leaves a tenth of a second, so small shards are done several in a task.
    bytes_N = np.asarray(listing.sources["clip_bytes"])
    size = sum(int(bytes_N[chunk.rows].sum()) for chunk in chunks)
    tasks = min(len(chunks), max(TASKS_PER_CPU * cpu_count(), -(-size // TASK_BYTES)))
    bounds = np.linspace(0, len(chunks), tasks + 1).astype(int).tolist()
    # The lists of files wait in the object store, and where that is full on disk, not in this process.
    blocks = [ray.put(task_block(listing, chunks[start:end])) for start, end in itertools.pairwise(bounds)]
    dataset = ray.data.from_arrow_refs(blocks).map(
        import_chunk,
        fn_kwargs={
            "pool": str(options.out),
            "limits": options.limits,
            "voice": options.voice,
            "channel": options.channel,
            "erased": erased,
        },
    )
    entries: dict[str, Any] = {}
    corpus = listing.text("corpus", int(chunks[0].rows[0]))
    with track(f"importing {corpus}", sum(len(chunk.rows) for chunk in chunks)) as advance:
        for row in dataset.iter_rows():
            entries[row["chunk"]] = json.loads(row["entry"])
            advance(row["files"])
    return entries


def import_chunk(
    row: dict[str, Any], *, pool: str, limits: SoundLimits, voice: bool, channel: Channel, erased: Erased
) -> dict[str, Any]:
    """Decode the files of one chunk and write its tables; `utterances` last, since it marks the chunk as done."""
    uris = {table: shard_uri(pool, table, row["chunk"]) for table in TABLES}
    gold, votes, bad = [], [], []
    checksums: dict[str, storage.Checksum] = {}
    with storage.table_writer(uris["utterances"], UTTERANCE, row_group_rows=256) as good:
        sources = sorted(map(Source.of, row["facts"], row["audio"]), key=_forward)
        for source in sources:
            utterance = source.utterance
            try:
                record = import_file(utterance, limits=limits, voice=voice, channel=channel)
            except BadAudio as error:
                bad.append(_bad_row(utterance, error, source.size))
                continue
            if erased.knows("audio", record["pcm_hash"]):
                bad.append(_erased_row(utterance.corpus, utterance.source, erased))
                continue
            good.append(record | {"source_bytes": source.size})
            gold.append(_gold_row(record["utterance_id"], utterance))
            votes += [{"utterance_id": record["utterance_id"], **vars(vote)} for vote in utterance.votes]
        for table, rows in (("quarantine", bad), ("gold", gold), ("votes", votes)):
            checksums[table] = storage.write_table(uris[table], pa.Table.from_pylist(rows, TABLES[table]))
    checksums["utterances"] = good.checksum
    entry = json.dumps(shard_entry(len(gold), checksums))
    return {"chunk": row["chunk"], "files": len(row["facts"]), "entry": entry}


def _forward(source: Source) -> tuple[str, int]:
    """Sorted so, clips of a packed file are read forward; others stay in their order."""
    inside = source.utterance.inside
    if not isinstance(inside, Span) or inside.packed is None:
        return "", 0
    return str(source.utterance.audio), inside.offset


def import_file(
    utterance: Utterance, *, limits: SoundLimits = USUAL, voice: bool = True, channel: Channel = "auto"
) -> dict[str, Any]:
    """Decode and measure one file: a row of schema.UTTERANCE. Raises BadAudio with the reason it cannot be used."""
    decoded = decode_utterance(utterance, limits, channel)
    pcm = pcm16(decoded.samples)
    fingerprint = pcm_hash(pcm)
    return {
        "utterance_id": utterance_id(utterance.corpus, utterance.name, fingerprint),
        "audio": encode_flac(pcm),
        "duration_s": len(decoded.samples) / SAMPLE_RATE,
        **{name: getattr(utterance, name) for name in METADATA},
        **vars(measure(decoded.samples, listen(decoded.samples) if voice else None)),
        "channel_fault": decoded.channel_fault,
        "duplicate_of": None,
        "pcm_hash": fingerprint,
        "source": utterance.source,
        "source_rate_hz": decoded.source_rate_hz,
    }


def utterance_id(corpus: str, name: str, pcm_fingerprint: str) -> str:
    """The stable id: corpus and a hash of the decoded audio and of the corpus's own name for it.

    The name itself stays out: in many corpora it spells the label.
    """
    digest = hashlib.blake2b(f"{name}\0{pcm_fingerprint}".encode(), digest_size=8).hexdigest()
    return f"{corpus}-{digest}"


def _gold_row(utterance_id: str, utterance: Utterance) -> dict[str, Any]:
    names = ("emotion", "valence", "arousal", "dominance")
    return {"utterance_id": utterance_id, **{name: getattr(utterance, name) for name in names}}


def _erased_row(corpus: str, source: str, erased: Erased) -> dict[str, Any]:
    return quarantine_row(erased.mask(corpus, source), corpus, ERASED, "erased on request; kept out", 0)


def _bad_row(utterance: Utterance, error: BadAudio, size: int) -> dict[str, Any]:
    row = quarantine_row(utterance.source, utterance.corpus, error.reason, error.detail, size)
    return row | {"speaker": utterance.speaker}


def _write_skipped(pool: str, skipped: pa.Table) -> None:
    """Files a reader could not place become a shard of their own that holds quarantine rows only."""
    name = _skipped_name(skipped)
    for table in ("quarantine", "gold", "votes", "utterances"):
        storage.write_table(
            shard_uri(pool, table, name), skipped if table == "quarantine" else TABLES[table].empty_table()
        )


def _skipped_name(skipped: pa.Table) -> str:
    keys = ["source", "reason", "detail", "source_bytes"]
    digest, comma = hashlib.sha256(b"["), ""
    for batch in skipped.select(keys).sort_by([(key, "ascending") for key in keys]).to_batches(BATCH_ROWS):
        for row in batch.to_pylist():
            digest.update(f"{comma}{json.dumps([*row.values()])}".encode())
            comma = ", "
    digest.update(b"]")
    return f"{skipped['corpus'][0].as_py()}-skipped-{digest.hexdigest()[:12]}"


def _check_there(pool: str, shards: Sequence[str]) -> None:
    """Raise StateError where what this import has written was deleted by another process."""
    there = set(storage.list_names(storage.join(pool, "utterances"), ".parquet"))
    if gone := [shard for shard in shards if f"{shard}.parquet" not in there]:
        raise StateError(f"{pool} has lost {gone[0]}, which was written just now; run this again, it goes on from here")


def _counts(pool: str, bad: pa.Table, *, files: int, listed: int) -> dict[str, Any]:
    """Counts of an import of so many new files, of all that its reader listed."""
    ids = open_pool(pool).ids
    by_reason = {item["values"]: item["counts"] for item in pc.value_counts(bad["reason"]).to_pylist()}
    return {
        "pool": pool,
        "files": files,
        "already_there": listed - files,
        "utterances": files - bad.num_rows,
        "quarantined": bad.num_rows,
        "reasons": by_reason,
        "pool_utterances": ids.num_rows,
        "pool_duplicates": ids.num_rows - ids["duplicate_of"].null_count,
    }


def _check_bad_share(bad: pa.Table, files: int, options: ImportOptions) -> None:
    absent = bad.filter(pc.equal(bad["reason"], "no-audio")).num_rows
    bad = bad.filter(pc.invert(pc.is_in(bad["reason"], pa.array(["repeated", "no-audio", ERASED]))))
    files -= absent  # labels of a part that is not here, and no files
    if files and bad.num_rows / files > options.max_bad_share:
        most = max(set(reasons := bad["reason"].to_pylist()), key=reasons.count)
        examples = "; ".join(f"{row['source']}: {row['reason']}" for row in bad.slice(0, 5).to_pylist())
        raise PoolError(
            f"{bad.num_rows} of {files} files are bad, more than the allowed share of {options.max_bad_share:g} "
            f"({examples}, …; {most}: {REASONS[most]}). Nothing was added. Raise max_bad_share if this is expected; "
            "work done so far is kept."
        )
