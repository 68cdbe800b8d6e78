"""Hugging Face datasets in Parquet: one column of audio (bytes and path), others with what is known of it.

Names of classes are read from the features that the `datasets` library keeps in the file's schema; other columns go
by their usual names (`fields.ALIASES`). The audio stays in the file. A split is told by the path
(`data/train-00000-of-00002.parquet`). Convention: Hugging Face datasets, `Dataset.to_parquet` and `push_to_hub`.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path, PurePosixPath
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from seral.audio.address import arrow_source
from seral.audio.containers import Cell
from seral.corpora.reading.fields import Fields, chosen_columns, segment_name, share_columns, split_of_path
from seral.corpora.reading.tree import AudioFile, audio_files
from seral.corpora.reading.utterance import Skipped, Utterance
from seral.errors import ReaderError


def read_hf_parquet(
    root: Path, *, columns: Mapping[str, str] | None = None, corpus: str | None = None
) -> Iterator[Utterance | Skipped]:
    """Every row of a Parquet file, or of those below a folder, in the order of the rows.

    `columns` and `corpus` are as for the reader `manifest`.
    """
    if root.is_file():
        files: Sequence[AudioFile] = [AudioFile(path=root.resolve(), source=root.name)]
    else:
        files = audio_files(root, frozenset({".parquet"}))
    if not files:
        example = "data/train-00000-of-00002.parquet"
        raise ReaderError(f"no Parquet file below {root}: expected files named *.parquet, for example {example}")
    folder = root.resolve() if root.is_dir() else root.resolve().parent
    for file in files:
        try:
            with pq.ParquetFile(arrow_source(file.path)) as parquet:
                yield from _read_file(file, parquet, columns or {}, corpus, folder.name)
        except pa.ArrowInvalid as error:
            raise ReaderError(f"{file.path} is not a Parquet file: {error}") from None


def _read_file(
    file: AudioFile, parquet: pq.ParquetFile, columns: Mapping[str, str], corpus: str | None, folder: str
) -> Iterator[Utterance]:
    schema = parquet.schema_arrow
    audio = _audio_column(file, schema)
    column_of = _columns(file, schema, columns)
    shares = () if "emotion" in columns else share_columns(schema.names, column_of)
    classes = _class_names(schema)
    names = [*dict.fromkeys([*column_of.values(), *shares]), f"{audio}.path"]
    row_offset = 0
    for group in range(parquet.num_row_groups):
        rows = parquet.read_row_group(group, columns=names).to_pylist()
        size = _audio_bytes(parquet, group, audio) // max(1, len(rows))
        for row, read in enumerate(rows):
            number = row_offset + row
            values = {column: _named_class(value, classes.get(column)) for column, value in read.items()}
            fields = Fields(location=f"{file.path}, row {number}", values=values, named=column_of, shares=shares)
            metadata = fields.metadata()
            metadata["split"] = metadata["split"] or split_of_path(file.source)
            segment = segment_name(metadata["start_s"], metadata["end_s"])
            path = (read[audio] or {}).get("path")
            yield Utterance(
                audio=file.path,
                inside=Cell(row_group=group, row=row, column=audio, size=size),
                source=f"{file.source}/{number:08d}{segment}",
                corpus=corpus or fields.corpus(folder or "parquet"),
                name=fields.text("name") or _stem(path, f"{file.source}/{number:08d}") + segment,
                **metadata,
            )
        row_offset += len(rows)


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


def _columns(file: AudioFile, schema: pa.Schema, choice: Mapping[str, str]) -> dict[str, str]:
    """Our name -> the column that has plain values; the audio is found by its type."""
    plain = [field.name for field in schema if not pa.types.is_nested(field.type)]
    column_of = chosen_columns(str(file.path), plain, choice)
    return {field: column for field, column in column_of.items() if field != "audio"}


def _class_names(schema: pa.Schema) -> dict[str, list[str]]:
    """Column -> names of its classes, from the features the `datasets` library wrote."""
    metadata = (schema.metadata or {}).get(b"huggingface")
    features = json.loads(metadata)["info"]["features"] if metadata else {}
    return {column: spec["names"] for column, spec in features.items() if _is_class_label(spec)}


def _is_class_label(spec: Any) -> bool:
    return isinstance(spec, dict) and spec.get("_type") == "ClassLabel" and isinstance(spec.get("names"), list)


def _named_class(value: Any, names: list[str] | None) -> Any:
    """A class's name for its number; -1 stands for no label."""
    if names is None or not isinstance(value, int):
        return value
    return names[value] if 0 <= value < len(names) else None


def _audio_bytes(parquet: pq.ParquetFile, group: int, audio: str) -> int:
    row_group = parquet.metadata.row_group(group)
    columns = (row_group.column(index) for index in range(row_group.num_columns))
    return sum(column.total_compressed_size for column in columns if column.path_in_schema == f"{audio}.bytes")


def _stem(path: str | None, default: str) -> str:
    return PurePosixPath(path).with_suffix("").as_posix() if path else default
