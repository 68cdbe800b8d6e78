"""Files and folders of a local disk that are their owner's alone, 0600 and 0700.

What is written into a folder that only its owner may enter is its owner's alone too. Runs begin with such a folder; a
pool, which a team shares, follows the umask unless it lies in one.
"""

from __future__ import annotations

import os
import stat
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import pyarrow.fs as pafs

FILE, FOLDER, OTHERS = 0o600, 0o700, 0o077


def is_private(folder: str | Path) -> bool:
    """Whether only its owner may enter a folder."""
    return not stat.S_IMODE(os.stat(folder).st_mode) & OTHERS


def make_folder(path: str | Path, *, private: bool = False) -> None:
    """Create a folder and its parents where they are missing, each as private as the one above it; `private` for the
    folder itself whatever is above. One that is there stays as it is."""
    folder = Path(path)
    if folder.is_dir():
        return
    if not folder.parent.is_dir():
        make_folder(folder.parent)
    try:
        folder.mkdir(FOLDER if private or is_private(folder.parent) else 0o777)
    except FileExistsError:  # another process was first
        if not folder.is_dir():
            raise


def opener(path: str, flags: int) -> int:
    """For `open(path, "wb", opener=opener)`: a new file is as private as its folder."""
    return os.open(path, flags, FILE if is_private(os.path.dirname(path) or ".") else 0o666)


def make_file(path: str | Path) -> None:
    """Create an empty file that is its owner's alone, unless there is one. Raises OSError."""
    with suppress(FileExistsError):
        os.close(os.open(path, os.O_CREAT | os.O_EXCL | os.O_WRONLY, FILE))


@contextmanager
def as_private_as(folder: str | Path) -> Iterator[None]:
    """Let what other libraries write in the block be their owner's alone, where a folder of this disk is."""
    umask = os.umask(OTHERS) if os.path.isdir(folder) and is_private(folder) else None
    try:
        yield
    finally:
        if umask is not None:
            os.umask(umask)


def create(fs: pafs.FileSystem, path: str, *, private: bool = False) -> None:
    """Create a folder of any file system as `make_folder` does on a disk; elsewhere its settings say who may read."""
    if isinstance(fs, pafs.LocalFileSystem):
        make_folder(path, private=private)
    else:
        fs.create_dir(path, recursive=True)


def close_to_others(fs: pafs.FileSystem, folder: str) -> None:
    """Take from others what was copied into a private folder of a disk, all below it; nothing where they may enter."""
    if not isinstance(fs, pafs.LocalFileSystem) or not is_private(folder):
        return
    for parent, folders, names in os.walk(folder):
        for name in folders:
            os.chmod(os.path.join(parent, name), FOLDER)
        for name in names:
            os.chmod(os.path.join(parent, name), FILE)
