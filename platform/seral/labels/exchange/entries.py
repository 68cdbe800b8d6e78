"""Exports and entries, which every exchange format shares; entries are checked before anything is written."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, fields, replace
from pathlib import Path
from typing import Annotated, Any, TypeVar

import pyarrow as pa
from pydantic import ConfigDict, Field, TypeAdapter, ValidationError

from seral.errors import LabelError
from seral.labels.ledger import Ledger
from seral.labels.records import RATINGS, Answer, Asked, Project, Purpose, check, named
from seral.schema import ANSWERS
from seral.security.phrases import in_words
from seral.security.text import parse_json

T = TypeVar("T")
CONTENT = ("person", "utterance_id", "kind", "emotions", "secondary", *RATINGS, "confidence", "comment", "final")
"""Fields by which two answers with one key are the same answer."""


@dataclass(frozen=True, kw_only=True)
class Question:
    """A clip of a batch; `rank` is its place in the order in which the batch is asked, from 1."""

    utterance_id: str
    batch: str | None
    purpose: Purpose | None
    round: int | None
    rank: int | None


@dataclass(frozen=True, kw_only=True)
class Export:
    """The content of a file."""

    project: Project
    answers: pa.Table
    """schema.ANSWERS."""
    questions: Sequence[Question] = ()
    """The questions, for formats that people work with."""
    audio: str = "clips/{utterance_id}.flac"
    """The address of an utterance's audio, for people who open the file."""
    probabilities: Mapping[str, Mapping[str, float]] | None = None
    """Utterance -> class -> the model's probability."""
    suggest: bool = False
    """Whether people see what the model thinks. It biases them."""

    def audio_of(self, utterance_id: str) -> str:
        """The address of an utterance's audio."""
        return self.audio.replace("{utterance_id}", utterance_id)

    def first_class(self, utterance_id: str) -> tuple[str, float] | None:
        """The class that the model finds most probable, and how probable; None where it said nothing."""
        probability_of = (self.probabilities or {}).get(utterance_id)
        return max(probability_of.items(), key=lambda pair: pair[1]) if probability_of else None


@dataclass(frozen=True, kw_only=True)
class Entry:
    """An answer from a file, and where in the file it stands."""

    position: str
    answer: Answer
    asked: Asked | None


@dataclass(frozen=True, kw_only=True)
class AnswerRow(Answer):
    """A row of schema.ANSWERS as files have it: only the utterance and the person must be there."""

    __pydantic_config__ = ConfigDict(extra="forbid", allow_inf_nan=False)

    id: int | None = None
    supersedes: int | None = None
    batch: Annotated[str | None, Field(min_length=1, max_length=200)] = None
    purpose: Purpose | None = None


ROW = TypeAdapter(AnswerRow)


def entry_of(values: Mapping[str, Any], position: str, tool: str) -> Entry:
    """An answer from a row of a file; fields that are None count as absent.

    Without a key it gets one from its content, so that the same row read again is the same answer. `id` and
    `supersedes` are the numbers of the ledger it came from and are not kept: a correction supersedes what the same
    person said of the same question before, as always. Raises LabelError that names the place.
    """
    present = {name: value for name, value in values.items() if value is not None}
    try:
        row = ROW.validate_python(present)
    except ValidationError as error:
        raise LabelError(f"{position}: {_explain(error)}") from None
    if (row.batch is None) != (row.purpose is None):
        raise LabelError(f"{position}: batch and purpose go together")
    answer = {f.name: getattr(row, f.name) for f in fields(Answer)}
    if "key" not in present:
        made = {"key": None, "tool": present.get("tool"), "batch": row.batch, "purpose": row.purpose}
        answer["key"] = content_key(answer | made)
    answer["tool"] = present.get("tool", tool)
    asked = (row.batch, row.purpose) if row.batch is not None and row.purpose is not None else None
    return Entry(position=position, answer=Answer(**answer), asked=asked)


def in_order(rows: Iterable[tuple[str, Mapping[str, Any]]], tool: str) -> list[Entry]:
    """Entries in the order in which their ledger got them, where a file tells: whoever sorted it meant no harm."""
    entries = [(row.get("id"), entry_of(row, position, tool)) for position, row in rows]
    if all(number is not None for number, _ in entries):
        entries.sort(key=lambda pair: int(pair[0] or 0))
    return [entry for _, entry in entries]


def content_key(content: Mapping[str, Any]) -> str:
    """A key for an answer that has none, the same for the same content."""
    return hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()[:32]


def write_entries(ledger: Ledger, entries: Sequence[Entry]) -> int:
    """Write all of them or none; returns how many are new. Raises LabelError with the place of what is wrong."""
    purposes: dict[str, str] = {batch.batch: batch.purpose for batch in ledger.progress()}
    answers = ledger.answers_of([entry.answer.key for entry in entries])
    people = {row.name for row in ledger.people()}
    clean = list[Entry]()
    for read in entries:
        try:
            entry = replace(read, answer=named(read.answer, people))
            check(entry.answer, ledger.project)
        except LabelError as error:
            raise LabelError(f"{read.position}: {error}") from None
        if entry.asked is not None and purposes.setdefault(*entry.asked) != entry.asked[1]:
            batch, purpose = entry.asked
            raise LabelError(
                f"{entry.position}: the batch {batch!r} has the purpose {purposes[batch]!r}, not {purpose!r}"
            )
        before = answers.setdefault(entry.answer.key, entry.answer)
        if changed := [name for name in CONTENT if getattr(before, name) != getattr(entry.answer, name)]:
            raise LabelError(
                f"{entry.position}: the answer with the key {entry.answer.key} is there already and has another "
                f"{', '.join(changed)}; take the key out to record it as a correction"
            )
        clean.append(entry)
    return ledger.record((entry.answer for entry in clean), (entry.asked for entry in clean))


@contextmanager
def readable(path: Path) -> Iterator[None]:
    """Errors of files that are not there or are no text, in our words."""
    try:
        yield
    except (OSError, UnicodeDecodeError) as error:
        raise LabelError(f"{path} cannot be read: {error}") from None


def read_json(path: Path, shape: type[T]) -> T:
    """A JSON file of this shape. Raises LabelError with the line, or with the path inside the file."""
    with readable(path):
        text = path.read_text(encoding="utf-8")
    try:
        return TypeAdapter(shape).validate_python(parse_json(text))
    except json.JSONDecodeError as error:
        raise LabelError(f"{path}, line {error.lineno}: not JSON: {error.msg}") from None
    except ValidationError as error:
        problem = error.errors()[0]
        where = "".join(f"[{part}]" if isinstance(part, int) else f".{part}" for part in problem["loc"])
        raise LabelError(f"{path}{where and f', {where}'}: {in_words(problem)}") from None
    except ValueError as error:
        raise LabelError(f"{path}: {error}") from None


def _explain(error: ValidationError) -> str:
    problem = error.errors()[0]
    where = ".".join(str(part) for part in problem["loc"])
    if problem["type"] == "unexpected_keyword_argument":
        return f"unknown column {where!r}; known: {', '.join(ANSWERS.names)}"
    if problem["type"] == "missing":
        return f"no {where}"
    return f"{where} is {problem['input']!r}: {in_words(problem)}"
