"""Files and folders under an address, each written as a whole or not at all."""

from __future__ import annotations

import ctypes
import fcntl
import hashlib
import os
import re
import tempfile
import time
import uuid
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

import pyarrow as pa
import pyarrow.fs as pafs

from seral.errors import room_for
from seral.secrets import files
from seral.storage.addresses import absolute, join, resolve
from seral.storage.stores import BLOCK, upload

HALF_WRITTEN = re.compile(r"(.+)\.[0-9a-f]{8}\.partial")
REMOVE_TRIES = 20  # 50 ms apart
WRITERS = ".writers"
"""File of a folder that is locked by those who write to the folder."""


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
    return sorted(file_sizes(uri))


def file_sizes(uri: str | Path) -> dict[str, int]:
    """Bytes of all files below a folder, by their paths relative to it; a missing folder has none."""
    fs, path = resolve(uri)
    entries = fs.get_file_info(pafs.FileSelector(path, allow_not_found=True, recursive=True))
    files = [entry for entry in entries if entry.type == pafs.FileType.File]
    return {entry.path.removeprefix(path.rstrip("/") + "/"): entry.size for entry in files}


def modified(uri: str | Path) -> int:
    """Time at which a file was last written, in nanoseconds; 0 where there is none."""
    fs, path = resolve(uri)
    return fs.get_file_info(path).mtime_ns or 0


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

    Raises DiskError where the disk is full, and StoreError.
    """
    fs, path = resolve(uri)
    if not isinstance(fs, pafs.LocalFileSystem):
        with room_for(f"{tempfile.gettempdir()}, where {uri} is put together,"), tempfile.TemporaryFile() as file:
            yield file
            upload(fs, path, file)
        return
    files.make_folder(os.path.dirname(path))
    try:
        with written_aside(path) as (partial, file):
            yield file
            finish(file)
            os.replace(partial, path)
            sync_folder(path)
    except FileNotFoundError:
        # Another process wrote the same file meanwhile and tidied up: this is as if it had come second.
        if not os.path.exists(path):
            raise


@contextmanager
def written_aside(path: str) -> Iterator[tuple[str, BinaryIO]]:
    """A new local file beside the one that it is to become, and its path; deleted at the end if it is still there.

    Nobody tidies it away as long as its writer lives. Raises DiskError where the disk is full.
    """
    partial = f"{path}.{uuid.uuid4().hex[:8]}.partial"
    try:
        with room_for(path), open(partial, "wb", opener=files.opener) as file:
            with suppress(OSError):  # a file system without locks
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            yield partial, file
    finally:
        Path(partial).unlink(missing_ok=True)


def finish(file: BinaryIO) -> None:
    """Bring what was written to a file to the disk."""
    file.flush()
    os.fsync(file.fileno())


def sync_folder(path: str) -> None:
    """Bring the name of a local file or folder to the disk: without it a power cut may take a finished file away."""
    with suppress(OSError):  # a file system that does not open folders
        folder = os.open(os.path.dirname(path) or "/", os.O_RDONLY)
        try:
            os.fsync(folder)
        finally:
            os.close(folder)


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
    """Whether a process of this machine, or of one that shares the disk's locks, has locked a file."""
    try:
        with open(path, "rb") as file:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return True
    except OSError:  # gone meanwhile, or a file system without locks
        return False
    return False


@contextmanager
def writing_to(folder: str | Path) -> Iterator[None]:
    """Say for the time of the block that this process writes files to a folder; others may as well.

    `is_written_to` knows of it on a local disk, and until the process ends, however it does.
    """
    if not isinstance(resolve(folder)[0], pafs.LocalFileSystem):
        yield
        return
    with open(join(absolute(folder), WRITERS), "ab", opener=files.opener) as file:
        with suppress(OSError):  # a file system without locks
            fcntl.flock(file, fcntl.LOCK_SH)
        yield


def is_written_to(folder: str | Path) -> bool:
    """Whether a process that lives is in a block of `writing_to`; of an object store nobody can know."""
    return isinstance(resolve(folder)[0], pafs.LocalFileSystem) and _is_being_written(join(absolute(folder), WRITERS))


def tidy(uri: str | Path) -> None:
    """Delete from a folder what killed processes did not end and another process has written since."""
    for name, final in half_written(uri):
        if exists(final):
            remove(name)


def read_bytes(uri: str | Path) -> bytes:
    """A whole file."""
    fs, path = resolve(uri)
    with fs.open_input_stream(path, compression=None) as stream:
        return bytes(stream.read())


@dataclass(frozen=True, kw_only=True)
class Checksum:
    """Size of a file in bytes, and the SHA-256 of its content."""

    size: int
    sha256: str


def checksum(uri: str | Path) -> Checksum:
    """Size and checksum of a file that is there, read a block at a time."""
    fs, path = resolve(uri)
    size, digest = 0, hashlib.sha256()
    with fs.open_input_stream(path, compression=None) as stream:
        while block := stream.read(BLOCK):
            digest.update(block)
            size += len(block)
    return Checksum(size=size, sha256=digest.hexdigest())


def copy_file(source: str | Path, target: str | Path) -> None:
    """Copy a file to another address, a block at a time, replacing what is there."""
    fs, path = resolve(source)
    with fs.open_input_stream(path, compression=None) as stream, replacing(target) as file:
        while block := stream.read(BLOCK):
            file.write(block)


def copy_folder(source: str | Path, target: str | Path) -> None:
    """Copy a folder to another address, replacing what is there. Raises DiskError where the disk is full."""
    remove(target)
    make_folder(target)
    from_fs, from_path = resolve(source)
    to_fs, to_path = resolve(target)
    if isinstance(to_fs, pafs.LocalFileSystem):
        with room_for(target):
            pafs.copy_files(from_path, to_path, source_filesystem=from_fs, destination_filesystem=to_fs)
        files.close_to_others(to_fs, to_path)
        return
    for name in list_files(source):
        if from_fs == to_fs:
            to_fs.copy_file(f"{from_path}/{name}", f"{to_path}/{name}")
        else:
            copy_file(join(source, name), join(target, name))


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
        sync_folder(to)
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
