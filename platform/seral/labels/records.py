"""The records of a label ledger: questions and answers, and the limits of what it may hold."""

from __future__ import annotations

import re
import unicodedata
import uuid
from collections.abc import Container
from dataclasses import dataclass, field, replace
from typing import Literal, get_args

from seral.errors import LabelError, unknown_name

Kind = Literal["label", "unusable", "skipped", "other-language"]
Purpose = Literal["evaluation", "round", "relabel", "check"]
Role = Literal["annotator", "lead"]
Asked = tuple[str, Purpose]
"""Name and purpose of a batch."""
PASSES: tuple[Kind, ...] = ("skipped", "other-language")
"""Answers of people who pass: somebody else is asked in their place."""
RATINGS = ("valence", "arousal", "dominance")
LENGTHS = {"utterance_id": 200, "key": 100, "tool": 40}
NAME = re.compile(r"[^\s/][^\n\r/]{0,98}")
NO_NAME = "is no name for a person: up to 99 characters in one line, without /"
UNSEEN = {"Cc", "Cf", "Cs", "Co", "Cn", "Zl", "Zp"}
"""Categories of characters that nobody sees, or that turn what stands around them: NUL, marks of direction, ..."""
JOINERS = "\u200c\u200d"
"""Unseen as well, and yet spelling: in Persian and in Indian languages, between two of their letters."""
NO_TEXT = re.compile("[\0\ud800-\udfff]")


@dataclass(frozen=True, kw_only=True)
class Project:
    """The question that a ledger puts to people."""

    classes: tuple[str, ...]
    dimensions: tuple[str, ...] = ()
    scale: tuple[float, float] = (1.0, 5.0)
    """Lowest and highest rating of a dimension."""


@dataclass(frozen=True, kw_only=True)
class Answer:
    """One person's answer about one utterance."""

    utterance_id: str
    person: str
    kind: Kind = "label"
    emotions: tuple[str, ...] = ()
    """The classes heard, each as much as the others; usually one."""
    secondary: tuple[str, ...] = ()
    """Further classes that were heard, but less."""
    valence: float | None = None
    arousal: float | None = None
    dominance: float | None = None
    confidence: float | None = None
    """Confidence of the person in the answer, 0..1."""
    comment: str | None = None
    seconds: float | None = None
    """Spent on the clip."""
    round: int | None = None
    """The round that asked; None = the round of the question, if it has one."""
    tool: str = "page"
    final: bool = False
    """Adjudicated by a lead: it stands above the votes."""
    answered_at: float | None = None
    """Seconds since 1970; None = now."""
    key: str = field(default_factory=lambda: uuid.uuid4().hex)
    """An answer that is sent again under its key is written once."""


@dataclass(frozen=True, kw_only=True)
class Task:
    """A clip somebody has the lease of."""

    question: int
    utterance_id: str
    batch: str
    purpose: Purpose
    round: int | None
    lease_until: float


@dataclass(frozen=True, kw_only=True)
class Progress:
    """The progress of a batch."""

    batch: str
    purpose: Purpose
    round: int | None
    questions: int
    done: int
    """Clips about which everybody has answered who was to."""
    answers: int
    """Answers so far, corrections not counted."""
    closed: bool
    asked_at: float
    """Seconds since 1970."""


@dataclass(frozen=True, kw_only=True)
class Standing:
    """The progress of one person."""

    answered: int
    """Clips they have answered, corrections not counted."""
    left: int
    """Clips they have at hand or could be asked about now, checks not counted."""


def clean_name(name: str) -> str:
    """The name of a person with composed letters (NFC) and plain spaces, so that what looks alike is alike.

    Raises LabelError for what is no name, or has characters that nobody sees.
    """
    clean = unicodedata.normalize("NFC", name)
    clean = "".join(" " if unicodedata.category(character) == "Zs" else character for character in clean)
    for at, character in enumerate(clean):
        spelled = character in JOINERS and not (clean[at - 1 : at] + clean[at + 1 : at + 2]).isascii()
        if unicodedata.category(character) in UNSEEN and not spelled:
            label = unicodedata.name(character, "a control character").lower()
            raise LabelError(
                f"{name!r} is no name for a person: character {at + 1}, U+{ord(character):04X} ({label}), is one that "
                "nobody sees; leave it out"
            )
    if not NAME.fullmatch(clean) or clean != clean.strip():
        raise LabelError(f"{name!r} {NO_NAME}")
    return clean


def named(answer: Answer, people: Container[str]) -> Answer:
    """An answer of one of these people; of anybody else under a name as `clean_name` has it."""
    return answer if answer.person in people else replace(answer, person=clean_name(answer.person))


def check(answer: Answer, project: Project) -> None:
    """Raise LabelError for an answer that a ledger of this project cannot hold."""
    about = f"the answer of {answer.person} about {answer.utterance_id}"
    _check_texts(answer, about)
    if answer.kind not in get_args(Kind):
        raise LabelError(f"{about}: {unknown_name('kind', answer.kind, get_args(Kind))}")
    emotions = [*answer.emotions, *answer.secondary]
    if unknown := sorted(set(emotions) - set(project.classes)):
        raise LabelError(f"{about}: {unknown_name('class', unknown[0], project.classes)}")
    if len(set(emotions)) < len(emotions):
        raise LabelError(f"{about}: a class stands twice in {', '.join(emotions)}")
    rated = {name: value for name in RATINGS if (value := getattr(answer, name)) is not None}
    low, high = project.scale
    for name, value in rated.items():
        if name not in project.dimensions:
            raise LabelError(f"{about}: nobody asked for {name}")
        if not low <= value <= high:
            raise LabelError(f"{about}: {name} is {value:g}, outside {low:g} to {high:g}")
    if answer.kind == "label" and not (answer.emotions or rated):
        raise LabelError(f"{about}: it says nothing; a label has a class or a rating")
    if answer.kind != "label" and (emotions or rated):
        raise LabelError(f"{about}: {answer.kind}, and yet it has a class or a rating")
    _check_numbers(answer, about)


def _check_numbers(answer: Answer, about: str) -> None:
    """Refuse numbers that mean nothing, or that not every database can hold."""
    if answer.confidence is not None and not 0 <= answer.confidence <= 1:
        raise LabelError(f"{about}: confidence is {answer.confidence:g}, outside 0 to 1")
    if answer.seconds is not None and not 0 <= answer.seconds < float("inf"):
        raise LabelError(f"{about}: {answer.seconds} seconds")
    if answer.round is not None and not -(2**31) <= answer.round < 2**31:
        raise LabelError(f"{about}: the round {answer.round} has more than 32 bits")


def _check_texts(answer: Answer, about: str) -> None:
    """Refuse what not every database can hold."""
    if not NAME.fullmatch(answer.person) or answer.person != answer.person.strip():
        raise LabelError(f"{answer.person!r} {NO_NAME}")
    for name, most in LENGTHS.items():
        if not 1 <= len(getattr(answer, name)) <= most:
            raise LabelError(f"{about}: {name} has {len(getattr(answer, name))} characters, not 1 to {most}")
    for name in ("person", "comment", *LENGTHS):
        if NO_TEXT.search(getattr(answer, name) or ""):
            raise LabelError(f"{about}: {name} has a character that is no text (NUL, or half of a surrogate pair)")
