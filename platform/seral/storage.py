"""Files and tables under one address, on a local disk or in an object store (`s3://`, `gs://`), through pyarrow.fs.

Every write is all or nothing: to a temporary name and renamed on a local disk; an object store shows an upload only
once it is whole. So a file that exists is complete, and its existence can mean "done".
"""

from __future__ import annotations

import ctypes
import fcntl
import hashlib
import io
import json
import os
import re
import tempfile
import time
import uuid
from collections.abc import Iterable, Iterator, Sequence
from contextlib import closing, contextmanager, suppress
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
import pyarrow as pa
import pyarrow.fs as pafs
import pyarrow.parquet as pq
from numpy.typing import NDArray

from seral.errors import OptionError, PoolError, room_for
from seral.secrets import files
from seral.secrets.addresses import complaint
from seral.security.tables import open_parquet
from seral.security.text import parse_json


def resolve(uri: str | Path) -> tuple[pafs.FileSystem, str]:
    """The file system an address lives on and the path inside it; a plain path is made absolute. No address has a
    password: OptionError."""
    text = str(uri)
    if "://" in text:
        if reason := complaint(text):
            raise OptionError(reason)
        return pafs.FileSystem.from_uri(text)  # type: ignore[no-any-return]
    return pafs.LocalFileSystem(), absolute(text)


HALF_WRITTEN = re.compile(r"(.+)\.[0-9a-f]{8}\.partial")
REMOVE_TRIES = 20  # 50 ms apart
BLOCK = 1 << 23
"""Bytes of a file that goes through whole."""
TABLES_AT_ONCE = 32
"""Tables that are read before they become one."""
STRETCH = 8
"""Rows of a file that follow one another, on average, from which on they are not copied one by one."""


def inside_job() -> bool:
    """Whether this process is the driver of a job submitted to a Ray cluster."""
    return "RAY_JOB_CONFIG_JSON_ENV_VAR" in os.environ


def absolute(uri: str | Path) -> str:
    """An address that means the same in every process: workers may have another working directory.

    Raises OptionError for a relative path in a cluster job, whose working directory is deleted at its end.
    """
    text = str(uri).rstrip("/") or "/"
    if "://" in text:
        return text
    path = os.path.expanduser(text)
    if inside_job() and not os.path.isabs(path):
        raise OptionError(f"{text}: a cluster job needs an absolute path, or an address, that every node can reach")
    return os.path.abspath(path)


def join(uri: str | Path, *parts: str) -> str:
    """`uri` with path parts appended."""
    return "/".join([str(uri).rstrip("/"), *parts])


def exists(uri: str | Path) -> bool:
    """Whether a file or folder exists."""
    fs, path = resolve(uri)
    return bool(fs.get_file_info(path).type != pafs.FileType.NotFound)


def is_file(uri: str | Path) -> bool:
    """Whether a file exists, not a folder."""
    fs, path = resolve(uri)
    return bool(fs.get_file_info(path).type == pafs.FileType.File)


def release_memory() -> None:
    """Give back to the system what this process keeps of memory that it read into and no longer uses."""
    pa.default_memory_pool().release_unused()
    if trim := getattr(ctypes.CDLL(None), "malloc_trim", None):
        trim(0)


def list_names(uri: str | Path, suffix: str = "") -> list[str]:
    """Sorted names directly under a folder that end with `suffix`; a missing folder has none."""
    fs, path = resolve(uri)
    entries = fs.get_file_info(pafs.FileSelector(path, allow_not_found=True))
    return sorted(entry.base_name for entry in entries if entry.base_name.endswith(suffix))


def list_files(uri: str | Path) -> list[str]:
    """Sorted paths of all files below a folder, relative to it; a missing folder has none."""
    fs, path = resolve(uri)
    entries = fs.get_file_info(pafs.FileSelector(path, allow_not_found=True, recursive=True))
    files = (entry.path for entry in entries if entry.type == pafs.FileType.File)
    return sorted(file.removeprefix(path.rstrip("/") + "/") for file in files)


def make_folder(uri: str | Path, *, private: bool = False) -> None:
    """Create a folder and its parents, none in an object store. All in a `private` one is its owner's alone."""
    files.create(*resolve(uri), private=private)


def remove(uri: str | Path) -> None:
    """Delete a file or a whole folder; missing is fine, also when another process deletes or writes meanwhile."""
    fs, path = resolve(uri)
    for tries_left in reversed(range(REMOVE_TRIES)):
        kind = fs.get_file_info(path).type
        try:
            if kind == pafs.FileType.Directory:
                fs.delete_dir(path)
            elif kind == pafs.FileType.File:
                fs.delete_file(path)
            return
        except OSError:  # something in the folder went, or came, between listing and deleting
            if not tries_left:
                raise
            time.sleep(0.05)


def move(source: str | Path, target: str | Path) -> None:
    """Rename; both addresses must live on the same file system."""
    fs, path = resolve(source)
    fs.move(path, resolve(target)[1])


def write_bytes(uri: str | Path, data: bytes) -> None:
    """Write a whole file or nothing."""
    with replacing(uri) as file:
        file.write(data)


@contextmanager
def replacing(uri: str | Path) -> Iterator[BinaryIO]:
    """A local file to write, which takes the place of what is at an address when the block ends without an error.

    Raises DiskError where the disk is full.
    """
    fs, path = resolve(uri)
    files.create(fs, path.rsplit("/", 1)[0])
    if not isinstance(fs, pafs.LocalFileSystem):
        with room_for(f"{tempfile.gettempdir()}, where {uri} is put together,"), tempfile.TemporaryFile() as file:
            yield file
            file.seek(0)
            with fs.open_output_stream(path) as stream:
                while block := file.read(BLOCK):
                    stream.write(block)
        return
    partial = f"{path}.{uuid.uuid4().hex[:8]}.partial"
    try:
        with room_for(path), open(partial, "wb", opener=files.opener) as file:
            with suppress(OSError):  # a file system without locks
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            yield file
            file.flush()
            os.fsync(file.fileno())
            os.replace(partial, path)
    except FileNotFoundError:
        # Another process wrote the same file meanwhile and tidied up: this is as if it had come second.
        if not os.path.exists(path):
            raise
    finally:
        Path(partial).unlink(missing_ok=True)


def half_written(uri: str | Path) -> list[tuple[str, str]]:
    """Files that writers who are gone have begun, each with its final name: that file, or all below that folder."""
    if not isinstance(resolve(uri)[0], pafs.LocalFileSystem):
        return []  # an object store shows no upload before it is whole
    folder, _, target = absolute(uri).rpartition("/") if is_file(uri) else (uri, "", None)
    names = list_files(folder) if target is None else list_names(folder)
    partial_files = [(name, match[1]) for name in names if (match := HALF_WRITTEN.fullmatch(name))]
    named = [(join(folder, name), join(folder, final)) for name, final in partial_files if target in (None, final)]
    return [(name, final) for name, final in named if not _is_being_written(name)]


def _is_being_written(path: str) -> bool:
    """Whether a process of this machine, or of one that shares the disk's locks, has a file open for writing."""
    try:
        with open(path, "rb") as file:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return True
    except OSError:  # gone meanwhile, or a file system without locks
        return False
    return False


def tidy(uri: str | Path) -> None:
    """Delete from a folder what killed processes did not end and another process has written since."""
    for name, final in half_written(uri):
        if exists(final):
            remove(name)


def read_bytes(uri: str | Path) -> bytes:
    """A whole file."""
    fs, path = resolve(uri)
    with fs.open_input_stream(path) as stream:
        return bytes(stream.read())


def json_bytes(value: Any) -> bytes:
    """JSON, indented and with sorted keys, so that equal values are equal files."""
    return (json.dumps(value, indent=2, sort_keys=True, ensure_ascii=False) + "\n").encode()


def write_json(uri: str | Path, value: Any) -> None:
    """Write a whole file of JSON or nothing."""
    write_bytes(uri, json_bytes(value))


def read_json(uri: str | Path) -> Any:
    """Read JSON. Raises PoolError, which names the file, where it is none."""
    try:
        return parse_json(read_bytes(uri))
    except ValueError as error:
        raise PoolError(f"{uri} is no JSON: {error}") from None


@dataclass(frozen=True, kw_only=True)
class Checksum:
    """Size of a file in bytes, and the SHA-256 of its content."""

    size: int
    sha256: str


class TableWriter:
    """Rows of one Parquet file, written a row group at a time: at no time are more of them in memory."""

    def __init__(self, file: _Hashed, schema: pa.Schema, row_group_rows: int) -> None:
        # FLAC, frames and features: compressing them, or looking for values that come again, costs time for nothing.
        bulky = {f.name for f in schema if pa.types.is_large_binary(f.type) or pa.types.is_fixed_size_binary(f.type)}
        codec = {name: "none" if name in bulky else "zstd" for name in schema.names}
        dictionary = [name for name in schema.names if name not in bulky] if bulky else True
        self._writer = pq.ParquetWriter(
            file, schema, compression=codec, use_dictionary=dictionary, write_statistics=False
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
        """Write what is left, and the footer."""
        self._flush()
        self._writer.close()

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


def checksum(uri: str | Path) -> Checksum:
    """Size and checksum of a file that is there, read a block at a time."""
    fs, path = resolve(uri)
    size, digest = 0, hashlib.sha256()
    with fs.open_input_stream(path) as stream:
        while block := stream.read(BLOCK):
            digest.update(block)
            size += len(block)
    return Checksum(size=size, sha256=digest.hexdigest())


def read_table(uri: str | Path, columns: Sequence[str] | None = None, *, schema: pa.Schema | None = None) -> pa.Table:
    """Read one Parquet file, or some of its columns; `schema`: all that it may have (seral.security.tables)."""
    fs, path = resolve(uri)
    with fs.open_input_file(path) as file:
        return open_parquet(file, uri, schema).read(columns=None if columns is None else list(columns))


def read_rows(uri: str | Path, rows: Sequence[int] | NDArray[Any], columns: Sequence[str]) -> pa.Table:
    """Some rows of one Parquet file, in the order asked for; only the row groups that hold them are read."""
    fs, path = resolve(uri)
    with fs.open_input_file(path) as file:
        parquet, asked = open_parquet(file, uri), np.asarray(rows, np.int64)
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
    fs, path = resolve(uri)
    with fs.open_input_file(path) as file:
        parquet = open_parquet(file, uri, schema)
        for batch in parquet.iter_batches(rows, columns=None if columns is None else list(columns)):
            yield pa.Table.from_batches([batch])


def read_footer(uri: str | Path, schema: pa.Schema | None = None) -> pq.FileMetaData:
    """Footer of a Parquet file: rows, schema, what was written beside them; `schema`: all columns it may have."""
    fs, path = resolve(uri)
    with fs.open_input_file(path) as file:
        return open_parquet(file, uri, schema).metadata


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


def copy_file(source: str | Path, target: str | Path) -> None:
    """Copy a file to another address, a block at a time, replacing what is there."""
    fs, path = resolve(source)
    with fs.open_input_stream(path) as stream, replacing(target) as file:
        while block := stream.read(BLOCK):
            file.write(block)


def copy_folder(source: str | Path, target: str | Path) -> None:
    """Copy a folder to another address, replacing what is there. Raises DiskError where the disk is full."""
    remove(target)
    make_folder(target)
    from_fs, from_path = resolve(source)
    to_fs, to_path = resolve(target)
    with room_for(target):
        pafs.copy_files(from_path, to_path, source_filesystem=from_fs, destination_filesystem=to_fs)
    files.close_to_others(to_fs, to_path)


def publish(folder: str | Path, target: str | Path, *, last: str) -> None:
    """Put a finished folder in its place; whoever is second to do so is dropped.

    A rename on a local disk; on an object store copies, with the file `last`, whose existence means "done", at the end.
    """
    (fs, path), (_, to) = resolve(folder), resolve(target)
    if not isinstance(fs, pafs.LocalFileSystem):
        marker = read_bytes(join(folder, last))
        remove(join(folder, last))
        copy_folder(folder, target)
        write_bytes(join(target, last), marker)
        remove(folder)
        return
    files.make_folder(os.path.dirname(to))
    if not exists(join(target, last)):
        remove(target)  # cut off before its end
    try:
        os.rename(path, to)
    except OSError:
        if not exists(join(target, last)):
            raise
        remove(folder)


@contextmanager
def local_copy(uri: str | Path) -> Iterator[Path]:
    """A folder as local files for the time of the block: itself, or a temporary copy from an object store."""
    if "://" not in str(uri):
        yield Path(uri)
        return
    with tempfile.TemporaryDirectory(prefix="seral-") as folder:
        copy_folder(uri, folder)
        yield Path(folder)
