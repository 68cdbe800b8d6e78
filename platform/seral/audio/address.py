"""Addresses of the files of a corpus: paths on a disk, or in an object store with the same methods.

Whatever Arrow knows is a store (`s3://`, `gs://`, `abfs://`, `hdfs://`), and whatever fsspec does. A store that is busy
is asked again: after one second, two, four and so on, each in part by chance, so that many readers do not come back at
once.
"""

from __future__ import annotations

import io
import random
import stat
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from functools import lru_cache
from os import stat_result
from pathlib import Path, PosixPath
from typing import Any, TypeVar

import fsspec
import pyarrow as pa
import pyarrow.fs as pafs

from seral.errors import OptionError, StoreError
from seral.secrets.addresses import complaint

LISTINGS = 8
"""Folders that are listed at a time."""
TRIES = 7
"""Times that a store is asked for the same, over a minute or so."""
FIRST_WAIT_S = 1.0
BUFFER_BYTES = 1 << 20
"""Read at a time where something is read forward."""
LASTING = (FileNotFoundError, PermissionError, IsADirectoryError, NotADirectoryError)
"""Errors that another try does not mend."""

T = TypeVar("T")


def path_of(address: str | Path) -> Path:
    """The path of an address: of a store if it has a scheme, else of this machine.

    Raises OptionError for an address with a key or a password in it, which pools would store as a source.
    """
    if "://" not in str(address):
        return Path(address)
    if reason := complaint(str(address)):
        raise OptionError(reason)
    return StorePath(address)


def arrow_source(path: Path) -> Path | pa.NativeFile:
    """A file as Arrow's readers take it. Raises OSError where there is none."""
    return path.input_file() if isinstance(path, StorePath) else path


class StorePath(PosixPath):
    """A file or folder in a store, such as `s3://bucket/folder/clip.wav`, as a path that can be read.

    It is taken apart and put together like any path; files are opened for reading only.
    """

    listed_size: int | None = None
    """Bytes of a file that came out of a listing, which spares a question."""

    def __str__(self) -> str:
        scheme, colon, inside = super().__str__().partition(":/")
        return f"{scheme}://{inside}" if colon else scheme

    def __fspath__(self) -> str:
        return str(self)

    def is_absolute(self) -> bool:
        """True: an address starts at its store."""
        return True

    def resolve(self, strict: bool = False) -> StorePath:
        """The address itself."""
        return self

    def expanduser(self) -> StorePath:
        """The address itself."""
        return self

    def exists(self, *, follow_symlinks: bool = True) -> bool:
        """Whether there is a file or a folder."""
        return bool(self._kind() != pafs.FileType.NotFound)

    def is_file(self) -> bool:
        """Whether there is a file."""
        return bool(self._kind() == pafs.FileType.File)

    def is_dir(self) -> bool:
        """Whether there is a folder, or anything below."""
        return bool(self._kind() == pafs.FileType.Directory)

    def stat(self, *, follow_symlinks: bool = True) -> stat_result:
        """Mode, size and time of change of a file. Raises FileNotFoundError."""
        if self.listed_size is not None:
            return stat_result((stat.S_IFREG, 0, 0, 0, 0, 0, self.listed_size, 0, 0, 0))
        info = self._info()
        if info.type == pafs.FileType.NotFound:
            raise FileNotFoundError(f"no file at {self}")
        mode = stat.S_IFDIR if info.type == pafs.FileType.Directory else stat.S_IFREG
        return stat_result((mode, 0, 0, 0, 0, 0, info.size or 0, 0, int((info.mtime_ns or 0) / 1e9), 0))

    def open(  # type: ignore[override]  # a part of what Path.open takes, and buffered files only
        self, mode: str = "r", encoding: str | None = None, errors: str | None = None, newline: str | None = None
    ) -> Any:
        """A file to read from and to seek in, of bytes with `rb`, else of text."""
        if mode not in ("r", "rt", "rb"):
            raise ValueError(f"{self} can be read and not written, got the mode {mode!r}")
        file = io.BufferedReader(_Remote(self), BUFFER_BYTES)
        return file if mode == "rb" else io.TextIOWrapper(file, encoding or "utf-8", errors, newline)

    def read_text(self, encoding: str | None = None, errors: str | None = None) -> str:
        """All of a file, as text."""
        with self.open("r", encoding, errors) as file:
            return str(file.read())

    def read_bytes(self) -> bytes:
        """All of a file."""
        with _Remote(self) as file:
            return bytes(file.readall())

    def files(self) -> Iterator[tuple[str, int]]:
        """Every file below this folder by its path inside it, with its bytes.

        LISTINGS folders of the first level are listed at a time, whole.
        """
        fs, base = self._located()
        start, folders = len(base.rstrip("/")) + 1, list[str]()
        for entry in self._listed(fs, base, recursive=False):
            if entry.type == pafs.FileType.File:
                yield entry.path[start:], entry.size
            elif entry.type == pafs.FileType.Directory:
                folders.append(entry.path)
        with ThreadPoolExecutor(LISTINGS) as pool:
            for first in range(0, len(folders), LISTINGS):
                for entries in pool.map(
                    lambda path: self._listed(fs, path, recursive=True), folders[first:][:LISTINGS]
                ):
                    yield from ((e.path[start:], e.size) for e in entries if e.type == pafs.FileType.File)

    def listed(self, inside: str, size: int | None) -> StorePath:
        """A file below this folder, of which a listing has told the bytes."""
        path = self / inside
        path.listed_size = size
        return path

    def input_file(self) -> pa.NativeFile:
        """The file as Arrow reads it. Raises OSError where there is none."""
        fs, path = self._located()
        return patiently(lambda: fs.open_input_file(path), self)

    def _listed(self, fs: pafs.FileSystem, folder: str, *, recursive: bool) -> list[pafs.FileInfo]:
        entries: list[pafs.FileInfo] = patiently(
            lambda: fs.get_file_info(pafs.FileSelector(folder, recursive=recursive)), self
        )
        return entries

    def _kind(self) -> pafs.FileType:
        return pafs.FileType.File if self.listed_size is not None else self._info().type

    def _info(self) -> pafs.FileInfo:
        fs, path = self._located()
        return patiently(lambda: fs.get_file_info(path), self)

    def _located(self) -> tuple[pafs.FileSystem, str]:
        scheme, host, *inside = self.parts
        fs, base = _store(scheme.rstrip(":"), host)
        return fs, "/".join([base.rstrip("/"), *inside])


@lru_cache(maxsize=16)
def _store(scheme: str, host: str) -> tuple[pafs.FileSystem, str]:
    """The file system of a store, and the path of its bucket in it. Raises OptionError for one that nobody knows."""
    address = f"{scheme}://{host}"
    try:
        store: tuple[pafs.FileSystem, str] = pafs.FileSystem.from_uri(address)
        return store
    except pa.ArrowInvalid as unknown:
        try:
            fs, base = fsspec.core.url_to_fs(address)
        except (ValueError, ImportError) as error:
            reasons = f"neither Arrow ({unknown}) nor fsspec ({error}) reads such addresses"
            raise OptionError(f"{address}: {reasons}") from None
        return pafs.PyFileSystem(pafs.FSSpecHandler(fs)), base


def patiently(work: Callable[[], T], what: object) -> T:
    """The outcome of asking a store, which is asked again while it is busy.

    Raises the errors of LASTING as they are, and StoreError, which names what was asked for, when it stays so.
    """
    for number in range(TRIES):
        try:
            return work()
        except LASTING:
            raise
        except OSError as error:
            if number == TRIES - 1:
                reason = f"{what} cannot be read, tried {TRIES} times: {error}"
                raise StoreError(f"{reason}. The same command goes on where this one ended") from error
            time.sleep(FIRST_WAIT_S * 2**number * random.uniform(0.5, 1.0))
    raise AssertionError("unreachable")


class _Remote(io.RawIOBase):
    """A file in a store; whatever is read is asked for again while the store is busy."""

    def __init__(self, path: StorePath) -> None:
        self._path, self._file, self._at = path, path.input_file(), 0
        self._size: int = self._file.size()

    def readable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return True

    def tell(self) -> int:
        return self._at

    def seek(self, offset: int, whence: int = io.SEEK_SET) -> int:
        start = {io.SEEK_SET: 0, io.SEEK_CUR: self._at, io.SEEK_END: self._size}[whence]
        self._at = max(0, start + offset)
        return self._at

    def readinto(self, buffer: Any) -> int:
        data = self._read(len(buffer))
        buffer[: len(data)] = data
        return len(data)

    def readall(self) -> bytes:
        return self._read(self._size - self._at)

    def close(self) -> None:
        if not self.closed:
            self._file.close()
        super().close()

    def _read(self, count: int) -> bytes:
        count = max(0, min(count, self._size - self._at))
        data: bytes = patiently(lambda: self._file.read_at(count, self._at), self._path) if count else b""
        self._at += len(data)
        return data
