"""Import a corpus into a pool: decode, resample, measure and shard it with Ray Data.

The work is cut into chunks by the list of files alone, so a chunk has the same name and the same rows whatever the
machine. Each chunk becomes one shard, written whole or not at all; the manifest is written last. Killed anywhere, the
same command goes on where it stopped and ends in the same pool. A file that cannot be used becomes a row of the
quarantine table and never takes its neighbours with it.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, Self

import pyarrow as pa
import pyarrow.compute as pc
import ray
from pydantic import Field, model_validator

from seral import storage
from seral.audio.address import path_of
from seral.audio.containers import restore
from seral.audio.decode import BadAudio, encode_flac, pcm16, pcm_hash
from seral.audio.quality import REASONS, measure
from seral.audio.voice import voice_probability
from seral.cluster import ClusterOptions, connect, cpu_count
from seral.corpora import READERS
from seral.corpora.keywords import find_reader, keywords
from seral.corpora.reading.utterance import Skipped, Utterance, Vote
from seral.errors import PoolError, unknown_name
from seral.options import Options
from seral.pool.audit import belonging, total_remark
from seral.pool.chunks import Chunk, Source, decode_utterance, plain, plan_chunks
from seral.pool.dedupe import mark_duplicates
from seral.pool.revisions import EMPTY, commit, read_entry, shard_entry
from seral.pool.shards import TABLES, open_pool, read_manifest, renamed, shard_uri
from seral.pool.tombstones import Erased, read_erased
from seral.progress import track
from seral.schema import QUARANTINE, SAMPLE_RATE, UTTERANCE

ERASED = "erased"
TASKS_PER_CPU, TASK_BYTES = 8, 128_000_000
"""An import is at least so many tasks, none of more bytes, as far as it has shards."""
METADATA = ("corpus", "speaker", "gender", "session", "language", "style", "text", "split", "start_s", "end_s")
"""Columns of a row that are its reader's values unchanged."""


class ImportOptions(Options):
    """Options of an import of one corpus into a pool."""

    reader: str
    """Reader of the corpus, a name in seral.corpora.READERS (`manifest` and `folder` read anything)."""
    root: str
    """The corpus folder, or the manifest file: on a disk, or in a store (`s3://`, `gs://`, whatever Arrow or fsspec
    reads)."""
    out: str
    """The pool: a folder or an object-store address; made when missing, added to when there."""
    reader_options: dict[str, Any] = Field(default_factory=dict)
    """Keyword arguments of the reader, such as `labels: voice`; `seral pool import --help` lists them."""
    columns: dict[str, str] = Field(default_factory=dict)
    """For readers of tables: our name -> the file's column, where the usual names do not fit."""
    corpus: str | None = Field(default=None, pattern=r"^[^/\\]+$")
    """The corpus name in the pool, where the reader's own (for `manifest` and `folder` the folder's) will not do."""
    retry: tuple[str, ...] = ()
    """Reasons whose files in quarantine are tried again, as far as this corpus has them: `[not-audio]` once PyAV is
    there, `[no-label]` with new label files."""
    max_duration_s: float = Field(default=60.0, gt=0)
    """Longer clips go to quarantine, in seconds."""
    max_bad_share: float = Field(default=0.5, ge=0, le=1)
    """The import fails when more than this share of the corpus's files is bad and new."""
    voice: bool = True
    """Listen for speech (seral.audio.voice): what tells it from other sounds, and most of an import's time."""
    shard_mb: float = Field(default=128.0, gt=0)
    """Size of a shard in MB. A few files of each kind are tried to tell what theirs will take as 16 kHz FLAC."""
    cluster: ClusterOptions = ClusterOptions()

    @model_validator(mode="after")
    def _check(self) -> Self:
        for reason in self.retry:
            if reason not in REASONS:
                raise ValueError(unknown_name("reason", reason, REASONS))
        return self


def import_corpus(options: ImportOptions) -> dict[str, Any]:
    """Import one corpus into a pool and return the counts. Raises ReaderError, PoolError, OptionError."""
    options = options.model_copy(update={"out": storage.absolute(options.out)})
    before = read_manifest(options.out) or EMPTY
    listed = _list_sources(options)
    base = _without_retried(options, before, *listed)
    pool_sources = _known_sources(options.out, base)
    sources, skipped = _without_erased(*listed, read_erased(options.out), pool_sources)
    fresh = [
        source
        for source in sources
        if (source.utterance.corpus, source.utterance.source, source.size) not in pool_sources
    ]
    unplaced = [item for item in skipped if (item.corpus, item.source, item.size) not in pool_sources]
    # A chunk that is tried again must not be taken for the one that failed.
    salt = f"{options.max_duration_s} {options.voice}" + (f" after {before['revision']}" if options.retry else "")
    chunks = plan_chunks(
        fresh, shard_bytes=int(options.shard_mb * 1e6), max_duration_s=options.max_duration_s, salt=salt
    )
    missing = [chunk for chunk in chunks if not storage.exists(shard_uri(options.out, "utterances", chunk.name))]
    entries: dict[str, Any] = {}
    if missing:
        connect(options.cluster)
        entries = _write_shards(options, missing)
    if unplaced:
        _write_skipped(options.out, unplaced)
    counts = _finish(options, before, base, chunks, unplaced, entries, listed=len(sources) + len(skipped))
    remark = total_remark(options.reader, belonging(sources, (item.reason for item in skipped)))
    return counts | ({"remark": remark} if remark else {})


def _list_sources(options: ImportOptions) -> tuple[list[Source], list[Skipped]]:
    sources, skipped = [], []
    for item in _reader(options)(path_of(options.root)):
        if isinstance(item, Skipped):
            skipped.append(item)
        else:
            sources.append(Source(utterance=item, size=_size(item)))
    return sources, skipped


def _size(utterance: Utterance) -> int:
    """Bytes of the clip's file, or of its part of one; -1 where there is no file."""
    if utterance.inside is not None:
        return utterance.inside.size
    return utterance.audio.stat().st_size if utterance.audio.is_file() else -1


def _reader(options: ImportOptions) -> Callable[[Path], Iterable[Utterance | Skipped]]:
    arguments = dict(options.reader_options) | ({"columns": options.columns} if options.columns else {})
    read = find_reader(options.reader, arguments)
    if (name := options.corpus) is None:
        return read
    if "corpus" in keywords(READERS[options.reader]):
        return find_reader(options.reader, arguments | {"corpus": name})
    return lambda root: (replace(item, corpus=name) for item in read(root))


def _without_erased(
    sources: Sequence[Source], skipped: Sequence[Skipped], erased: Erased, pool_sources: set[tuple[str, str, int]]
) -> tuple[list[Source], list[Skipped]]:
    """Files of what was erased are not read again: they become rows of the quarantine that do not name the file."""
    allowed, blocked = [], []
    for source in sources:
        corpus, name, speaker = (getattr(source.utterance, of) for of in ("corpus", "source", "speaker"))
        if erased and (
            (corpus, erased.mask(corpus, name), 0) in pool_sources
            or erased.knows("source", corpus, name)
            or (speaker is not None and erased.knows("speaker", corpus, speaker))
        ):
            row = _erased_row(corpus, name, erased)
            blocked.append(Skipped(size=row.pop("source_bytes"), **row))
        else:
            allowed.append(source)
    return allowed, [*skipped, *blocked]


def _without_retried(
    options: ImportOptions, manifest: Mapping[str, Any], sources: Sequence[Source], skipped: Sequence[Skipped]
) -> Mapping[str, Any]:
    """The manifest with shards whose quarantine lacks what is tried again; such shards are written under new names."""
    if not options.retry:
        return manifest
    pool = options.out
    corpus_files = {(source.utterance.corpus, source.utterance.source) for source in sources}
    corpus_files |= {(item.corpus, item.source) for item in skipped}
    shards = {}
    for shard, entry in manifest["shards"].items():
        rows = storage.read_table(shard_uri(pool, "quarantine", shard)).to_pylist()
        remaining = [
            row
            for row in rows
            if row["reason"] not in options.retry or (row["corpus"], row["source"]) not in corpus_files
        ]
        if len(remaining) == len(rows):
            shards[shard] = entry
            continue
        if not remaining and not entry["rows"]:
            continue
        name = renamed(shard, [manifest["revision"], *options.retry])
        for table in TABLES:
            content = storage.read_table(shard_uri(pool, table, shard))
            content = pa.Table.from_pylist(remaining, QUARANTINE) if table == "quarantine" else content
            storage.write_table(shard_uri(pool, table, name), content, row_group_rows=256)
        shards[name] = read_entry(pool, name)
    return {**manifest, "shards": shards}


def _known_sources(pool: str, manifest: Mapping[str, Any]) -> set[tuple[str, str, int]]:
    """(corpus, source, bytes) of everything the pool has dealt with."""
    columns = ["corpus", "source", "source_bytes"]
    sources: set[tuple[str, str, int]] = set()
    for shard in manifest["shards"]:
        for table in ("utterances", "quarantine"):
            rows = storage.read_table(shard_uri(pool, table, shard), columns)
            sources |= set(zip(*(rows[name].to_pylist() for name in columns), strict=True))
    return sources


def _write_shards(options: ImportOptions, chunks: Sequence[Chunk]) -> dict[str, Any]:
    """Write the chunks' shards and return their entries in the manifest."""
    items = [{"chunk": json.dumps(chunk, default=plain)} for chunk in chunks]
    # Between two tasks of a worker Ray Data leaves a tenth of a second, so small shards are done several in a task.
    size = sum(source.bytes for chunk in chunks for source in chunk.sources)
    tasks = min(len(items), max(TASKS_PER_CPU * cpu_count(), -(-size // TASK_BYTES)))
    dataset = ray.data.from_items(items, override_num_blocks=tasks).map(
        import_chunk,
        fn_kwargs={
            "pool": str(options.out),
            "max_duration_s": options.max_duration_s,
            "voice": options.voice,
            "erased": read_erased(options.out),
        },
    )
    entries: dict[str, Any] = {}
    with track(f"importing {chunks[0].sources[0].utterance.corpus}", sum(len(c.sources) for c in chunks)) as advance:
        for row in dataset.iter_rows():
            entries[row["chunk"]] = json.loads(row["entry"])
            advance(row["files"])
    return entries


def import_chunk(
    row: dict[str, Any], *, pool: str, max_duration_s: float, voice: bool, erased: Erased
) -> dict[str, Any]:
    """Decode the files of one chunk and write its tables; `utterances` last, since it marks the chunk as done."""
    chunk = json.loads(row["chunk"])
    uris = {table: shard_uri(pool, table, chunk["name"]) for table in TABLES}
    gold, votes, bad = [], [], []
    checksums: dict[str, storage.Checksum] = {}
    with storage.table_writer(uris["utterances"], UTTERANCE, row_group_rows=256) as good:
        for source in chunk["sources"]:
            utterance = _restored(source["utterance"])
            try:
                record = import_file(utterance, max_duration_s=max_duration_s, voice=voice)
            except BadAudio as error:
                bad.append(_bad_row(utterance, error, source["size"]))
                continue
            if erased.knows("audio", record["pcm_hash"]):
                bad.append(_erased_row(utterance.corpus, utterance.source, erased))
                continue
            good.append(record | {"source_bytes": source["size"]})
            gold.append(_gold_row(record["utterance_id"], utterance))
            votes += [{"utterance_id": record["utterance_id"], **vars(vote)} for vote in utterance.votes]
        for table, rows in (("quarantine", bad), ("gold", gold), ("votes", votes)):
            checksums[table] = storage.write_table(uris[table], pa.Table.from_pylist(rows, TABLES[table]))
    checksums["utterances"] = good.checksum
    entry = json.dumps(shard_entry(len(gold), checksums))
    return {"chunk": chunk["name"], "files": len(chunk["sources"]), "entry": entry}


def _restored(fields: Mapping[str, Any]) -> Utterance:
    """The utterance that `plain` took apart."""
    votes = tuple(Vote(**{**vote, "secondary": tuple(vote["secondary"])}) for vote in fields["votes"])
    inside = restore(fields["inside"])
    return Utterance(**{**fields, "audio": path_of(fields["audio"]), "inside": inside, "votes": votes})


def import_file(utterance: Utterance, *, max_duration_s: float, voice: bool = True) -> dict[str, Any]:
    """Decode and measure one file: a row of schema.UTTERANCE. Raises BadAudio with the reason it cannot be used."""
    decoded = decode_utterance(utterance, max_duration_s)
    pcm = pcm16(decoded.samples)
    fingerprint = pcm_hash(pcm)
    return {
        "utterance_id": utterance_id(utterance.corpus, utterance.name, fingerprint),
        "audio": encode_flac(pcm),
        "duration_s": len(decoded.samples) / SAMPLE_RATE,
        **{name: getattr(utterance, name) for name in METADATA},
        **vars(measure(decoded.samples, voice_probability(decoded.samples) if voice else None)),
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
    return _quarantine_row(erased.mask(corpus, source), corpus, ERASED, "erased on request; kept out", 0)


def _bad_row(utterance: Utterance, error: BadAudio, size: int) -> dict[str, Any]:
    row = _quarantine_row(utterance.source, utterance.corpus, error.reason, error.detail, size)
    return row | {"speaker": utterance.speaker}


def _quarantine_row(source: str, corpus: str, reason: str, detail: str, size: int) -> dict[str, Any]:
    return {"source": source, "corpus": corpus, "reason": reason, "detail": detail, "source_bytes": size}


def _write_skipped(pool: str, skipped: Sequence[Skipped]) -> None:
    """Files a reader could not place become a shard of their own that holds quarantine rows only."""
    name = _skipped_name(skipped)
    rows = [_quarantine_row(item.source, item.corpus, item.reason, item.detail, item.size) for item in skipped]
    for table in ("quarantine", "gold", "votes", "utterances"):
        content = rows if table == "quarantine" else []
        storage.write_table(shard_uri(pool, table, name), pa.Table.from_pylist(content, TABLES[table]))


def _skipped_name(skipped: Sequence[Skipped]) -> str:
    listing = json.dumps(sorted([item.source, item.reason, item.detail, item.size] for item in skipped))
    return f"{skipped[0].corpus}-skipped-{hashlib.sha256(listing.encode()).hexdigest()[:12]}"


def _finish(
    options: ImportOptions,
    before: Mapping[str, Any],
    base: Mapping[str, Any],
    chunks: Sequence[Chunk],
    skipped: Sequence[Skipped],
    new_entries: Mapping[str, Any],
    *,
    listed: int,
) -> dict[str, Any]:
    """Check the share of bad files, mark duplicates across the whole pool, and make it the newest revision.

    `base` is the manifest without what is tried again. `written` has the entries of shards that were written just now;
    of others that are new the files are read.
    """
    pool = options.out
    names = [chunk.name for chunk in chunks] + ([_skipped_name(skipped)] if skipped else [])
    bad = storage.read_tables([shard_uri(pool, "quarantine", name) for name in names], QUARANTINE)
    files = sum(len(chunk.sources) for chunk in chunks) + len(skipped)
    _check_bad_share(bad, listed, options)
    shards = mark_duplicates(pool, list(dict.fromkeys([*sorted(base["shards"]), *names])))
    entry_of = {**new_entries, **base["shards"]}
    commit(pool, before, {name: new or entry_of.get(name) or read_entry(pool, name) for name, new in shards.items()})
    ids = open_pool(pool).ids
    by_reason = {item["values"]: item["counts"] for item in pc.value_counts(bad["reason"]).to_pylist()}
    return {
        "pool": str(pool),
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
        examples = "; ".join(f"{row['source']}: {row['reason']}" for row in bad.slice(0, 5).to_pylist())
        raise PoolError(
            f"{bad.num_rows} of {files} files are bad, more than the allowed share of {options.max_bad_share:g} "
            f"({examples}, …). Nothing was added. Raise max_bad_share if this is expected; work done so far is kept."
        )
