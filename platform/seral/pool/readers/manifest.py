"""A table of any corpus: JSONL, CSV, TSV or Parquet, one row an utterance (or a segment of a longer recording).

Columns are found by their usual names (`ALIASES`, whatever the case; the first alias that is there wins) or named by
the caller: `columns={"emotion": "my_label"}`, with an empty name to leave a column out. Only the audio is required.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, NoReturn

from seral.errors import ReaderError, unknown_name
from seral.pool.readers.rows import TABLE_FORMATS, Row, read_rows
from seral.pool.readers.utterance import Skipped, Utterance

ALIASES: dict[str, tuple[str, ...]] = {
    "audio": ("audio", "path", "file", "file_name", "filename", "file_path", "filepath", "wav", "audio_path",
              "audio_file", "audio_filepath"),
    "name": ("id", "utterance_id", "utt_id", "segment_id"),
    "corpus": ("corpus", "dataset", "database"),
    "speaker": ("speaker", "speaker_id", "spk", "spk_id", "spkrid", "actor", "actorid"),
    "gender": ("gender", "sex"),
    "session": ("session", "session_id", "dialogue_id", "recording"),
    "language": ("language", "lang", "language_id"),
    "style": ("style",),
    "text": ("text", "transcript", "transcription", "sentence", "utterance"),
    "split": ("split", "partition", "subset", "split_set"),
    "start_s": ("start_s", "start", "start_time", "offset"),
    "end_s": ("end_s", "end", "end_time"),
    "duration_s": ("duration_s", "duration"),
    "emotion": ("emotion", "label", "emotion_label", "emoclass"),
    "valence": ("valence", "val", "emoval"),
    "arousal": ("arousal", "activation", "act", "aro", "emoact"),
    "dominance": ("dominance", "dom", "emodom"),
}  # fmt: skip
"""Our name -> the names it goes by, in order of preference. A duration only matters beside a start without an end."""
MANIFEST_STEMS = ("manifest", "metadata")
UNKNOWN_WORDS = {"", "nan", "none", "null", "unknown"}
SPLITS = {
    "train": "train", "training": "train",
    "dev": "dev", "development": "dev", "val": "dev", "valid": "dev", "validation": "dev",
    "test": "test", "testing": "test", "eval": "test", "evaluation": "test",
}  # fmt: skip
GENDERS = {"female": "female", "f": "female", "woman": "female", "male": "male", "m": "male", "man": "male",
           "other": "other"}  # fmt: skip
STYLES = ("acted", "elicited", "natural")


def read_manifest(
    root: Path, *, columns: Mapping[str, str] | None = None, corpus: str | None = None
) -> Iterator[Utterance | Skipped]:
    """Utterances of a manifest file, or of the one in a folder; sorted by source.

    Relative audio paths start at the manifest. The corpus is `corpus` if given, else the row's, else the folder's name.
    """
    file = _manifest_file(root)
    rows = read_rows(file)
    if not rows:
        raise ReaderError(f"{file} has no rows")
    named = _columns(file, {column for row in rows for column in row.values}, columns or {})
    base = file.resolve().parent
    found = [_ManifestRow(file, row, named).utterance(base, corpus) for row in rows]
    yield from sorted(found, key=lambda utterance: (utterance.corpus, utterance.source, utterance.name))


def _manifest_file(root: Path) -> Path:
    if not root.is_dir():
        return root
    names = [f"{stem}{suffix}" for stem in MANIFEST_STEMS for suffix in TABLE_FORMATS]
    for name in names:
        if (root / name).is_file():
            return root / name
    raise ReaderError(f"no manifest in {root}: expected a file named {', '.join(names)}, for example {root / names[0]}")


def _columns(file: Path, present: set[str], wanted: Mapping[str, str]) -> dict[str, str]:
    """Our name -> the file's column."""
    listing = ", ".join(sorted(present))
    by_lower = {column.lower(): column for column in sorted(present, reverse=True)}
    named = {}
    for field, aliases in ALIASES.items():
        known = [by_lower[alias] for alias in aliases if alias in by_lower]
        if known:
            named[field] = known[0]
    for field, column in wanted.items():
        if field not in ALIASES:
            raise ReaderError(unknown_name("field to map a column to", field, ALIASES))
        if column and column not in present:
            raise ReaderError(f"{file} has no column {column!r} for {field}; it has: {listing}")
        named[field] = column
    named = {field: column for field, column in named.items() if column}
    if "audio" not in named:
        raise ReaderError(
            f"{file} has no column for the audio, which may be called {', '.join(ALIASES['audio'])}; "
            f"it has: {listing}. Name it: --column audio=COLUMN"
        )
    return named


class _ManifestRow:
    """One row seen through the column names, with the place for its errors."""

    def __init__(self, file: Path, row: Row, named: Mapping[str, str]) -> None:
        self.file = file
        self.row = row
        self.named = named

    def utterance(self, base: Path, corpus: str | None) -> Utterance:
        written = self.audio()
        start_s, end_s = self.segment()
        audio = Path(written) if Path(written).is_absolute() else base / written
        inside = audio.relative_to(base) if audio.is_relative_to(base) else audio
        segment = "" if start_s is None and end_s is None else f"#{_seconds(start_s)}-{_seconds(end_s)}"
        return Utterance(
            audio=audio,
            source=inside.as_posix() + segment,
            corpus=corpus or self.corpus(base.name),
            name=self.text("name") or inside.with_suffix("").as_posix() + segment,
            start_s=start_s,
            end_s=end_s,
            split=self.one_of("split", SPLITS),
            style=self.one_of("style", {style: style for style in STYLES}),
            speaker=self.text("speaker"),
            gender=self.one_of("gender", GENDERS),
            session=self.text("session"),
            language=self.text("language"),
            text=self.text("text"),
            emotion=self.text("emotion"),
            valence=self.number("valence"),
            arousal=self.number("arousal"),
            dominance=self.number("dominance"),
        )

    def audio(self) -> str:
        value = self.value("audio")
        if value is None or value == "":
            self.fail("audio", "no path")
        if not isinstance(value, str):
            self.fail("audio", f"expected a path, got {type(value).__name__}")
        if "://" in value:
            self.fail("audio", f"expected a path this machine can open, got the address {value}")
        return value

    def corpus(self, default: str) -> str:
        value = self.text("corpus") or default or "manifest"
        if "/" in value or "\\" in value:
            self.fail("corpus", f"a corpus name has no slash, got {value!r}")
        return value

    def segment(self) -> tuple[float | None, float | None]:
        start_s, end_s, duration_s = (self.number(field) for field in ("start_s", "end_s", "duration_s"))
        if start_s is not None and end_s is None and duration_s is not None:
            end_s = start_s + duration_s
        return start_s, end_s

    def text(self, field: str) -> str | None:
        value = self.value(field)
        known = value is not None and str(value).strip().lower() not in UNKNOWN_WORDS
        return str(value).strip() if known else None

    def number(self, field: str) -> float | None:
        written = self.text(field)
        if written is None:
            return None
        try:
            number = float(written)
        except ValueError:
            self.fail(field, f"expected a number, got {written!r}")
        if not math.isfinite(number):
            self.fail(field, f"expected a finite number, got {written!r}")
        return number

    def one_of(self, field: str, words: Mapping[str, str]) -> str | None:
        written = self.text(field)
        if written is None:
            return None
        if written.lower() not in words:
            self.fail(field, f"{unknown_name('word', written, words)}. To leave the column out: --column {field}=")
        return words[written.lower()]

    def value(self, field: str) -> Any:
        return self.row.values.get(self.named[field]) if field in self.named else None

    def fail(self, field: str, problem: str) -> NoReturn:
        raise ReaderError(f"{self.file}, {self.row.place}, column {self.named.get(field, field)!r}: {problem}")


def _seconds(value: float | None) -> str:
    return "" if value is None else f"{value:.3f}"
