"""Parquet files under an address."""

from __future__ import annotations

import hashlib
import io
from collections.abc import Iterable, Iterator, Sequence
from contextlib import closing, contextmanager
from itertools import islice
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from numpy.typing import NDArray

from seral.security.tables import FOOTER_SUM, BoundedParquet, footer_sum, open_parquet, without_footer_sum
from seral.storage.addresses import resolve
from seral.storage.files import Checksum, replacing
from seral.storage.records import damaged

TABLES_AT_ONCE = 32
"""Tables that are read before they become one."""
STRETCH = 8
"""Rows of a file that follow one another, on average, from which on they are not copied one by one."""


class TableWriter:
    """Rows of one Parquet file, written a row group at a time: at no time are more of them in memory."""

    def __init__(self, file: _Hashed, schema: pa.Schema, row_group_rows: int) -> None:
        # FLAC, frames and features: compressing them, or looking for values that come again, costs time for nothing.
        bulky = {f.name for f in schema if pa.types.is_large_binary(f.type) or pa.types.is_fixed_size_binary(f.type)}
        codec = {name: "none" if name in bulky else "zstd" for name in schema.names}
        dictionary = [name for name in schema.names if name not in bulky] if bulky else True
        self._schema = without_footer_sum(schema)
        self._writer = pq.ParquetWriter(
            file,
            self._schema,
            compression=codec,
            use_dictionary=dictionary,
            write_statistics=False,
            write_page_checksum=True,
        )
        self._file, self._limit = file, row_group_rows
        self._rows: list[dict[str, Any]] = []
        self._count = 0

    def append(self, row: dict[str, Any]) -> None:
        """Add one row."""
        self._rows.append(row)
        if len(self._rows) == self._limit:
            self._flush()

    def write(self, table: pa.Table) -> None:
        """Add rows that are a table already."""
        self._flush()
        self._writer.write_table(table, row_group_size=self._limit)
        self._count += table.num_rows

    def close(self) -> None:
        """Write what is left, and the footer."""
        self._flush()
        beside = self._schema.metadata or {}
        self._writer.add_key_value_metadata({FOOTER_SUM: footer_sum(self._schema, beside, self._count)})
        self._writer.close()

    @property
    def checksum(self) -> Checksum:
        """Size and checksum of the whole file, once it is closed."""
        return Checksum(size=self._file.size, sha256=self._file.digest.hexdigest())

    def _flush(self) -> None:
        if self._rows:
            rows, self._rows = self._rows, []
            self._writer.write_table(pa.Table.from_pylist(rows, self._schema))
            self._count += len(rows)


class _Hashed(io.RawIOBase):
    """A file that knows the checksum of what was written to it."""

    def __init__(self, file: BinaryIO) -> None:
        self._file, self.size, self.digest = file, 0, hashlib.sha256()

    def writable(self) -> bool:
        return True

    def write(self, data: Any) -> int:
        self.digest.update(data)
        self.size += len(data)
        return self._file.write(data)

    def flush(self) -> None:
        if not self._file.closed:
            self._file.flush()


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
            yield open_parquet(file, uri, schema)
        except (pa.ArrowException, OSError, UnicodeDecodeError) as error:
            if getattr(error, "errno", None) is not None:
                raise  # of the disk; a store's are none of these
            raise damaged(uri, str(error).partition("\n")[0]) from error


def read_table(uri: str | Path, columns: Sequence[str] | None = None, *, schema: pa.Schema | None = None) -> pa.Table:
    """Read one Parquet file, or some of its columns; `schema`: all that it may have."""
    with opened(uri, schema) as parquet:
        return parquet.read(columns=None if columns is None else list(columns))


def read_rows(uri: str | Path, rows: Sequence[int] | NDArray[Any], columns: Sequence[str]) -> pa.Table:
    """Some rows of one Parquet file, in the order asked for; only the row groups that hold them are read."""
    asked = np.asarray(rows, np.int64)
    with opened(uri) as parquet:
        sizes = [parquet.metadata.row_group(group).num_rows for group in range(parquet.num_row_groups)]
        ends = np.cumsum(sizes, dtype=np.int64)
        group_of = np.searchsorted(ends, asked, side="right")
        groups = np.unique(group_of)
        table = parquet.read_row_groups(groups.tolist(), columns=list(columns))
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
