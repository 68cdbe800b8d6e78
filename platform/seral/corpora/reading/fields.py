"""Metadata of an utterance from a row of any table: columns known by their usual names, values put into our words."""

from __future__ import annotations

import math
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import timedelta
from pathlib import PurePosixPath
from typing import Any, NoReturn, get_args

from ser_models.channels import Channel
from seral.corpora.reading.languages import language_code
from seral.corpora.reading.utterance import NO_AGREEMENT, Vote
from seral.corpora.reading.votes import mean_rating, winner
from seral.errors import ReaderError, unknown_name

ALIASES: dict[str, tuple[str, ...]] = {
    "audio": ("audio", "path", "file", "file_name", "filename", "file_path", "filepath", "wav", "audio_path",
              "audio_file", "audio_filepath"),
    "name": ("id", "utterance_id", "utt_id", "segment_id", "key"),
    "corpus": ("corpus", "dataset", "database"),
    "speaker": ("speaker", "speaker_id", "spk", "spk_id", "spkrid", "actor", "actorid", "actor_id"),
    "gender": ("gender", "sex"),
    "session": ("session", "session_id", "dialogue_id", "recording"),
    "language": ("language", "lang", "language_id"),
    "style": ("style",),
    "text": ("text", "transcript", "transcription", "sentence", "utterance"),
    "split": ("split", "partition", "subset", "split_set"),
    "start_s": ("start_s", "start", "start_time", "offset"),
    "end_s": ("end_s", "end", "end_time"),
    "duration_s": ("duration_s", "duration"),
    "channel": ("audio_channel",),
    "emotion": ("emotion", "label", "emotion_label", "emoclass", "emo"),
    "valence": ("valence", "val", "emoval"),
    "arousal": ("arousal", "activation", "act", "aro", "emoact"),
    "dominance": ("dominance", "dom", "emodom"),
}  # fmt: skip
"""Our name -> the names it goes by, in order of preference. A duration only matters beside a start without an end."""
SHARES = frozenset({
    "anger", "angry", "boredom", "calm", "contempt", "disgust", "excited", "fear", "frustrated", "happiness", "happy",
    "joy", "neutral", "other", "sad", "sadness", "surprise",
})  # fmt: skip
"""Columns that each hold one emotion's share of the votes; the greatest is the label where no column tells it."""
UNKNOWN_WORDS = {"", "nan", "none", "null", "unknown"}
OTHERWISE = "*"
"""Word of a map for all that it does not name, and for what says nothing."""
SPLITS = {
    "train": "train", "training": "train",
    "dev": "dev", "development": "dev", "val": "dev", "valid": "dev", "validation": "dev",
    "test": "test", "testing": "test", "eval": "test", "evaluation": "test",
    "test1": "test", "test2": "test", "test3": "test",
}  # fmt: skip
GENDERS = {"female": "female", "f": "female", "woman": "female", "male": "male", "m": "male", "man": "male",
           "other": "other"}  # fmt: skip
CHANNELS = {channel: channel for channel in get_args(Channel)}
STYLES = {style: style for style in ("acted", "elicited", "natural")}
CLOCK = re.compile(r"(?=.)(?:(\d+) days?)? ?(?:(\d+):(\d\d):(\d\d(?:\.\d+)?))?")
"""A time as pandas writes it: `0 days 00:00:01.500000`, or `0 days` alone."""


def known_columns(present: Iterable[str]) -> dict[str, str]:
    """Our name -> the column, whatever the case; the first alias that is there wins."""
    by_lower = {column.lower(): column for column in sorted(present, reverse=True)}
    column_of = {}
    for name, aliases in ALIASES.items():
        columns = [by_lower[alias] for alias in aliases if alias in by_lower]
        if columns:
            column_of[name] = columns[0]
    return column_of


def chosen_columns(table: str, present: Iterable[str], choice: Mapping[str, str]) -> dict[str, str]:
    """Our name -> the column: what the caller chose, else the usual names. An empty choice leaves a column out.

    `table` is what errors name. Raises ReaderError for a name that is not ours or a column that is not there.
    """
    present = sorted(set(present))
    for name, column in choice.items():
        if name not in ALIASES:
            raise ReaderError(unknown_name("field to map a column to", name, ALIASES))
        if column and column not in present:
            raise ReaderError(f"{table} has no column {column!r} for {name}; it has: {', '.join(present)}")
    return {name: column for name, column in (known_columns(present) | dict(choice)).items() if column}


def share_columns(present: Iterable[str], column_of: Mapping[str, str]) -> tuple[str, ...]:
    """The columns of SHARES, where there are at least two and no other column tells the emotion."""
    shares = tuple(sorted(column for column in present if column.lower() in SHARES))
    return shares if len(shares) > 1 and "emotion" not in column_of else ()


def blank(value: Any) -> bool:
    """Whether a value says nothing, or that it is unknown."""
    return value is None or str(value).strip().lower() in UNKNOWN_WORDS


def split_of_path(path: str) -> str | None:
    """The split that a folder or a file name tells, as in `data/train-00000-of-00002.parquet`."""
    words = [word for part in PurePosixPath(path).parts for word in re.split(r"[^a-z0-9]+", part.lower())]
    return next((SPLITS[word] for word in words if word in SPLITS), None)


@dataclass(frozen=True, kw_only=True)
class Fields:
    """One row read through the column names, with its location for errors."""

    location: str
    """File and row for errors, such as `m.csv, line 12`."""
    values: Mapping[str, Any]
    named: Mapping[str, str]
    """Our name -> the column."""
    shares: Sequence[str] = ()
    maps: Mapping[str, Mapping[str, str]] = field(default_factory=dict)
    """Our name -> the row's word -> the word to take; OTHERWISE stands for every other word and for none."""
    votes: tuple[Vote, ...] = ()

    def metadata(self) -> dict[str, Any]:
        """The fields of Utterance that the row tells, besides where the audio is and what it is called."""
        start_s, end_s = self.segment()
        return {
            "start_s": start_s,
            "end_s": end_s,
            "channel": self.one_of("channel", CHANNELS),
            "split": self.one_of("split", SPLITS),
            "style": self.one_of("style", STYLES),
            "speaker": self.text("speaker"),
            "gender": self.one_of("gender", GENDERS),
            "session": self.text("session"),
            "language": self.language(),
            "text": self.text("text"),
            "emotion": self.text("emotion") or self.greatest_share() or winner(self.votes),
            **{dimension: self.rating(dimension) for dimension in ("valence", "arousal", "dominance")},
            "votes": self.votes,
        }

    def filled(self, more: Mapping[str, tuple[str, Any]]) -> Fields:
        """The row with values from elsewhere where it has none: our name -> (what to call the column, value)."""
        absent = {name: entry for name, entry in more.items() if blank(self._raw(name))}
        return replace(
            self,
            values={**self.values, **dict(absent.values())},
            named={**self.named, **{name: column for name, (column, _) in absent.items()}},
        )

    def rating(self, dimension: str) -> float | None:
        """The rating of a dimension, else the mean of the raters'."""
        value = self.number(dimension)
        return mean_rating(self.votes, dimension) if value is None else value

    def language(self) -> str | None:
        """The language, under its ISO 639-1 code where we know it."""
        word = self.text("language")
        return None if word is None else language_code(word)

    def corpus(self, default: str) -> str:
        """The corpus of the row, else the default."""
        value = self.text("corpus") or default
        if "/" in value or "\\" in value:
            self.fail("corpus", f"a corpus name has no slash, got {value!r}")
        return value

    def segment(self) -> tuple[float | None, float | None]:
        """Start and end in seconds; None where the recording starts or ends."""
        start_s, end_s, duration_s = (self.seconds(field) for field in ("start_s", "end_s", "duration_s"))
        if start_s is not None and end_s is None and duration_s is not None:
            end_s = start_s + duration_s
        return start_s, end_s

    def greatest_share(self) -> str | None:
        """The emotion with the greatest share of the votes, NO_AGREEMENT at a tie."""
        shares = {column: replace(self, named={column: column}).number(column) or 0.0 for column in self.shares}
        greatest = max(shares.values(), default=0.0)
        if greatest <= 0:
            return None
        top = [column for column, share in shares.items() if share == greatest]
        word: str = self.mapped("emotion", top[0] if len(top) == 1 else NO_AGREEMENT)
        return word

    def text(self, field: str) -> str | None:
        """The value as text, None when there is none or it is said to be unknown."""
        value = self.value(field)
        return None if blank(value) else str(value).strip()

    def number(self, field: str) -> float | None:
        """The value as a finite number."""
        text = self.text(field)
        if text is None:
            return None
        try:
            number = float(text)
        except ValueError:
            self.fail(field, f"expected a number, got {text!r}")
        if not math.isfinite(number):
            self.fail(field, f"expected a finite number, got {text!r}")
        return number

    def seconds(self, field: str) -> float | None:
        """The value as seconds: a number, or a time as pandas writes it."""
        value = self.value(field)
        if isinstance(value, timedelta):
            return value.total_seconds()
        clock = CLOCK.fullmatch(self.text(field) or "")
        if clock is None:
            return None if self.text(field) == "NaT" else self.number(field)
        days, hours, minutes, seconds = (float(part or 0) for part in clock.groups())
        return ((days * 24 + hours) * 60 + minutes) * 60 + seconds

    def one_of(self, field: str, words: Mapping[str, str]) -> str | None:
        """The value in our word for it."""
        word = self.text(field)
        if word is None:
            return None
        if word.lower() not in words:
            hint = f"To have another word: --map {field}={word}:WORD; to leave the column out: --column {field}="
            self.fail(field, f"{unknown_name('word', word, words)}. {hint}")
        return words[word.lower()]

    def value(self, field: str) -> Any:
        """The value in the field's column, None when it has no column."""
        return self.mapped(field, self._raw(field))

    def mapped(self, field: str, value: Any) -> Any:
        """The value in the words of the field's map."""
        words = self.maps.get(field)
        if words is None:
            return value
        return words.get("" if value is None else str(value).strip(), words.get(OTHERWISE, value))

    def _raw(self, field: str) -> Any:
        return self.values.get(self.named[field]) if field in self.named else None

    def fail(self, field: str, problem: str) -> NoReturn:
        """Raise ReaderError with the location of the value."""
        raise ReaderError(f"{self.location}, column {self.named.get(field, field)!r}: {problem}")


def segment_name(start_s: float | None, end_s: float | None) -> str:
    """Suffix of a source for a segment of it: `#0.500-1.250`, nothing for the whole."""
    if start_s is None and end_s is None:
        return ""
    return "#" + "-".join("" if value is None else f"{value:.3f}" for value in (start_s, end_s))
