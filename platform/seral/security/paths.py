"""Names and paths of anyone: names that are one part of a path, and files that lie below a folder."""

from __future__ import annotations

import os
import re
from functools import lru_cache
from pathlib import Path

import pyarrow as pa
import pyarrow.compute as pc

from seral.errors import PoolError

LONGEST = 200
"""Characters of a name; a file system takes 255 bytes."""
NAME = rf"[^./\\\x00-\x1f\x7f][^/\\\x00-\x1f\x7f]{{0,{LONGEST - 1}}}"
"""Text that may be the name of a file: no separators, no control characters, no dot in front."""


def check_name(name: str, what: str) -> str:
    """The name, where it may be that of a file. Raises PoolError, which says what has it."""
    if not re.fullmatch(NAME, name):
        raise PoolError(f"{what} {name[:80]!r}: a name has no / or \\, no dot in front, {LONGEST} characters at most")
    return name


def check_names(names: pa.Array | pa.ChunkedArray, what: str) -> None:
    """Check a column of names, as `check_name` does each."""
    fine = pc.match_substring_regex(names, f"^(?:{NAME})$")
    if not pc.all(fine, min_count=0).as_py():
        check_name(names.filter(pc.invert(fine))[0].as_py(), what)


class Folder:
    """A folder, on a disk or in a store, that files have to lie below, links followed."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self._in_store = "://" in str(root)
        self._root = str(root) if self._in_store else os.path.realpath(root)
        self._real = lru_cache(4096)(os.path.realpath)

    def has(self, path: Path) -> bool:
        """Whether a file, or what a link in its place leads to, lies below. False for what is no path at all."""
        if self._in_store or "://" in str(path):
            return path.is_relative_to(self.root) and ".." not in path.parts
        try:
            real = os.path.realpath(path) if os.path.islink(path) else f"{self._real(path.parent)}/{path.name}"
        except ValueError:  # NUL
            return False
        return ".." not in path.name and os.path.commonpath([self._root, real]) == self._root
