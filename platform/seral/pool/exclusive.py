"""A file that only one of several writers can make: what two processes on two machines agree by.

On a disk it is linked into its place, which fails where something is. In an object store every writer puts a claim
beside it and looks who else has one: whoever is alone may write, and whoever is not takes the claim back and waits.
Stores list what was put before, so two that look after they have put cannot both be alone. A claim of LEASE_S is
that of a writer that died.
"""

from __future__ import annotations

import errno
import os
import random
import time
import uuid

import pyarrow.fs as pafs

from seral import storage
from seral.errors import StateError
from seral.secrets import files

LEASE_S = 60.0
WAIT_S = (0.05, 0.5)
"""Least and most time between two tries in a store, in seconds."""
CLAIM = ".claim"
NO_LINKS = (errno.EPERM, errno.ENOTSUP, errno.EOPNOTSUPP, errno.ENOSYS, errno.EMLINK)


def create(uri: str, data: bytes) -> bool:
    """Write a whole file where there is none; False where there is one, which stays as it is."""
    fs, path = storage.resolve(uri)
    if isinstance(fs, pafs.LocalFileSystem):
        return _link(path, data)
    return _claim(uri, data)


def _link(path: str, data: bytes) -> bool:
    files.make_folder(os.path.dirname(path))
    with storage.written_aside(path) as (partial, file):
        file.write(data)
        storage.finish(file)
        try:
            os.link(partial, path)
        except FileExistsError:
            return False
        except OSError as error:
            if error.errno not in NO_LINKS:
                raise
            return _open_new(path, data)
        storage.sync_folder(path)
        return True


def _open_new(path: str, data: bytes) -> bool:
    """For file systems without links: there the file is seen before it is whole."""
    try:
        handle = os.open(path, os.O_CREAT | os.O_EXCL | os.O_WRONLY, 0o666)
    except FileExistsError:
        return False
    with os.fdopen(handle, "wb") as file:
        file.write(data)
        storage.finish(file)
    storage.sync_folder(path)
    return True


def _claim(uri: str, data: bytes) -> bool:
    mine, end = f"{uri}.{uuid.uuid4().hex}{CLAIM}", time.monotonic() + 10 * LEASE_S
    while time.monotonic() < end:
        if storage.exists(uri):
            return False
        since = time.monotonic()
        storage.write_bytes(mine, b"")
        try:
            if _is_alone(uri, mine) and not storage.exists(uri) and time.monotonic() - since < LEASE_S / 2:
                storage.write_bytes(uri, data)
                return True
        finally:
            storage.remove(mine)
        time.sleep(random.uniform(*WAIT_S))
    raise StateError(f"others have claimed {uri} for ten minutes: run this again, it goes on from here")


def _is_alone(uri: str, mine: str) -> bool:
    """Whether nobody else who may live claims a file; claims of the dead are taken away. By the store's own clock."""
    fs, path = storage.resolve(uri)
    entries = fs.get_file_info(pafs.FileSelector(path.rpartition("/")[0]))
    claimed_at = {e.path: e.mtime for e in entries if e.path.startswith(f"{path}.") and e.path.endswith(CLAIM)}
    now = claimed_at.pop(storage.resolve(mine)[1], None)
    dead = [claim for claim, since in claimed_at.items() if now and since and (now - since).total_seconds() > LEASE_S]
    for claim in dead:
        fs.delete_file(claim)
    return now is not None and len(claimed_at) == len(dead)
