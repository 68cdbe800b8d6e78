"""The records every reader yields: what it could place, and what it could not."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from ser_models.channels import Channel
from seral.audio.containers import Inside

NO_AGREEMENT = "no agreement"
"""The gold emotion of an utterance whose raters did not agree on one, in every corpus that has such."""


@dataclass(frozen=True, kw_only=True)
class Vote:
    """The answer of one rater to an utterance, or of `count` unnamed ones. Goes where gold labels go."""

    rater: str | None = None
    emotion: str | None = None
    """In the corpus's own word."""
    secondary: tuple[str, ...] = ()
    """Further emotions that the rater also heard."""
    valence: float | None = None
    arousal: float | None = None
    dominance: float | None = None
    count: int = 1


@dataclass(frozen=True, kw_only=True)
class Utterance:
    """One utterance of a corpus before decoding: where its audio is and what the corpus says about it."""

    audio: Path
    """Absolute path of the audio file, or of the file that holds it among others."""
    inside: Inside | None = None
    """Position of the clip in `audio`; None = the whole file is the clip."""
    source: str
    """Path inside the corpus folder, POSIX style (plus `#start-end` in seconds for a segment): provenance."""
    corpus: str
    name: str
    """The corpus's own name for the utterance (usually the file's stem); part of the stable id."""
    speaker: str | None = None
    gender: str | None = None
    """Of the speaker: female, male or other."""
    session: str | None = None
    language: str | None = None
    """ISO 639-1."""
    style: str | None = None
    """acted, elicited or natural."""
    text: str | None = None
    split: str | None = None
    """train, dev or test where given, else None."""
    start_s: float | None = None
    end_s: float | None = None
    """A segment of a longer recording, in seconds; None = from the start / to the end."""
    channel: Channel | None = None
    """Channel of the recording that the utterance is in; None = the one that the import takes."""
    emotion: str | None = None
    """Gold label in the corpus's own word: goes to the gold table, never into the pool."""
    valence: float | None = None
    arousal: float | None = None
    dominance: float | None = None
    votes: tuple[Vote, ...] = ()
    """Answers of the single raters, where the corpus has them."""


@dataclass(frozen=True, kw_only=True)
class Skipped:
    """A file that cannot be placed, or a label without its file: it becomes a row of the quarantine table."""

    source: str
    """Path inside the corpus folder, POSIX style."""
    corpus: str
    reason: str = "unreadable-name"
    """One word from seral.audio.quality.REASONS."""
    detail: str
    size: int
    """Bytes of the file, -1 where there is none."""
