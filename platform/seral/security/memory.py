"""A bound on the memory that a library may take while it reads a file that claims to be large.

A Parquet page of 12 kB may claim 2 GB, a run of nulls billions of rows, and Arrow makes room before it looks. The bound
is the system's own (RLIMIT_DATA, Linux): more than it is an error of that one reading, and the process lives on.
"""

from __future__ import annotations

import resource
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from threading import Lock

STATM = Path("/proc/self/statm")
DATA = 5
"""Place of the pages of data among the numbers of STATM."""


class _Bound:
    """The process's limit while anything is read: what it has, and room for each of those who read at the time."""

    def __init__(self) -> None:
        self._lock = Lock()
        self._rooms: list[int] = []
        self._usual = resource.RLIM_INFINITY

    def enter(self, room_bytes: int) -> None:
        with self._lock:
            soft, hard = resource.getrlimit(resource.RLIMIT_DATA)
            if not self._rooms:
                self._usual = soft
            self._rooms.append(room_bytes)
            limit = int(STATM.read_text().split()[DATA]) * resource.getpagesize() + sum(self._rooms)
            ends = [limit, *(end for end in (self._usual, hard) if end != resource.RLIM_INFINITY)]
            resource.setrlimit(resource.RLIMIT_DATA, (min(ends), hard))

    def leave(self, room_bytes: int) -> None:
        with self._lock:
            self._rooms.remove(room_bytes)
            if not self._rooms:
                resource.setrlimit(resource.RLIMIT_DATA, (self._usual, resource.getrlimit(resource.RLIMIT_DATA)[1]))


_bound = _Bound()


@contextmanager
def room(room_bytes: int) -> Iterator[None]:
    """No more than so many bytes above what the process has now; whoever asks for more gets MemoryError.

    Blocks that meet in several threads have the sum of their rooms. Where /proc is not, there is no bound.
    """
    if not STATM.exists():
        yield
        return
    _bound.enter(room_bytes)
    try:
        yield
    finally:
        _bound.leave(room_bytes)
