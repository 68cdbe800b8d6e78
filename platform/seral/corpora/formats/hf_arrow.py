"""Hugging Face datasets as `save_to_disk` writes them: Arrow streams with `state.json` and `dataset_info.json` beside.

A `DatasetDict` has a folder for every split. A stream holds the bytes of a clip as they are, so that a clip is a span
of its file. Streams without anything beside, as in the cache of `datasets`, are read too; there the audio may be named
by its path only. Convention: Hugging Face datasets, `Dataset.save_to_disk`.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any, Unpack

import numpy as np
import pyarrow as pa

from seral.audio.address import arrow_source
from seral.audio.containers import Span
from seral.corpora.formats.hf_dataset import DatasetColumns, dataset_files, plain_columns
from seral.corpora.reading.choices import Choices, Reading
from seral.corpora.reading.fields import SPLITS
from seral.corpora.reading.tree import AudioFile
from seral.corpora.reading.utterance import Skipped, Utterance
from seral.errors import ReaderError
from seral.security.tables import bounded, read_schema
from seral.security.text import parse_json

EXAMPLE = "train/data-00000-of-00002.arrow"
STATE, INFO = "state.json", "dataset_info.json"


def read_hf_arrow(root: Path, **choices: Unpack[Choices]) -> Iterator[Utterance | Skipped]:
    """Every row of an Arrow stream, or of those below a folder, in the order of the rows.

    A file in a store is read once as a whole.
    """
    reading: Reading | None = None
    files, folder = dataset_files(root, ".arrow", EXAMPLE, ".parquet: hf-parquet")
    for file in files:
        state = _json(file.path.parent / STATE)
        if state and file.path.name not in {entry["filename"] for entry in state["_data_files"]}:
            continue  # what `datasets` keeps of computations
        if state.get("_indices_data_files") or state.get("_indices_files"):
            raise ReaderError(f"{file.path.parent} has an order of its own; save it after flatten_indices()")
        try:
            with _opened(file) as stream:
                with bounded(file.path, stream.size()):
                    messages = pa.ipc.MessageReader.open_stream(stream)
                    schema = read_schema(_first(messages), file.path)
                reading = reading or Reading(choices, folder or "arrow", plain_columns(schema))
                table = DatasetColumns(file, schema, reading, _json(file.path.parent / INFO).get("features"))
                split = SPLITS.get(str(state.get("_split")))
                yield from _records(table, stream, messages, schema, split, reading.corpus)
        except (pa.ArrowException, OSError, UnicodeDecodeError) as error:
            raise ReaderError(f"{file.path} is no Arrow stream: {error}") from None
    if reading is not None:
        yield from reading.remainder()


def _opened(file: AudioFile) -> pa.NativeFile:
    source = arrow_source(file.path)
    return source if isinstance(source, pa.NativeFile) else pa.memory_map(str(source))


def _records(
    table: DatasetColumns,
    stream: pa.NativeFile,
    messages: pa.ipc.MessageReader,
    schema: pa.Schema,
    split: str | None,
    corpus: str,
) -> Iterator[Utterance | Skipped]:
    names = [name.removesuffix(".path") for name in table.names]
    number = 0
    path, size = table.file.path, stream.size()
    while True:
        with bounded(path, size):
            message = next(messages, None)
            if message is None:
                return
            batch = pa.ipc.read_record_batch(message, schema)
            rows = _rows(batch, names, table.audio)
        spans = _spans(table.file, batch.column(table.audio), message.body, stream.tell())
        for row, span in zip(rows, spans, strict=True):
            yield _record(table, number, row, span, split, corpus)
            number += 1


def _first(messages: pa.ipc.MessageReader) -> pa.ipc.Message:
    try:
        return messages.read_next_message()
    except StopIteration:
        raise pa.ArrowInvalid("it ends at once") from None


def _record(
    table: DatasetColumns,
    number: int,
    row: dict[str, Any],
    span: Span | None,
    split: str | None,
    corpus: str,
) -> Utterance | Skipped:
    path = (row[table.audio] or {}).get("path")
    named = Path(path) if span is None and path and Path(path).is_file() else None
    if span is not None or named is not None:
        return table.utterance(number, row, audio=named, inside=span, split=split)
    detail = f"the row holds no audio, and names {path}"
    return Skipped(source=table.source(number), corpus=corpus, reason="missing", detail=detail, size=-1)


def _rows(batch: pa.RecordBatch, names: list[str], audio: str) -> list[dict[str, Any]]:
    """The rows without the bytes of the audio."""
    column = batch.column(audio)
    paths = [{"path": path} for path in column.flatten()[column.type.get_field_index("path")].to_pylist()]
    columns = [paths if name == audio else batch.column(name).to_pylist() for name in names]
    return [dict(zip(names, values, strict=True)) for values in zip(*columns, strict=True)]


def _spans(file: AudioFile, column: pa.StructArray, body: pa.Buffer, end: int) -> list[Span | None]:
    """Spans of the file that hold the bytes of each row, None where there are none; `body` ends at `end`."""
    cells = column.flatten()[column.type.get_field_index("bytes")]
    _, offsets, data = cells.buffers()
    if data is None or not data.size:
        return [None] * len(cells)
    if not body.address <= data.address <= body.address + body.size:
        raise ReaderError(f"{file.path} is compressed; save it again with save_to_disk, which does not compress")
    start = end - body.size + data.address - body.address
    width = np.int64 if pa.types.is_large_binary(cells.type) else np.int32
    bounds = start + np.frombuffer(offsets, width)[cells.offset :][: len(cells) + 1].astype(np.int64)
    sizes = np.diff(bounds)
    return [
        Span(offset=offset, size=size) if valid else None
        for offset, size, valid in zip(bounds.tolist(), sizes.tolist(), cells.is_valid().to_pylist(), strict=False)
    ]


def _json(file: Path) -> dict[str, Any]:
    """The object in a file beside the data; empty where there is none."""
    if not file.is_file():
        return {}
    try:
        content = parse_json(file.read_text(encoding="utf-8"))
    except ValueError as error:
        raise ReaderError(f"{file}: not valid JSON: {error}") from None
    return content if isinstance(content, dict) else {}
