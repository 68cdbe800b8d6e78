"""Listing of a corpus, on disk: the memory of an import does not grow with its corpus.

Sources and what was skipped are rows of two Arrow files in a temporary folder, which are mapped and not read.
"""

# N rows
from __future__ import annotations

import hashlib
import json
import os
import tempfile
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from seral.audio.address import path_of
from seral.audio.containers import restore
from seral.corpora.reading.utterance import Skipped, Utterance, Vote
from seral.errors import room_for
from seral.schema import QUARANTINE, SAMPLE_RATE

BATCH_ROWS = 1024
"""Rows of a batch, of every one but the last."""
LISTED = pa.schema(
    [
        ("corpus", pa.string()),
        ("source", pa.string()),
        ("facts", pa.string()),  # JSON of all that decides a row besides the file's content
        ("audio", pa.binary()),  # the path, which need not be UTF-8
        ("suffix", pa.string()),
        ("speaker", pa.string()),
        ("size", pa.int64()),
        ("clip_bytes", pa.int64()),
    ]
)
DIGEST_BYTES = 16


@dataclass(frozen=True, kw_only=True)
class Source:
    """One file (or segment) to import, with its size in bytes."""

    utterance: Utterance
    size: int

    @staticmethod
    def listed(utterance: Utterance) -> Source:
        """With the bytes of the clip's file, or of its part of one; -1 where there is no file."""
        if utterance.inside is not None:
            return Source(utterance=utterance, size=utterance.inside.size)
        size = utterance.audio.stat().st_size if utterance.audio.is_file() else -1
        return Source(utterance=utterance, size=size)

    @property
    def clip_bytes(self) -> int:
        """Bytes of the clip: of its file, or of a longer recording no more than its seconds at 16 kHz."""
        start_s, end_s = self.utterance.start_s, self.utterance.end_s
        if end_s is None:
            return self.size
        return min(self.size, int((end_s - (start_s or 0.0)) * SAMPLE_RATE * 2))

    def facts(self) -> str:
        """All that decides a row besides the file's content. The folder the corpus lies in does not; its labels do."""
        metadata = {name: value for name, value in vars(self.utterance).items() if name != "audio"}
        if metadata["channel"] is None:  # as facts were before rows could name one: shards keep their names
            del metadata["channel"]
        return json.dumps(metadata | {"size": self.size}, sort_keys=True, default=vars)

    def row(self) -> dict[str, Any]:
        """The row of LISTED."""
        utterance = self.utterance
        return {
            "corpus": utterance.corpus,
            "source": utterance.source,
            "facts": self.facts(),
            "audio": os.fsencode(str(utterance.audio)),
            "suffix": utterance.audio.suffix.lower(),
            "speaker": utterance.speaker,
            "size": self.size,
            "clip_bytes": self.clip_bytes,
        }

    @staticmethod
    def of(facts: str, audio: bytes) -> Source:
        """The source that these facts are about."""
        fields = json.loads(facts)
        size, inside = fields.pop("size"), restore(fields.pop("inside"))
        votes = tuple(Vote(**{**vote, "secondary": tuple(vote["secondary"])}) for vote in fields.pop("votes"))
        path = path_of(os.fsdecode(audio))
        return Source(utterance=Utterance(audio=path, inside=inside, votes=votes, **fields), size=size)


class Listing:
    """Everything that a reader has yielded, in its order; closed, its files are gone."""

    def __init__(self, items: Iterable[Source | Skipped]) -> None:
        self._folder = tempfile.TemporaryDirectory(prefix="seral-listing-")
        folder = Path(self._folder.name)
        try:
            self._write(folder, items)
        except BaseException:
            self._folder.cleanup()
            raise
        self.sources = _mapped(folder / "sources")
        """LISTED, of what can be read."""
        self.skipped = _mapped(folder / "skipped")
        """QUARANTINE, of what cannot be placed."""

    @staticmethod
    def _write(folder: Path, items: Iterable[Source | Skipped]) -> None:
        with (
            room_for(folder),
            _Rows(folder / "sources", LISTED) as sources,
            _Rows(folder / "skipped", QUARANTINE) as skipped,
        ):
            for item in items:
                if isinstance(item, Skipped):
                    skipped.append(quarantine_row(item.source, item.corpus, item.reason, item.detail, item.size))
                else:
                    sources.append(item.row())

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._folder.cleanup()

    def source(self, row: int) -> Source:
        """One of the sources."""
        return Source.of(self.text("facts", row), self.text("audio", row))

    def text(self, column: str, row: int) -> Any:
        """One value of a column of the sources."""
        return self.sources[column].chunk(row // BATCH_ROWS)[row % BATCH_ROWS].as_py()

    @cached_property
    def files(self) -> Known:
        """The files of all sources and of all that was skipped, whatever their size."""
        return Known([*_keys(self.sources, None), *_keys(self.skipped, None)])


class Known:
    """Files, each known by its corpus, its path there and its bytes: 16 bytes each."""

    def __init__(self, digests: Iterable[NDArray[np.bytes_]]) -> None:
        self._digests = np.sort(np.concatenate([np.empty(0, f"S{DIGEST_BYTES}"), *digests]))

    @staticmethod
    def of(tables: Iterable[pa.Table]) -> Known:
        """Files of tables with the columns corpus, source and source_bytes."""
        return Known(digests for table in tables for digests in _keys(table, "source_bytes"))

    def has(self, corpus: str, source: str, size: int | None) -> bool:
        """Whether a file is among them; without a size, whether it was listed."""
        return bool(self._among(np.array([_digest(corpus, source, size)], f"S{DIGEST_BYTES}"))[0])

    def rows(self, table: pa.Table, size: str | None) -> NDArray[np.bool_]:
        """Rows of a table with the columns corpus and source, and their bytes in `size`, that are among them, (N,)."""
        return np.concatenate([np.empty(0, bool), *map(self._among, _keys(table, size))])

    def _among(self, digests: NDArray[np.bytes_]) -> NDArray[np.bool_]:
        if not len(self._digests):
            return np.zeros(len(digests), dtype=bool)
        at_N = np.searchsorted(self._digests, digests).clip(max=len(self._digests) - 1)
        among_N: NDArray[np.bool_] = self._digests[at_N] == digests
        return among_N


def quarantine_row(source: str, corpus: str, reason: str, detail: str, size: int) -> dict[str, Any]:
    """A row of schema.QUARANTINE."""
    return {"source": source, "corpus": corpus, "reason": reason, "detail": detail, "source_bytes": size}


def _keys(table: pa.Table, size: str | None) -> Iterator[NDArray[np.bytes_]]:
    for batch in table.to_batches(max_chunksize=BATCH_ROWS):
        sizes = [None] * len(batch) if size is None else batch[size].to_pylist()
        columns = batch["corpus"].to_pylist(), batch["source"].to_pylist(), sizes
        yield np.array([_digest(*key) for key in zip(*columns, strict=True)], f"S{DIGEST_BYTES}")


def _digest(corpus: str, source: str, size: int | None) -> bytes:
    text = f"{corpus}\0{source}" + ("" if size is None else f"\0{size}")
    return hashlib.blake2b(text.encode(), digest_size=DIGEST_BYTES).digest()


class _Rows:
    """A table that is written to a file a batch at a time."""

    def __init__(self, path: Path, schema: pa.Schema) -> None:
        self._writer, self._schema = pa.ipc.new_file(str(path), schema), schema
        self._rows: list[dict[str, Any]] = []

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._flush()
        self._writer.close()

    def append(self, row: dict[str, Any]) -> None:
        """Write one more row, at the latest when the file is closed."""
        self._rows.append(row)
        if len(self._rows) == BATCH_ROWS:
            self._flush()

    def _flush(self) -> None:
        if self._rows:
            self._writer.write_batch(pa.RecordBatch.from_pylist(self._rows, self._schema))
            self._rows = []


def _mapped(path: Path) -> pa.Table:
    return pa.ipc.open_file(pa.memory_map(str(path))).read_all()
