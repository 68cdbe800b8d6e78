"""The export of a pool: its clips, labels, votes and splits, as one of FORMATS, in a new folder."""

from __future__ import annotations

import hashlib
import json
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from seral import storage
from seral.errors import OptionError, StateError, unknown_name
from seral.exports import FORMATS
from seral.exports.clips import Clip, clips_of, facts_of, read_labels
from seral.exports.options import ExportOptions
from seral.pool.derivations import note_derivation
from seral.pool.shards import open_pool
from seral.pool.tombstones import read_erased

RECORD = "seral-export.json"
"""File of an export that says what it is of; written last."""


@contextmanager
def _aside(out: str) -> Iterator[Path]:
    """An empty folder on a disk in which an export is put together: beside it, or where temporary files are."""
    parent = None if "://" in out else Path(out).parent
    if parent is not None:
        parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix=".seral-export-", dir=parent, ignore_cleanup_errors=True) as folder:
        (aside := Path(folder) / "export").mkdir()
        yield aside


def _publish(folder: Path, out: str) -> None:
    """Put a finished export in its place, the record last in a store."""
    if "://" not in out:
        storage.publish(folder, out, last=RECORD)
        return
    for name in sorted(storage.list_files(folder), key=lambda name: name == RECORD):
        storage.copy_file(folder / name, storage.join(out, name))


def export_pool(options: ExportOptions) -> dict[str, Any]:
    """Write the export, whole or not at all; returns the counts. Equal pools and options give equal bytes.

    Raises StateError where something else is at `out`; an export that is there already is left as it is.
    """
    if options.format not in FORMATS:
        raise OptionError(unknown_name("format", options.format, FORMATS))
    pool, out = open_pool(options.pool), storage.absolute(options.out)
    labels = None if options.labels is None else read_labels(options.labels)
    facts: dict[str, Any] = {"format": options.format, "licence": options.licence, "duplicates": options.duplicates}
    facts |= {"shard_mb": options.shard_mb, "pool_tables": pool.tables_hash, "erased": sorted(pool.tombstones)}
    facts |= {"labels": labels and hashlib.sha256(json.dumps(labels, sort_keys=True).encode()).hexdigest()[:16]}
    version = hashlib.sha256(json.dumps(facts, sort_keys=True).encode()).hexdigest()[:16]
    record = storage.join(out, RECORD)
    if storage.exists(out) and not (storage.exists(record) and storage.read_json(record)["version"] == version):
        raise StateError(f"there is something else at {out}: give another folder for the export")
    if not storage.exists(record):
        note_derivation(pool.uri, out, "clips")
        counts = {"clips": 0, "seconds": 0.0}

        def counted(clips: Iterator[Clip]) -> Iterator[Clip]:
            for clip in clips:
                counts["clips"] += 1
                counts["seconds"] += clip.duration_s
                yield clip

        about = facts_of(pool, options.licence, options.shard_mb, version)
        with _aside(out) as folder, pool.publishing(lambda: [out]):
            clips = clips_of(pool, read_erased(pool.uri), labels, duplicates=options.duplicates)
            FORMATS[options.format].write(counted(clips), folder, about)
            storage.write_json(folder / RECORD, facts | counts | {"version": version, "pool": pool.hash})
            _publish(folder, out)
    written = storage.read_json(record)
    hours = round(written["seconds"] / 3600, 3)
    reader = FORMATS[options.format].reader
    return {
        "out": out,
        "clips": written["clips"],
        "hours": hours,
        "back": f"seral pool import {reader} {out} --out POOL",
    }
