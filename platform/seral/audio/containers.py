"""Clips that lie inside a bigger file: a span of bytes of a tar, or a cell of a Parquet file.

Nothing is unpacked to disk. A span is read by itself, or where the tar is compressed by reading forward to it, so that
clips in the order of the tar unpack it once. Parquet is compressed by pages, and a page of audio is often all of a row
group: the audio of a row group is read forward, a few rows at a time, so that clips in the order of the rows read each
page once.
"""

from __future__ import annotations

import errno
import io
import stat
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO

import pyarrow as pa

from seral.audio.address import StorePath, arrow_source
from seral.security.tables import open_parquet


@dataclass(frozen=True, kw_only=True)
class Span:
    """Bytes of a file, or of what is in a compressed one."""

    offset: int
    size: int
    """In bytes."""
    packed: str | None = None
    """Compression of the file, one of PACKED; None = none."""


@dataclass(frozen=True, kw_only=True)
class Cell:
    """The field `bytes` of a struct in one row of a Parquet file."""

    row_group: int
    row: int
    """Within the row group."""
    column: str
    size: int
    """The row's share of the row group's audio, in bytes: the file does not tell sizes without being read."""


Inside = Span | Cell
PACKED = {".gz": "gzip", ".tgz": "gzip", ".zst": "zstd", ".tzst": "zstd", ".bz2": "bz2"}
"""Suffix of a compressed file -> the name of its compression."""
BATCH_ROWS = 16
BUFFER_BYTES = 1 << 20


def open_clip(audio: Path, inside: Inside | None) -> BinaryIO:
    """The bytes of a clip: the whole file, or what lies inside it.

    Raises OSError where the file cannot be read (FileNotFoundError where the cell is empty).
    """
    if isinstance(audio, StorePath) and inside is None:
        return io.BytesIO(audio.read_bytes())
    if inside is None:
        if not stat.S_ISREG(audio.stat().st_mode):
            raise OSError(errno.EINVAL, "not a file: a folder, a pipe or a device")  # opening a pipe waits for ever
        return audio.open("rb")
    if isinstance(inside, Span) and inside.packed is not None:
        return io.BytesIO(_unpacked(audio, inside.packed).read(inside))
    if isinstance(inside, Span):
        with audio.open("rb") as file:
            file.seek(inside.offset)
            return io.BytesIO(file.read(inside.size))
    try:
        data = _row_group(audio, inside).audio(inside.row)
    except pa.ArrowException as error:
        raise OSError(f"not a Parquet file that can be read: {error}") from None
    if data is None:
        raise FileNotFoundError(f"row {inside.row} of row group {inside.row_group} in {audio} holds no audio")
    return io.BytesIO(data)


def restore(fields: Mapping[str, Any] | None) -> Inside | None:
    """The span or cell that has these fields; None of None."""
    if fields is None:
        return None
    return Span(**fields) if "offset" in fields else Cell(**fields)


def unpack(file: BinaryIO, packed: str) -> pa.NativeFile:
    """Read a compressed file as what it holds, forward only. Raises OSError where it is damaged."""
    return pa.CompressedInputStream(pa.PythonFile(file, mode="r"), packed)


class _Unpacked:
    """A compressed file, read forward; going back starts over."""

    def __init__(self, path: Path, packed: str) -> None:
        self._path, self._packed = path, packed
        self._start()

    def read(self, span: Span) -> bytes:
        """The bytes of one span, fewer where the file ends before it does."""
        if span.offset < self._at:
            self._start()
        while self._at < span.offset and self._take(min(BUFFER_BYTES, span.offset - self._at)):
            pass
        return self._take(span.size) if self._at == span.offset else b""

    def _start(self) -> None:
        self._stream, self._at = unpack(self._path.open("rb"), self._packed), 0

    def _take(self, count: int) -> bytes:
        data: bytes = self._stream.read(count)
        self._at += len(data)
        return data


class _RowGroup:
    """The audio of one row group, read forward; going back starts over."""

    _batches: Iterator[pa.StructArray]
    _batch: pa.StructArray
    _first: int

    def __init__(self, path: Path, row_group: int, column: str) -> None:
        # A small buffer: else the compressed column of the row group lies in memory beside the page.
        self._file = open_parquet(arrow_source(path), path, pre_buffer=False, buffer_size=BUFFER_BYTES)
        self._row_group = row_group
        self._column = column
        self._start()

    def audio(self, row: int) -> bytes | None:
        """The bytes of one row, None where the cell is empty."""
        if row < self._first:
            self._start()
        while row >= self._first + len(self._batch):
            self._first += len(self._batch)
            self._batch = next(self._batches)
        data: bytes | None = self._batch[row - self._first]["bytes"].as_py()
        return data

    def _start(self) -> None:
        batches = self._file.iter_batches(
            batch_size=BATCH_ROWS, row_groups=[self._row_group], columns=[f"{self._column}.bytes"], use_threads=False
        )
        self._batches = (batch.column(0) for batch in batches)
        self._batch = next(self._batches)
        self._first = 0


_open_row_group: dict[tuple[str, int, int, str], _RowGroup] = {}
"""One entry: path, time of change, row group and column -> the row group. Workers outlive a file written anew."""


_open_unpacked: dict[tuple[str, int], _Unpacked] = {}
"""One entry: path and time of change -> the file."""


def _unpacked(audio: Path, packed: str) -> _Unpacked:
    key = (str(audio), audio.stat().st_mtime_ns)
    if key not in _open_unpacked:
        _open_unpacked.clear()
        _open_unpacked[key] = _Unpacked(audio, packed)
    return _open_unpacked[key]


def _row_group(audio: Path, cell: Cell) -> _RowGroup:
    key = (str(audio), audio.stat().st_mtime_ns, cell.row_group, cell.column)
    if key not in _open_row_group:
        _open_row_group.clear()  # first, or two of them are in memory
        _open_row_group[key] = _RowGroup(audio, cell.row_group, cell.column)
    return _open_row_group[key]
