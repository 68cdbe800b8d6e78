"""Parquet files under an address."""

from __future__ import annotations

import hashlib
import io
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import closing, contextmanager
from itertools import islice
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
import pyarrow as pa
import pyarrow.fs as pafs
import pyarrow.parquet as pq
from numpy.typing import NDArray

from seral.security.tables import BoundedParquet, open_parquet
from seral.storage.addresses import resolve
from seral.storage.files import Checksum, replacing
from seral.storage.records import begins, damaged
from seral.storage.stores import BLOCK

SUMS_HEAD, DIGITS, TAIL = b"sha256 of all before, and of the footer: ", 64, 8
"""Words before the two checksums of a table, their digits, and the bytes after a footer: its length, and `PAR1`."""
TABLES_AT_ONCE = 32
"""Tables that are read before they become one."""
STRETCH = 8
"""Rows of a file that follow one another, on average, from which on they are not copied one by one."""

_compared: dict[tuple[Any, ...], set[int]] = {}
"""Address and size of a file, and columns -> its row groups that this process has compared with their checksums."""


class TableWriter:
    """Rows of one Parquet file, written a row group at a time: at no time are more of them in memory.

    Pages have the checksums that Parquet knows. Between the last of them and the footer, where no reader looks, stand
    those of all that is before and of the footer.
    """

    def __init__(self, file: _Hashed, schema: pa.Schema, row_group_rows: int) -> None:
        # FLAC, frames and features: compressing them, or looking for values that come again, costs time for nothing.
        bulky = {f.name for f in schema if pa.types.is_large_binary(f.type) or pa.types.is_fixed_size_binary(f.type)}
        codec = {name: "none" if name in bulky else "zstd" for name in schema.names}
        dictionary = [name for name in schema.names if name not in bulky] if bulky else True
        self._writer = pq.ParquetWriter(
            file,
            schema,
            compression=codec,
            use_dictionary=dictionary,
            write_statistics=False,
            write_page_checksum=True,
        )
        self._file, self._schema, self._limit = file, schema, row_group_rows
        self._rows: list[dict[str, Any]] = []

    def append(self, row: dict[str, Any]) -> None:
        """Add one row."""
        self._rows.append(row)
        if len(self._rows) == self._limit:
            self._flush()

    def write(self, table: pa.Table) -> None:
        """Add rows that are a table already."""
        self._flush()
        self._writer.write_table(table, row_group_size=self._limit)

    def close(self) -> None:
        """Write what is left, the checksums and the footer."""
        self._flush()
        footer = self._file.later(self._writer.close)
        begin = len(footer) - TAIL - int.from_bytes(footer[-TAIL:][:4], "little")
        self._file.write(footer[:begin])
        self._file.write(_sums(self._file.digest.hexdigest(), footer[begin:]))
        self._file.write(footer[begin:])

    @property
    def checksum(self) -> Checksum:
        """Size and checksum of the whole file, once it is closed."""
        return Checksum(size=self._file.size, sha256=self._file.digest.hexdigest())

    def _flush(self) -> None:
        if self._rows:
            rows, self._rows = self._rows, []
            self._writer.write_table(pa.Table.from_pylist(rows, self._schema))


class _Hashed(io.RawIOBase):
    """A file that knows the checksum of what was written to it."""

    def __init__(self, file: BinaryIO) -> None:
        self._file, self.size, self.digest = file, 0, hashlib.sha256()
        self._waiting: list[bytes] | None = None

    def writable(self) -> bool:
        return True

    def write(self, data: Any) -> int:
        if self._waiting is not None:
            self._waiting.append(bytes(data))
            return len(self._waiting[-1])
        self.digest.update(data)
        self.size += len(data)
        return self._file.write(data)

    def later(self, write: Callable[[], None]) -> bytes:
        """The bytes that a function writes, which do not reach the file."""
        self._waiting = []
        try:
            write()
            return b"".join(self._waiting)
        finally:
            self._waiting = None

    def flush(self) -> None:
        if not self._file.closed:
            self._file.flush()


def _sums(before: str, footer: bytes) -> bytes:
    return SUMS_HEAD + before.encode() + hashlib.sha256(footer).hexdigest().encode()


@contextmanager
def table_writer(uri: str | Path, schema: pa.Schema, *, row_group_rows: int = 1024) -> Iterator[TableWriter]:
    """Write a Parquet file row by row; it is there, whole, when the block has ended, and not at all after an error.

    Small row groups keep readers of audio in bounded memory.
    """
    with replacing(uri) as file, closing(TableWriter(_Hashed(file), schema, row_group_rows)) as writer:
        yield writer


def write_table(uri: str | Path, table: pa.Table, *, row_group_rows: int = 1024) -> Checksum:
    """Write one Parquet file, whole or not at all."""
    with table_writer(uri, table.schema, row_group_rows=row_group_rows) as writer:
        writer.write(table)
    return writer.checksum


@contextmanager
def opened(uri: str | Path, schema: pa.Schema | None = None) -> Iterator[BoundedParquet]:
    """A Parquet file for the time of the block; `schema`: all that it may have (seral.security.tables).

    Raises DamagedError, which names the file, where it cannot be read as it was written.
    """
    fs, path = resolve(uri)
    with fs.open_input_file(path) as file:
        try:
            if isinstance(fs, pafs.LocalFileSystem):  # from a store it would be a question more
                check_footer(file, uri)
            yield open_parquet(file, uri, schema)
        except (pa.ArrowException, OSError, UnicodeDecodeError) as error:
            if getattr(error, "errno", None) is not None:
                raise  # of the disk; a store's are none of these
            raise damaged(uri, str(error).partition("\n")[0]) from error


def check_footer(file: pa.NativeFile, uri: str | Path) -> tuple[int, str] | None:
    """Count and checksum of the bytes before the sums of a table, where it has any.

    Raises DamagedError for a footer that is not the one that was written.
    """
    size = file.size()
    length = int.from_bytes(file.read_at(TAIL, size - TAIL)[:4], "little") if size > TAIL else size
    end = size - TAIL - length - len(SUMS_HEAD) - 2 * DIGITS
    if end < 0:
        return None
    block: bytes = file.read_at(size - end, end)
    sums, footer = block[: len(SUMS_HEAD) + 2 * DIGITS], block[len(SUMS_HEAD) + 2 * DIGITS :]
    if not begins(sums, SUMS_HEAD):
        return None
    before = sums[len(SUMS_HEAD) : -DIGITS].decode(errors="replace")
    if sums != _sums(before, footer):
        raise damaged(uri)
    return end, before


def check_table(uri: str | Path) -> bool:
    """Compare every byte of a table with its checksums; whether it has any. Raises DamagedError."""
    fs, path = resolve(uri)
    with fs.open_input_file(path) as file:
        if (expected := check_footer(file, uri)) is None:
            read_footer(uri)  # its length may be what is damaged: then it is not where it is looked for
            return False
        file.seek(0)
        left, digest = expected[0], hashlib.sha256()
        while left and (block := file.read(min(left, BLOCK))):
            digest.update(block)
            left -= len(block)
    if digest.hexdigest() != expected[1]:
        raise damaged(uri)
    return True


def read_table(uri: str | Path, columns: Sequence[str] | None = None, *, schema: pa.Schema | None = None) -> pa.Table:
    """Read one Parquet file, or some of its columns; `schema`: all that it may have."""
    with opened(uri, schema) as parquet:
        return parquet.read(columns=None if columns is None else list(columns))


def read_rows(uri: str | Path, rows: Sequence[int] | NDArray[Any], columns: Sequence[str]) -> pa.Table:
    """Some rows of one Parquet file, in the order asked for; only the row groups that hold them are read.

    A process compares each of them with its checksums once: features are read in every round.
    """
    asked = np.asarray(rows, np.int64)
    with opened(uri) as parquet:
        sizes = [parquet.metadata.row_group(group).num_rows for group in range(parquet.num_row_groups)]
        ends = np.cumsum(sizes, dtype=np.int64)
        group_of = np.searchsorted(ends, asked, side="right")
        groups = np.unique(group_of)
        compared = _compared.setdefault((str(uri), parquet.size, *columns), set())
        reader = parquet.without_checksums() if compared.issuperset(groups.tolist()) else parquet
        table = reader.read_row_groups(groups.tolist(), columns=list(columns))
        compared.update(groups.tolist())
    # Where each group that was read begins, in the file and in what was read.
    read_sizes = np.asarray(sizes, np.int64)[groups]
    shift = (ends[groups] - read_sizes) - (np.cumsum(read_sizes) - read_sizes)
    at = asked - shift[np.searchsorted(groups, group_of)]
    breaks = np.flatnonzero(np.diff(at) != 1) + 1
    if not len(at) or len(breaks) > len(at) // STRETCH:
        return table.take(pa.array(at))
    return pa.concat_tables([table.slice(int(part[0]), len(part)) for part in np.split(at, breaks)])  # without a copy


def read_batches(
    uri: str | Path, columns: Sequence[str] | None = None, *, rows: int, schema: pa.Schema | None = None
) -> Iterator[pa.Table]:
    """Read one Parquet file, or some of its columns, so many rows at a time; `schema`: all that it may have."""
    with opened(uri, schema) as parquet:
        for batch in parquet.iter_batches(rows, columns=None if columns is None else list(columns)):
            yield pa.Table.from_batches([batch])


def read_footer(uri: str | Path, schema: pa.Schema | None = None) -> pq.FileMetaData:
    """Footer of a Parquet file: rows, schema, what was written beside them; `schema`: all columns it may have."""
    with opened(uri, schema) as parquet:
        return parquet.metadata


def read_tables(uris: Iterable[str | Path], schema: pa.Schema, columns: Sequence[str] | None = None) -> pa.Table:
    """Read Parquet files one after another into one table; no file gives an empty table of the schema."""
    names = schema.names if columns is None else list(columns)
    part_schema = pa.schema([schema.field(name) for name in names])
    return one_table((read_table(uri, names) for uri in uris), part_schema)


def one_table(parts: Iterable[pa.Table], schema: pa.Schema) -> pa.Table:
    """Tables one after another as one of a schema; as many small ones they would take half as much memory again."""
    joined, tables = list[pa.Table](), iter(parts)
    while some := [part.cast(schema) for part in islice(tables, TABLES_AT_ONCE)]:
        joined.append(pa.concat_tables(some).combine_chunks())
    return pa.concat_tables(joined) if joined else schema.empty_table()
