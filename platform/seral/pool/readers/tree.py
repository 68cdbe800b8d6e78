"""The audio files of a corpus folder, in a fixed order, and the check that it is the corpus it was said to be."""

from __future__ import annotations

import os
import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from seral.errors import ReaderError
from seral.pool.readers.utterance import Skipped, Utterance

CORPUS_SUFFIXES = frozenset({".wav", ".flac"})


@dataclass(frozen=True, kw_only=True)
class Convention:
    """How a corpus names its files."""

    corpus: str
    pattern: re.Pattern[str]
    """Matches the whole stem of every file that belongs to the corpus."""
    expected: str
    """The pattern in words a person reads."""
    example: str


@dataclass(frozen=True, kw_only=True)
class AudioFile:
    """One audio file under a root."""

    path: Path
    """Absolute."""
    source: str
    """Relative to the root, POSIX style."""

    @property
    def name(self) -> str:
        """The stem, the corpus's own name for the utterance."""
        return self.path.stem

    def skipped(self, convention: Convention) -> Skipped:
        """The record for a file whose name does not follow the convention."""
        detail = f"expected {convention.expected}, for example {convention.example}"
        size = self.path.stat().st_size if self.path.exists() else -1
        return Skipped(source=self.source, corpus=convention.corpus, detail=detail, size=size)


def utterances_by_name(
    root: Path,
    convention: Convention,
    describe: Callable[[str, re.Match[str]], dict[str, Any]],
    *,
    not_speech: Callable[[str], bool] = lambda name: False,
) -> Iterator[Utterance | Skipped]:
    """The utterances of a corpus whose file names say it all: `describe(name, match)` gives the fields of Utterance.

    A file that does not follow the convention is yielded as Skipped, unless `not_speech(name)` knows it as a part of
    the corpus that is left out on purpose.
    """
    for file in corpus_files(root, convention):
        match = convention.pattern.fullmatch(file.name)
        if match is not None:
            known = describe(file.name, match)
            yield Utterance(audio=file.path, source=file.source, corpus=convention.corpus, name=file.name, **known)
        elif not not_speech(file.name):
            yield file.skipped(convention)


def corpus_files(root: Path, convention: Convention) -> list[AudioFile]:
    """Every wav and flac under a corpus folder, sorted by source. Raises ReaderError when no name fits the corpus."""
    files = audio_files(root, CORPUS_SUFFIXES)
    if not any(convention.pattern.fullmatch(file.name) for file in files):
        found = f"{len(files)} wav and flac files, such as {files[0].source}" if files else "no wav or flac file"
        raise ReaderError(
            f"{root} does not look like {convention.corpus}: expected files named {convention.expected}, "
            f"for example {convention.example}; found {found}"
        )
    return files


def audio_files(root: Path, suffixes: frozenset[str]) -> list[AudioFile]:
    """Files with one of the suffixes (lower case, with the dot) in the tree below root, sorted by source.

    Hidden files and folders are left alone: macOS puts a `._name.wav` without audio beside every file it copies.
    """
    base = root.resolve()
    if not base.is_dir():
        raise ReaderError(f"{root} is not a folder")
    found = [path for path in _walk(base) if path.suffix.lower() in suffixes]
    files = [AudioFile(path=path, source=path.relative_to(base).as_posix()) for path in found]
    return sorted(files, key=lambda file: file.source)


def _walk(base: Path) -> Iterator[Path]:
    """Files below base that are not hidden; links to folders are followed, each real folder once."""
    seen: set[str] = set()
    for folder, folders, names in os.walk(base, followlinks=True):
        real = os.path.realpath(folder)
        folders[:] = [] if real in seen else sorted(name for name in folders if not name.startswith("."))
        if real not in seen:
            yield from (Path(folder, name) for name in names if not name.startswith("."))
        seen.add(real)
