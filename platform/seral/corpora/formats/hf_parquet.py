"""Hugging Face datasets in Parquet: one column of audio (bytes and path), others with what is known of it.

The audio stays in the file. A split is told by the path (`data/train-00000-of-00002.parquet`). Convention: Hugging Face
datasets, `Dataset.to_parquet` and `push_to_hub`.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Unpack

import pyarrow as pa
import pyarrow.parquet as pq

from seral.audio.address import arrow_source
from seral.audio.containers import Cell
from seral.corpora.formats.hf_dataset import DatasetColumns, dataset_files, plain_columns
from seral.corpora.reading.choices import Choices, Reading
from seral.corpora.reading.tree import AudioFile
from seral.corpora.reading.utterance import Skipped, Utterance
from seral.errors import ReaderError
from seral.security.tables import BoundedParquet, open_parquet

EXAMPLE = "data/train-00000-of-00002.parquet"


def read_hf_parquet(root: Path, **choices: Unpack[Choices]) -> Iterator[Utterance | Skipped]:
    """Every row of a Parquet file, or of those below a folder, in the order of the rows."""
    reading: Reading | None = None
    files, folder = dataset_files(root, ".parquet", EXAMPLE, ".arrow: hf-arrow")
    for file in files:
        try:
            with open_parquet(arrow_source(file.path), file.path) as parquet:
                reading = reading or Reading(choices, folder or "parquet", plain_columns(parquet.schema_arrow))
                yield from _read_file(file, parquet, reading)
        except (pa.ArrowException, OSError, UnicodeDecodeError) as error:
            raise ReaderError(f"{file.path} is not a Parquet file: {error}") from None
    if reading is not None:
        yield from reading.remainder()


def _read_file(file: AudioFile, parquet: BoundedParquet, reading: Reading) -> Iterator[Utterance | Skipped]:
    table = DatasetColumns(file, parquet.schema_arrow, reading)
    row_offset = 0
    for group in range(parquet.num_row_groups):
        rows = parquet.rows(parquet.read_row_group(group, columns=table.names))
        size = _audio_bytes(parquet, group, table.audio) // max(1, len(rows))
        for row, values in enumerate(rows):
            cell = Cell(row_group=group, row=row, column=table.audio, size=size)
            yield table.utterance(row_offset + row, values, inside=cell)
        row_offset += len(rows)


def _audio_bytes(parquet: pq.ParquetFile, group: int, audio: str) -> int:
    row_group = parquet.metadata.row_group(group)
    columns = (row_group.column(index) for index in range(row_group.num_columns))
    return sum(column.total_compressed_size for column in columns if column.path_in_schema == f"{audio}.bytes")
