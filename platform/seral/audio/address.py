"""Addresses of the files of a corpus: paths on a disk, or in an object store with the same methods.

Stores are those of seral.storage.stores, which asks them with patience.
"""

from __future__ import annotations

import io
import stat
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from os import stat_result
from pathlib import Path, PosixPath
from typing import Any

import pyarrow as pa
import pyarrow.fs as pafs

from seral.errors import OptionError
from seral.secrets.addresses import complaint
from seral.storage.stores import RemoteFile, remote_file, store

LFS_STUB = b"version https://git-lfs.github.com/spec/"
"""Beginning of a file whose content Git LFS has not fetched."""
LISTINGS = 8
"""Folders that are listed at a time."""
BUFFER_BYTES = 1 << 20
"""Read at a time where something is read forward."""


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
        file = io.BufferedReader(self._remote(), BUFFER_BYTES)
        return file if mode == "rb" else io.TextIOWrapper(file, encoding or "utf-8", errors, newline)

    def read_text(self, encoding: str | None = None, errors: str | None = None) -> str:
        """All of a file, as text."""
        with self.open("r", encoding, errors) as file:
            return str(file.read())

    def read_bytes(self) -> bytes:
        """All of a file."""
        with self._remote() as file:
            return file.readall()

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
        return fs.open_input_file(path)

    def _listed(self, fs: pafs.FileSystem, folder: str, *, recursive: bool) -> list[pafs.FileInfo]:
        entries: list[pafs.FileInfo] = fs.get_file_info(pafs.FileSelector(folder, recursive=recursive))
        return entries

    def _kind(self) -> pafs.FileType:
        return pafs.FileType.File if self.listed_size is not None else self._info().type

    def _info(self) -> pafs.FileInfo:
        fs, path = self._located()
        return fs.get_file_info(path)

    def _remote(self) -> RemoteFile:
        fs, path = self._located()
        return remote_file(fs, path)

    def _located(self) -> tuple[pafs.FileSystem, str]:
        scheme, host, *inside = self.parts
        fs, base = store(scheme.rstrip(":"), host)
        return fs, "/".join([base.rstrip("/"), *inside])
