"""Columns of Hugging Face datasets, however they are stored: one of audio (bytes and path), others with what is known.

Names of classes are read from the features that the `datasets` library keeps beside the data; other columns go by their
usual names (`fields.ALIASES`).
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path, PurePosixPath
from typing import Any

import pyarrow as pa

from seral.audio.containers import Inside
from seral.corpora.reading.choices import Reading
from seral.corpora.reading.fields import segment_name, split_of_path
from seral.corpora.reading.rows import Row
from seral.corpora.reading.tree import AudioFile, audio_files
from seral.corpora.reading.utterance import Skipped, Utterance
from seral.corpora.reading.votes import VOTES
from seral.errors import ReaderError
from seral.security.text import parse_json

HUB_ID = re.compile(r"[\w.-]+/[\w.-]+")


class DatasetColumns:
    """The columns of one file and what they are. Raises ReaderError for a file without audio."""

    def __init__(
        self, file: AudioFile, schema: pa.Schema, reading: Reading, features: Mapping[str, Any] | None = None
    ) -> None:
        """`features` are those of the data set, where the file's schema does not hold them."""
        self.file, self._reading = file, reading
        self.audio = _audio_column(file, schema)
        reading.check_a_row_a_clip(str(file.path))
        columns = reading.table(str(file.path), plain_columns(schema))
        self._columns = replace(columns, named={name: c for name, c in columns.named.items() if name != "audio"})
        metadata = (schema.metadata or {}).get(b"huggingface")
        self._classes = _class_names(_features(file, metadata) if metadata else features or {})

    @property
    def names(self) -> list[str]:
        """The columns to read, besides the bytes of the audio."""
        columns = self._columns
        raters = () if columns.raters is None else sorted(columns.raters.columns)
        votes = columns.present & {VOTES}
        return [*dict.fromkeys([*columns.named.values(), *columns.shares, *raters, *votes]), f"{self.audio}.path"]

    def utterance(
        self,
        number: int,
        row: Mapping[str, Any],
        *,
        audio: Path | None = None,
        inside: Inside | None = None,
        split: str | None = None,
    ) -> Utterance | Skipped:
        """The utterance of a row, whose clip is `audio` or inside the file; patterns and tables go by its own path."""
        values = {column: _named_class(value, self._classes.get(column)) for column, value in row.items()}
        fields = self._columns.fields(Row(location=f"row {number}", values=values))
        path, source = (row[self.audio] or {}).get("path"), self.source(number)
        item = self._reading.record(fields, AudioFile(path=self.file.path, source=path or source))
        if isinstance(item, Skipped):
            return replace(item, source=source, size=-1 if inside is None else inside.size)
        segment = segment_name(item.start_s, item.end_s)
        return replace(
            item,
            audio=audio or self.file.path,
            inside=inside,
            source=source + segment,
            name=fields.text("name") or _stem(path, source) + segment,
            split=item.split or split_of_path(self.file.source) or split,
        )

    def source(self, number: int) -> str:
        """The source of a row."""
        return f"{self.file.source}/{number:08d}"


def _features(file: AudioFile, metadata: bytes) -> Mapping[str, Any]:
    try:
        features = parse_json(metadata)["info"]["features"]
    except (ValueError, KeyError, TypeError) as error:
        raise ReaderError(f"{file.path}: its note of `datasets` cannot be read: {error!r}") from None
    return features if isinstance(features, dict) else {}


def plain_columns(schema: pa.Schema) -> set[str]:
    """Columns of a file that hold a value a row."""
    return {field.name for field in schema if not pa.types.is_nested(field.type)}


def dataset_files(root: Path, suffix: str, example: str, other: str) -> tuple[Sequence[AudioFile], str]:
    """The files of a data set, one or all below a folder, and the folder's name.

    Raises ReaderError where there is none; `other` is a suffix -> reader that is for it.
    """
    if root.is_file():
        return [AudioFile(path=root.resolve(), source=root.name)], root.resolve().parent.name
    if not root.exists() and HUB_ID.fullmatch(str(root)):
        raise ReaderError(
            f"{root} is not a folder. A data set of the Hugging Face hub has to be there first: "
            f"hf download {root} --repo-type dataset --local-dir DIR, then import DIR"
        )
    files = audio_files(root, frozenset({suffix}))
    if not files:
        ending, reader = other.split(": ")
        hint = f"; its {ending} files are for the reader {reader}" if audio_files(root, frozenset({ending})) else ""
        raise ReaderError(f"no {suffix} file below {root}: expected files named *{suffix}, for example {example}{hint}")
    return files, root.resolve().name


def _audio_column(file: AudioFile, schema: pa.Schema) -> str:
    """The first struct with bytes and path, the one called audio if there are several."""
    audio_columns = [field.name for field in schema if _names(field.type) >= {"bytes", "path"}]
    if not audio_columns:
        raise ReaderError(
            f"{file.path} has no column of audio: expected a struct of bytes and path, as `datasets` writes it; "
            f"there is: {', '.join(schema.names)}. A table that names audio files is for the reader `manifest`"
        )
    return "audio" if "audio" in audio_columns else audio_columns[0]


def _names(kind: pa.DataType) -> set[str]:
    return {kind.field(index).name for index in range(kind.num_fields)} if pa.types.is_struct(kind) else set()


def _class_names(features: Mapping[str, Any]) -> dict[str, list[str]]:
    """Column -> names of its classes."""
    return {column: spec["names"] for column, spec in features.items() if _is_class_label(spec)}


def _is_class_label(spec: Any) -> bool:
    return isinstance(spec, dict) and spec.get("_type") == "ClassLabel" and isinstance(spec.get("names"), list)


def _named_class(value: Any, names: list[str] | None) -> Any:
    """A class's name for its number; -1 stands for no label."""
    if names is None or not isinstance(value, int):
        return value
    return names[value] if 0 <= value < len(names) else None


def _stem(path: str | None, default: str) -> str:
    return PurePosixPath(path).with_suffix("").as_posix() if path else default
