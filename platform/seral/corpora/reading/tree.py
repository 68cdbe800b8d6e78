"""The audio files of a corpus folder, in a fixed order, and the check that it is the corpus it was said to be."""

from __future__ import annotations

import os
import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Any

from seral.audio.address import StorePath
from seral.corpora.reading.utterance import Skipped, Utterance
from seral.errors import ReaderError

CORPUS_SUFFIXES = frozenset({".wav", ".flac"})


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

    @property
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
    common. The name of an utterance is the file's stem, where `describe` gives no other.
    """
    first_of: dict[str, AudioFile] = {}
    for file in corpus_files(root, convention):
        match = convention.match(file)
        if match is None:
            if not not_speech(file.name):
                yield file.skip_unreadable_name(convention)
            continue
        metadata = {"name": file.name} | describe(file.name, match)
        earlier = first_of.setdefault(metadata["name"], file)
        if earlier is not file and earlier.size == file.size:
            yield file.skip_repeat(convention, earlier)
        else:
            yield Utterance(audio=file.path, source=file.source, corpus=convention.corpus, **metadata)


def corpus_files(root: Path, convention: Convention) -> list[AudioFile]:
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


def audio_files(root: Path, suffixes: frozenset[str]) -> list[AudioFile]:
    """Files with one of the suffixes (lower case, with the dot) in the tree below root, sorted by source.

    Hidden files and folders are left alone: macOS puts a `._name.wav` without audio beside every file it copies.
    """
    base = root.resolve()
    if not base.is_dir():
        raise ReaderError(f"{root} is not a folder")
    sources = sorted(item for item in _walk(base) if os.path.splitext(item[0])[1].lower() in suffixes)
    return [AudioFile(path=path or base / source, source=_text(source)) for source, path in sources]


def _text(name: str) -> str:
    """A file's name as text. One that is not UTF-8 keeps its bytes as `\\xe9`."""
    return name if name.isprintable() else os.fsencode(name).decode("utf-8", "backslashreplace")


def files_below(root: Path, pattern: str) -> list[Path]:
    """Files whose path inside root, POSIX style, matches the whole pattern in any case; those nearest to root first."""
    base = root.resolve()
    whole_pattern = re.compile(pattern, re.IGNORECASE)
    items = [item for item in _walk(base) if whole_pattern.fullmatch(item[0])]
    items.sort(key=lambda item: (item[0].count("/"), item[0]))
    return [path or base / source for source, path in items]


def _walk(base: Path) -> Iterator[tuple[str, Path | None]]:
    """Files below base that are not hidden, POSIX style; links to folders are followed, each real folder once.

    Text, not Path: a corpus of a million files is walked more than once. In a store with the path, which knows its
    size.
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
