"""The audio files of a corpus folder, in a fixed order, and the check that it is the corpus it was said to be."""

from __future__ import annotations

import os
import re
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cached_property
from itertools import islice
from pathlib import Path, PurePosixPath
from typing import Any, overload

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from seral.audio.address import StorePath
from seral.corpora.reading.utterance import Skipped, Utterance
from seral.errors import ReaderError

CORPUS_SUFFIXES = frozenset({".wav", ".flac"})
DECODABLE = frozenset({".wav", ".flac", ".ogg", ".oga", ".opus", ".mp3", ".aif", ".aiff", ".aifc", ".caf", ".au"})
TO_CONVERT = frozenset({".m4a", ".aac", ".mp4", ".webm", ".wma", ".amr", ".3gp"})
"""Formats libsndfile cannot read, but PyAV can (the extra `codecs`); without it the import reports these files."""
SLAB = 4_096
"""Names of files that are Python's strings at a time."""

_walked: dict[tuple[Path, frozenset[str]], AudioFiles] | None = None
"""Folder and suffixes -> the files, in a block of `walking_once`."""


@dataclass(frozen=True, kw_only=True)
class Convention:
    """Naming convention of a corpus's files."""

    corpus: str
    pattern: re.Pattern[str]
    """Matches the whole stem of every file that belongs to the corpus (the whole path, see `folders`)."""
    expected: str
    """The pattern in words a person reads."""
    example: str
    folders: bool = False
    """The folders say something too: the pattern is for the path below the root, without the suffix."""
    suffixes: frozenset[str] = CORPUS_SUFFIXES
    name_of: Callable[[re.Match[str]], str] | None = None
    """The corpus's own name for the utterance, by the match; None = the file's stem."""

    def match(self, file: AudioFile) -> re.Match[str] | None:
        """The match of the pattern with a file's name, None when the file does not follow the convention."""
        name = file.source.removesuffix(file.path.suffix) if self.folders else file.name
        return self.pattern.fullmatch(name)


@dataclass(frozen=True, kw_only=True)
class AudioFile:
    """One audio file under a root."""

    path: Path
    """Absolute."""
    source: str
    """Relative to the root, POSIX style."""

    @cached_property
    def name(self) -> str:
        """The stem, the corpus's own name for the utterance."""
        return PurePosixPath(self.source).stem

    @property
    def size(self) -> int:
        """In bytes, -1 for a link to nowhere."""
        return self.path.stat().st_size if self.path.exists() else -1

    def skip_unreadable_name(self, convention: Convention) -> Skipped:
        """The record of a file whose name does not follow the convention."""
        detail = f"expected {convention.expected}, for example {convention.example}"
        return self.skip(convention.corpus, "unreadable-name", detail)

    def skip_repeat(self, convention: Convention, earlier: AudioFile) -> Skipped:
        """The record of a second copy of a file."""
        return self.skip(convention.corpus, "repeated", f"the same name and size as {earlier.source}")

    def skip(self, corpus: str, reason: str, detail: str) -> Skipped:
        """The record of a file that is left out for one of seral.audio.quality.REASONS."""
        return Skipped(source=self.source, corpus=corpus, reason=reason, detail=detail, size=self.size)


class AudioFiles(Sequence[AudioFile]):
    """Files under one root, in order: their names in Arrow, for there may be millions."""

    def __init__(self, base: Path, names: pa.LargeBinaryArray, sizes: pa.Int64Array) -> None:
        self._base, self._names, self._sizes = base, names, sizes
        self._few: list[AudioFile] = []
        """All of them, once they were asked for, where they are no more than SLAB."""

    @staticmethod
    def of(base: Path, suffixes: frozenset[str]) -> AudioFiles:
        """Files of a tree that have one of the suffixes, sorted by their names."""
        listed = (item for item in _walk(base) if os.path.splitext(item[0])[1].lower() in suffixes)
        names, sizes = list[pa.Array](), list[pa.Array]()
        while (slab := [*islice(listed, SLAB)]) or not names:
            names.append(_binaries([os.fsencode(name) for name, _ in slab]))
            sizes.append(_integers([size for _, size in slab]))
        joined, order = pa.concat_arrays(names), pc.sort_indices(pa.chunked_array(names))
        del names
        return AudioFiles(base, joined.take(order), pa.concat_arrays(sizes).take(order))

    def __len__(self) -> int:
        return len(self._names)

    @overload
    def __getitem__(self, at: int) -> AudioFile: ...

    @overload
    def __getitem__(self, at: slice) -> AudioFiles: ...

    def __getitem__(self, at: int | slice) -> AudioFile | AudioFiles:
        if isinstance(at, slice):
            return AudioFiles(self._base, self._names[at], self._sizes[at])
        return self._file(self._names[at].as_py(), self._sizes[at].as_py())

    def __iter__(self) -> Iterator[AudioFile]:
        if len(self) <= SLAB:
            self._few = self._few or [*self._each()]
            return iter(self._few)
        return self._each()

    def _each(self) -> Iterator[AudioFile]:
        for start in range(0, len(self), SLAB):
            slab = (column.slice(start, SLAB).to_pylist() for column in (self._names, self._sizes))
            yield from map(self._file, *slab)

    def _file(self, name: bytes, size: int | None) -> AudioFile:
        text = os.fsdecode(name)
        return AudioFile(path=_at(self._base, text, size), source=_text(text))


def _binaries(values: Sequence[bytes]) -> pa.LargeBinaryArray:
    """Bytes as Arrow's, without pandas: `pa.array` of Python's values imports that first."""
    ends = np.cumsum([0, *map(len, values)], dtype=np.int64)
    buffers = [None, pa.py_buffer(ends), pa.py_buffer(b"".join(values))]
    return pa.Array.from_buffers(pa.large_binary(), len(values), buffers)


def _integers(values: Sequence[int | None]) -> pa.Int64Array:
    """Counts, or none, as Arrow's, without pandas."""
    present = np.array([value is not None for value in values], bool)
    numbers = np.array([value or 0 for value in values], np.int64)
    buffers = [pa.py_buffer(np.packbits(present, bitorder="little")), pa.py_buffer(numbers)]
    return pa.Array.from_buffers(pa.int64(), len(values), buffers)


def utterances_by_name(
    root: Path,
    convention: Convention,
    describe: Callable[[str, re.Match[str]], dict[str, Any]],
    *,
    not_speech: Callable[[str], bool] = lambda name: False,
) -> Iterator[Utterance | Skipped]:
    """The utterances of a corpus whose file names say it all: `describe(name, match)` gives the fields of Utterance.

    A file that does not follow the convention is yielded as Skipped, unless `not_speech(name)` knows it as a part of
    the corpus that is left out on purpose. So is the second copy of a file: archives that hold a corpus twice are
    common.
    """
    files = corpus_files(root, convention)
    repeated, first_of = _repeated(map(hash, _names(files, convention))), dict[str, AudioFile]()
    for file in files:
        match = convention.match(file)
        if match is None:
            if not not_speech(file.name):
                yield file.skip_unreadable_name(convention)
            continue
        name = file.name if convention.name_of is None else convention.name_of(match)
        earlier = first_of.setdefault(name, file) if hash(name) in repeated else file
        if earlier is not file and earlier.size == file.size:
            yield file.skip_repeat(convention, earlier)
        else:
            metadata = describe(file.name, match)
            yield Utterance(audio=file.path, source=file.source, corpus=convention.corpus, name=name, **metadata)


def _names(files: Sequence[AudioFile], convention: Convention) -> Iterator[str]:
    """The names of the utterances, of files that follow the convention."""
    for file in files:
        if (match := convention.match(file)) is not None:
            yield file.name if convention.name_of is None else convention.name_of(match)


def _repeated(numbers: Iterator[int]) -> frozenset[int]:
    """Numbers that come more than once."""
    values, counts = np.unique(np.fromiter(numbers, np.int64), return_counts=True)
    return frozenset(values[counts > 1].tolist())


def corpus_files(root: Path, convention: Convention) -> AudioFiles:
    """Every audio file under a corpus folder, sorted by source. Raises ReaderError when no name fits the corpus."""
    files = audio_files(root, convention.suffixes)
    if not any(map(convention.match, files)):
        kinds = sorted((suffix[1:] for suffix in convention.suffixes), reverse=True)
        summary = f"{len(files)} {' and '.join(kinds)} files" + (f", such as {files[0].source}" if files else "")
        raise ReaderError(
            f"{root} does not look like {convention.corpus}: expected files named {convention.expected}, "
            f"for example {convention.example}; found {summary}"
        )
    return files


def audio_files(root: Path, suffixes: frozenset[str]) -> AudioFiles:
    """Files with one of the suffixes (lower case, with the dot) in the tree below root, sorted by source.

    Hidden files and folders are left alone: macOS puts a `._name.wav` without audio beside every file it copies.
    """
    base = root.resolve()
    if not base.is_dir():
        raise ReaderError(f"{root} is not a folder")
    if _walked is None:
        return AudioFiles.of(base, suffixes)
    if (base, suffixes) not in _walked:
        _walked[base, suffixes] = AudioFiles.of(base, suffixes)
    return _walked[base, suffixes]


@contextmanager
def walking_once() -> Iterator[None]:
    """In the block a tree is walked once for all readers that list the same kinds of files: nothing in it changes."""
    global _walked
    _walked = {}
    try:
        yield
    finally:
        _walked = None


def _text(name: str) -> str:
    """A file's name as text. One that is not UTF-8 keeps its bytes as `\\xe9`."""
    return name if name.isprintable() else os.fsencode(name).decode("utf-8", "backslashreplace")


def files_below(root: Path, pattern: str) -> list[Path]:
    """Files whose path inside root, POSIX style, matches the whole pattern in any case; those nearest to root first."""
    base = root.resolve()
    whole_pattern = re.compile(pattern, re.IGNORECASE)
    items = [item for item in _walk(base) if whole_pattern.fullmatch(item[0])]
    items.sort(key=lambda item: (item[0].count("/"), item[0]))
    return [_at(base, source, size) for source, size in items]


def _at(base: Path, source: str, size: int | None) -> Path:
    """The path of a file below base; in a store it knows its size."""
    return base.listed(source, size) if isinstance(base, StorePath) else base / source


def _walk(base: Path) -> Iterator[tuple[str, int | None]]:
    """Files below base that are not hidden, POSIX style; links to folders are followed, each real folder once.

    Text, not Path: a corpus of a million files is walked more than once. In a store with the size.
    """
    if isinstance(base, StorePath):
        yield from (item for item in base.files() if not any(part.startswith(".") for part in item[0].split("/")))
        return
    walked: set[str] = set()
    for folder, folders, names in os.walk(base, followlinks=True):
        real = os.path.realpath(folder)
        folders[:] = [] if real in walked else sorted(name for name in folders if not name.startswith("."))
        if real not in walked:
            inside = Path(folder).relative_to(base).as_posix()
            prefix = "" if inside == "." else f"{inside}/"
            yield from ((prefix + name, None) for name in names if not name.startswith("."))
        walked.add(real)
