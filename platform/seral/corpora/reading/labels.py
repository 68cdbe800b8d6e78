"""Corpora whose labels stand in files of their own: audio and labels meet by name, and none is lost on either side."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from seral.audio.address import LFS_STUB
from seral.corpora.reading.tree import AudioFile, Convention
from seral.corpora.reading.utterance import Skipped, Utterance
from seral.errors import ReaderError

# What the bytes 0x80 to 0x9f mean in cp1252; five of them mean nothing.
CP1252 = {code: bytes([code]).decode("cp1252", errors="ignore") for code in range(0x80, 0xA0)}


@dataclass(frozen=True, kw_only=True)
class Label:
    """Metadata and gold label of one utterance, from a label file."""

    name: str
    location: str
    """The file's name, and the line where there is one: what the detail of a conflict says."""
    metadata: dict[str, Any]
    """Fields of Utterance."""


def utterances_by_label(
    files: Iterable[AudioFile],
    labels: Iterable[Label],
    convention: Convention,
    *,
    name_of: Callable[[AudioFile], str] = lambda file: file.name,
    known_bad: Mapping[str, str] | None = None,
    not_speech: Callable[[str], bool] = lambda name: False,
) -> Iterator[Utterance | Skipped]:
    """Audio with its label, in the order of the files; then the labels that have no audio, by name.

    Skipped are second copies of a file, files without a label, labels without a file, utterances with contradicting
    labels, and those of `known_bad` (name -> what is wrong with it). `not_speech` is as in utterances_by_name.
    """
    by_name, conflicts = _by_name(labels)
    corpus = convention.corpus
    problems = {name: ("conflict", detail) for name, detail in conflicts.items()}
    problems |= {name: ("known-bad", detail) for name, detail in (known_bad or {}).items()}
    file_of: dict[str, AudioFile] = {}
    for file in files:
        if convention.match(file) is None:
            if not not_speech(file.name):
                yield file.skip_unreadable_name(convention)
            continue
        name = name_of(file)
        first = file_of.setdefault(name, file)
        if first is not file and first.size == file.size:
            yield file.skip_repeat(convention, first)
        elif name in problems:
            yield file.skip(corpus, *problems[name])
        elif name not in by_name:
            yield file.skip(corpus, "no-label", f"no label file names {name}")
        else:
            yield Utterance(audio=file.path, source=file.source, corpus=corpus, name=name, **by_name[name].metadata)
    suffix = Path(convention.example).suffix
    for name in sorted(set(by_name) - set(file_of)):
        reason, detail = problems.get(name, ("no-audio", f"named in {by_name[name].location}"))
        yield Skipped(source=f"{name}{suffix}", corpus=corpus, reason=reason, detail=detail, size=-1)


def _by_name(labels: Iterable[Label]) -> tuple[dict[str, Label], dict[str, str]]:
    """Name -> label, and name -> what contradicts what. The same label twice is one label."""
    by_name: dict[str, Label] = {}
    conflicts: dict[str, str] = {}
    for label in labels:
        first = by_name.setdefault(label.name, label)
        if first.metadata != label.metadata:
            keys = [key for key in label.metadata if first.metadata.get(key) != label.metadata[key]]
            statements = (
                f"{each.location}: {', '.join(f'{key} {each.metadata.get(key)}' for key in keys)}"
                for each in (first, label)
            )
            conflicts[label.name] = " but ".join(statements)
    return by_name, conflicts


def read_text(file: Path) -> str:
    """A label or transcript file: UTF-8, or cp1252 where it is not UTF-8; also undoes cp1252 that was read as Latin-1.

    Raises ReaderError for a Git LFS pointer in place of the file.
    """
    data = file.read_bytes()
    if data.startswith(LFS_STUB):
        raise ReaderError(f"{file} is a Git LFS pointer, not the file itself; run `git lfs pull` in the corpus")
    try:
        text = data.decode("utf-8-sig")
    except UnicodeDecodeError:
        text = data.decode("latin-1")
    return text.translate(CP1252)


def one_of(root: Path, label_files: Sequence[Path], expected: str, example: str) -> Path:
    """The label file nearest to the corpus folder (releases keep older ones further down). Raises ReaderError."""
    if not label_files:
        raise ReaderError(f"{root} has no label file: expected {expected}, for example {example}")
    nearest = [file for file in label_files if len(file.parts) == len(label_files[0].parts)]
    if len(nearest) > 1:
        raise ReaderError(f"{root} has several label files: {', '.join(map(str, nearest))}; keep the right one")
    return nearest[0]


def number(value: object, location: str) -> float | None:
    """A rating as it is written; None where it is missing. Raises ReaderError with the location for other text."""
    text = str(value if value is not None else "").strip()
    if not text or text.lower() == "nan":
        return None
    try:
        return float(text)
    except ValueError:
        raise ReaderError(f"{location}: expected a number, got {text!r}") from None
