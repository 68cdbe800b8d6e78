"""The rows of a table file (JSONL, JSON, CSV, TSV, Parquet; text may be packed), each with its location for errors."""

from __future__ import annotations

import csv
import gzip
import io
import zlib
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TextIO

import pyarrow as pa

from seral.audio.address import arrow_source
from seral.errors import ReaderError
from seral.security.tables import open_parquet
from seral.security.text import lines_of, parse_json

LISTED = ("id", "speaker", "gender", "path", "label")
"""Fields of an entry that is a list, in their order."""


@dataclass(frozen=True, kw_only=True)
class Row:
    """One row and where it stands."""

    location: str
    """Line or entry for errors, after the file's name, such as `line 12`."""
    values: dict[str, Any]


BATCH_ROWS = 1024
"""Rows of Parquet that are Python's objects at a time."""
PACKED = ".gz"
"""Suffix behind that of a table of text that is packed."""
UNPACKED_CHARACTERS = 1 << 28
"""A packed JSON document is no longer: it is in memory as a whole."""


def read_rows(file: Path) -> Iterator[Row]:
    """The rows of a table file, by its suffix. Raises ReaderError naming the file and the line that is wrong."""
    read = TABLE_FORMATS.get(table_suffix(file))
    if read is None:
        raise ReaderError(f"{file}: expected one of {', '.join(TABLE_FORMATS)}, got {file.suffix or 'no suffix'!r}")
    if not file.is_file():
        raise ReaderError(f"no file at {file}")
    try:
        yield from read(file)
    except UnicodeDecodeError as error:
        raise ReaderError(f"{file} is not UTF-8 text ({error.reason}); save it as UTF-8") from None
    except (gzip.BadGzipFile, EOFError, zlib.error) as error:
        raise ReaderError(f"{file} cannot be unpacked ({error}): pack it again with gzip") from None


def table_suffix(file: Path) -> str:
    """The key of TABLE_FORMATS that a file's name ends in, packed or not, else its last suffix."""
    unpacked = Path(file.name.lower().removesuffix(PACKED)).suffix
    return unpacked if unpacked in TABLE_FORMATS and unpacked != ".parquet" else file.suffix.lower()


@contextmanager
def open_text(file: Path) -> Iterator[TextIO]:
    """A file of UTF-8 text, unpacked where its name ends in PACKED; ends of lines are left as they are."""
    with file.open("rb") as raw:
        data = gzip.GzipFile(fileobj=raw) if file.suffix.lower() == PACKED else raw
        with io.TextIOWrapper(data, encoding="utf-8-sig", newline="") as text:
            yield text


def columns_present(file: Path) -> set[str]:
    """The columns that rows of a table have. Raises ReaderError for a table without rows."""
    present, empty = set[str](), True
    for row in read_rows(file):
        present.update(row.values)
        empty = False
    if empty:
        raise ReaderError(f"{file} has no rows")
    return present


def _read_jsonl(file: Path) -> Iterator[Row]:
    number = 0
    with open_text(file) as lines:
        for number, line in enumerate(_lines(file, lines), start=1):
            if not line.strip():
                continue
            try:
                values = parse_json(line)
            except ValueError as error:
                raise ReaderError(f"{file}, line {number}: not valid JSON: {error}") from None
            if not isinstance(values, dict):
                raise ReaderError(f"{file}, line {number}: expected an object {{...}}, got {type(values).__name__}")
            yield Row(location=f"line {number}", values=values)


def _lines(file: Path, lines: TextIO) -> Iterator[str]:
    number = 0
    try:
        for line in lines_of(lines):
            yield line
            number += 1
    except UnicodeDecodeError:
        raise
    except ValueError as error:
        raise ReaderError(f"{file}, line {number + 1}: {error}") from None


def read_document(file: Path) -> str:
    """The text of a whole file. Raises ValueError for a packed one that is too long."""
    with open_text(file) as text:
        content = text.read(UNPACKED_CHARACTERS + 1 if file.suffix.lower() == PACKED else -1)
    if file.suffix.lower() == PACKED and len(content) > UNPACKED_CHARACTERS:
        raise ValueError(f"more than {UNPACKED_CHARACTERS:,} characters: write JSONL instead, a row a line")
    return content


def _read_json(file: Path) -> Iterator[Row]:
    try:
        content = parse_json(read_document(file))
    except UnicodeDecodeError:
        raise
    except ValueError as error:
        raise ReaderError(f"{file}: not valid JSON: {error}") from None
    for key, values in _json_entries(content):
        if not isinstance(values, dict):
            raise ReaderError(f"{file}, entry {key}: expected an object {{...}}, got {type(values).__name__}")
        yield Row(location=f"entry {key}", values=values)


def _json_entries(content: Any) -> Iterator[tuple[str, Any]]:
    """(what to call it, object) of the shapes in use.

    A list of objects, alone or under `meta_data` (s3prl); objects by their id, which each then holds as `id`
    (SpeechBrain); lists of values by split, in the order of LISTED (peft-ser).
    """
    if isinstance(content, dict) and isinstance(content.get("meta_data"), list):
        content = content["meta_data"]
    if isinstance(content, list):
        yield from ((str(number), values) for number, values in enumerate(content, start=1))
        return
    for key, value in content.items() if isinstance(content, dict) else [("1", content)]:
        if isinstance(value, list) and all(isinstance(item, list) and len(item) == len(LISTED) for item in value):
            for number, item in enumerate(value, start=1):
                yield f"{number} of {key}", dict(zip(LISTED, item, strict=True)) | {"split": key}
        else:
            yield key, {"id": key} | value if isinstance(value, dict) else value


def parse_csv(file: Path, text: str | Iterable[str], delimiter: str = ",", needs: Sequence[str] = ()) -> Iterator[Row]:
    """The rows of a table's text, or of its lines with their ends; `file` is what errors name.

    Raises ReaderError for a column of `needs` that it lacks.
    """
    table = csv.DictReader(io.StringIO(text, newline="") if isinstance(text, str) else text, delimiter=delimiter)
    try:
        present = list(table.fieldnames or [])
        if absent := [name for name in needs if name not in present]:
            raise ReaderError(f"{file} has no column {', '.join(absent)}; it has: {', '.join(present)}")
        for values in table:
            if None in values:
                fields = f"the {len(present)} fields of the header"
                raise ReaderError(f"{file}, line {table.line_num}: more than {fields}")
            yield Row(location=f"line {table.line_num}", values=values)
    except csv.Error as error:  # a field of more than 131,072 characters, or no CSV at all
        raise ReaderError(f"{file}, line {table.line_num}: {error}") from None


def _read_csv(file: Path, delimiter: str = ",") -> Iterator[Row]:
    with open_text(file) as lines:
        yield from parse_csv(file, _lines(file, lines), delimiter)


def _read_tsv(file: Path) -> Iterator[Row]:
    return _read_csv(file, delimiter="\t")


def _read_parquet(file: Path) -> Iterator[Row]:
    number = 0
    try:
        parquet = open_parquet(arrow_source(file), file)
        for batch in parquet.iter_batches(BATCH_ROWS):
            for values in parquet.rows(batch):
                yield Row(location=f"row {number}", values=values)
                number += 1
    except (pa.ArrowException, OSError) as error:
        raise ReaderError(f"{file} is not a Parquet file: {error}") from None


TABLE_FORMATS: dict[str, Callable[[Path], Iterator[Row]]] = {
    ".jsonl": _read_jsonl,
    ".json": _read_json,
    ".csv": _read_csv,
    ".tsv": _read_tsv,
    ".parquet": _read_parquet,
}
