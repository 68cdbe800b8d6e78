"""Clips that lie inside a bigger file: a span of bytes of a tar, or a cell of a Parquet file.

Nothing is unpacked to disk. A span is read by itself. Parquet is compressed by pages, so the audio column of one row
group is read at once and kept until a clip of another is asked for: clips in the order of the rows read it once.
"""

from __future__ import annotations

import errno
import io
import stat
from collections.abc import Mapping
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any, BinaryIO

import pyarrow as pa
import pyarrow.parquet as pq


@dataclass(frozen=True, kw_only=True)
class Span:
    """Bytes of a file."""

    offset: int
    size: int
    """In bytes."""


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


def open_clip(audio: Path, inside: Inside | None) -> BinaryIO:
    """The bytes of a clip: the whole file, or what lies inside it.

    Raises OSError where the file cannot be read (FileNotFoundError where the cell is empty).
    """
    if inside is None:
        if not stat.S_ISREG(audio.stat().st_mode):
            raise OSError(errno.EINVAL, "not a file: a folder, a pipe or a device")  # opening a pipe waits for ever
        return audio.open("rb")
    if isinstance(inside, Span):
        with audio.open("rb") as file:
            file.seek(inside.offset)
            return io.BytesIO(file.read(inside.size))
    found = audio.stat()
    version = (str(audio), found.st_mtime_ns, found.st_size)
    data = _row_group(version, inside.row_group, inside.column)[inside.row].as_py()
    if data is None:
        raise FileNotFoundError(f"row {inside.row} of row group {inside.row_group} in {audio} holds no audio")
    return io.BytesIO(data)


def restore(fields: Mapping[str, Any] | None) -> Inside | None:
    """The place that was taken apart into its fields."""
    if fields is None:
        return None
    return Span(**fields) if "offset" in fields else Cell(**fields)


@lru_cache(maxsize=1)
def _row_group(version: tuple[str, int, int], row_group: int, column: str) -> pa.Array:
    """The audio of a row group. `version` is path, time and size: workers outlive a file that is written anew."""
    try:
        with pq.ParquetFile(version[0]) as file:
            table = file.read_row_group(row_group, columns=[f"{column}.bytes"])
    except pa.ArrowInvalid as error:
        raise OSError(f"not a Parquet file that can be read: {error}") from None
    return pa.concat_arrays([chunk.field("bytes") for chunk in table[column].chunks])
