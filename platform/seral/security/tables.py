"""Parquet files and Arrow schemas of anyone: a table holds values, and nothing in it runs.

An extension type says how a value is read. That of Ray for objects of Python unpickles it, which runs whatever the
writer of the file wanted to run. So a file with an extension type is refused before a value is decoded, and besides
Ray's type is unknown to Arrow in this process whenever a file is opened. Values are decoded in bounded memory, whatever
the file claims.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from seral.errors import PoolError
from seral.security.memory import room

PICKLED = "ray.data.arrow_pickled_object"
"""Ray's extension type whose values are pickles."""
HARMLESS = frozenset({"arrow.json", "arrow.uuid", "arrow.bool8"})
"""Arrow's own, which are read by Arrow itself."""
NAME = b"ARROW:extension:name"
ROOM_MB = 512
"""Memory that any Parquet file may take at a time, and besides EXPANSION times its size."""
EXPANSION = 8


pa.set_memory_pool(pa.system_memory_pool())
# Arrow's own would set a gigabyte aside, which the bound cannot see.


@contextmanager
def bounded(name: str | Path, size: int) -> Iterator[None]:
    """Memory for what a file of so many bytes may hold. Raises PoolError where reading it wants more.

    What Arrow raises about the file gets a note that names it.
    """
    room_bytes = ROOM_MB * 2**20 + EXPANSION * size
    try:
        with room(room_bytes):
            yield
    except MemoryError:
        raise PoolError(
            f"{name}: a file of {size:,} bytes that wants more than {room_bytes / 1e6:,.0f} MB of memory. It is "
            "damaged, or was made to fill memory; write it again in smaller row groups"
        ) from None
    except (OSError, pa.ArrowException) as error:
        error.add_note(str(name))
        raise


class BoundedParquet(pq.ParquetFile):  # type: ignore[misc]  # Arrow has no types
    """A Parquet file that is read in bounded memory (`bounded`)."""

    def __init__(self, source: Any, name: str | Path, **options: Any) -> None:
        self._name, self._source = name, source
        self.size = source.size() if isinstance(source, pa.NativeFile) else Path(source).stat().st_size
        with bounded(name, self.size):
            super().__init__(source, **{"page_checksum_verification": True} | options)

    def without_checksums(self) -> BoundedParquet:
        """The open file, whose pages are not compared with their checksums again."""
        return BoundedParquet(self._source, self._name, metadata=self.metadata, page_checksum_verification=False)

    def read(self, *args: Any, **options: Any) -> pa.Table:
        """Arrow's `read`, bounded."""
        with bounded(self._name, self.size):
            return super().read(*args, **options)

    def read_row_group(self, *args: Any, **options: Any) -> pa.Table:
        """Arrow's `read_row_group`, bounded."""
        with bounded(self._name, self.size):
            return super().read_row_group(*args, **options)

    def read_row_groups(self, *args: Any, **options: Any) -> pa.Table:
        """Arrow's `read_row_groups`, bounded."""
        with bounded(self._name, self.size):
            return super().read_row_groups(*args, **options)

    def iter_batches(self, *args: Any, **options: Any) -> Iterator[pa.RecordBatch]:
        """Arrow's `iter_batches`, each of them bounded."""
        batches = super().iter_batches(*args, **options)
        while True:
            with bounded(self._name, self.size):
                batch = next(batches, None)
            if batch is None:
                return
            yield batch

    def rows(self, table: pa.Table | pa.RecordBatch) -> list[dict[str, Any]]:
        """Rows of a table read from it, bounded: a dictionary may name one long text a million times."""
        with bounded(self._name, self.size):
            rows: list[dict[str, Any]] = table.to_pylist()
            return rows


def open_parquet(source: Any, name: str | Path, schema: pa.Schema | None = None, **options: Any) -> BoundedParquet:
    """Open a Parquet file that Arrow can read from; `name` is what errors call it.

    `schema`: all columns that it may have, and their types. Raises PoolError for others, for extension types, and (as
    what reads it later does) for one that wants more memory than its size explains; pa.ArrowInvalid where it is no
    Parquet. Pages with checksums are compared with them as they are read: OSError.
    """
    with suppress(pa.ArrowKeyError):
        pa.unregister_extension_type(PICKLED)
    parquet = BoundedParquet(source, name, **options)
    try:
        _check(parquet.schema_arrow, name, schema)
    except PoolError:
        parquet.close()
        raise
    return parquet


def read_schema(message: pa.ipc.Message, name: str | Path) -> pa.Schema:
    """The schema of an Arrow stream, without extension types. Raises PoolError where it has one."""
    with suppress(pa.ArrowKeyError):
        pa.unregister_extension_type(PICKLED)
    schema = pa.ipc.read_schema(message)
    _check(schema, name, None)
    return schema


def _check(schema: pa.Schema, name: str | Path, allowed: pa.Schema | None) -> None:
    for field in schema:
        for extension in _extensions(field):
            raise PoolError(
                f"{name}: the column {field.name!r} has the extension type {extension!r}, which decides how its values "
                "are read and may run code. Write the file again without that column"
            )
        if allowed is None:
            continue
        if field.name not in allowed.names:
            raise PoolError(f"{name}: a column {field.name!r} that such a table does not have; is it one of seral's?")
        if field.type != allowed.field(field.name).type:
            kind = allowed.field(field.name).type
            raise PoolError(f"{name}: the column {field.name!r} is of type {field.type}, expected {kind}")


def _extensions(field: pa.Field) -> Iterator[str]:
    """Names of the extension types in a column, and in what it is made of, but for the harmless ones."""
    declared = (field.metadata or {}).get(NAME)
    if declared is not None and declared.decode(errors="replace") not in HARMLESS:
        yield declared.decode(errors="replace")
    yield from _of_type(field.type)


def _of_type(kind: pa.DataType) -> Iterator[str]:
    if isinstance(kind, pa.BaseExtensionType):
        if kind.extension_name not in HARMLESS:
            yield kind.extension_name
        yield from _of_type(kind.storage_type)
    elif pa.types.is_dictionary(kind) or pa.types.is_run_end_encoded(kind):
        yield from _of_type(kind.value_type)
    else:
        for index in range(kind.num_fields):
            yield from _extensions(kind.field(index))
