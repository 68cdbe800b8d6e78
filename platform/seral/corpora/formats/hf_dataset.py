"""Columns of Hugging Face datasets, however they are stored: one of audio (bytes and path), others with what is known.

Names of classes are read from the features that the `datasets` library keeps beside the data; other columns go by their
usual names (`fields.ALIASES`).
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence
from pathlib import Path, PurePosixPath
from typing import Any

import pyarrow as pa

from seral.audio.containers import Inside
from seral.corpora.reading.fields import Fields, chosen_columns, segment_name, share_columns, split_of_path
from seral.corpora.reading.tree import AudioFile, audio_files
from seral.corpora.reading.utterance import Utterance
from seral.errors import ReaderError

HUB_ID = re.compile(r"[\w.-]+/[\w.-]+")


class DatasetColumns:
    """The columns of one file and what they are. Raises ReaderError for a file without audio."""

    def __init__(
        self, file: AudioFile, schema: pa.Schema, columns: Mapping[str, str], features: Mapping[str, Any] | None = None
    ) -> None:
        """`features` are those of the data set, where the file's schema does not hold them."""
        self.file = file
        self.audio = _audio_column(file, schema)
        plain = [field.name for field in schema if not pa.types.is_nested(field.type)]
        column_of = chosen_columns(str(file.path), plain, columns)
        self._named = {field: column for field, column in column_of.items() if field != "audio"}
        self._shares = () if "emotion" in columns else share_columns(schema.names, self._named)
        metadata = (schema.metadata or {}).get(b"huggingface")
        self._classes = _class_names(json.loads(metadata)["info"]["features"] if metadata else features or {})

    @property
    def names(self) -> list[str]:
        """The columns to read, besides the bytes of the audio."""
        return [*dict.fromkeys([*self._named.values(), *self._shares]), f"{self.audio}.path"]

    def utterance(
        self,
        number: int,
        row: Mapping[str, Any],
        corpus: tuple[str | None, str],
        *,
        audio: Path | None = None,
        inside: Inside | None = None,
        split: str | None = None,
    ) -> Utterance:
        """The utterance of a row, whose clip is `audio` or inside the file; of the corpus, else the default one."""
        values = {column: _named_class(value, self._classes.get(column)) for column, value in row.items()}
        location = f"{self.file.path}, row {number}"
        fields = Fields(location=location, values=values, named=self._named, shares=self._shares)
        metadata = fields.metadata()
        metadata["split"] = metadata["split"] or split_of_path(self.file.source) or split
        segment = segment_name(metadata["start_s"], metadata["end_s"])
        path, source = (row[self.audio] or {}).get("path"), f"{self.file.source}/{number:08d}"
        return Utterance(
            audio=audio or self.file.path,
            inside=inside,
            source=source + segment,
            corpus=corpus[0] or fields.corpus(corpus[1]),
            name=fields.text("name") or _stem(path, source) + segment,
            **metadata,
        )


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
