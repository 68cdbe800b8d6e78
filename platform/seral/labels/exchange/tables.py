"""Answers as plain tables: CSV, JSON lines, Parquet. Every field of schema.ANSWERS, one answer a row.

A spreadsheet runs a cell that begins with = + - @ as a formula. In CSV such text gets an apostrophe in front, which
reading takes away again (OWASP, CSV injection); numbers are left alone.
"""

from __future__ import annotations

import csv
import io
import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pyarrow as pa

from seral import storage
from seral.errors import LabelError
from seral.labels.exchange.entries import Entry, Export, in_order, readable
from seral.labels.records import Project
from seral.schema import ANSWERS
from seral.security.tables import open_parquet
from seral.security.text import parse_json

RISKY = re.compile(r"'*([=+\-@\t\r\n＝＋－＠]|$)")
"""Text that a spreadsheet may run, or that would not come back: behind apostrophes, and the empty text."""
LISTS = ("emotions", "secondary")
TEXTS = tuple(field.name for field in ANSWERS if field.type == pa.string()) + LISTS
JOINED = ";"
"""Between several emotions in one cell."""
ALIASES = {
    "utt_id": "utterance_id",
    "rater": "person",
    "annotator": "person",
    "label": "emotions",
    "emotion": "emotions",
    "act": "arousal",
    "val": "valence",
    "dom": "dominance",
}
"""Other names of columns in CSV."""


def write_csv(out: Path, export: Export) -> None:
    """Write answers as CSV. Raises LabelError for a class whose name has a semicolon in it."""
    if names := [name for name in export.project.classes if JOINED in name]:
        raise LabelError(f"the class {names[0]!r} has {JOINED!r} in it, which CSV takes apart; write jsonl or parquet")
    text = io.StringIO(newline="")
    writer = csv.writer(text)
    writer.writerow(ANSWERS.names)
    for row in export.answers.to_pylist():
        writer.writerow([_cell(name, row[name]) for name in ANSWERS.names])
    storage.write_bytes(out, text.getvalue().encode())


def read_csv(path: Path, project: Project) -> list[Entry]:
    """Read answers from CSV; with `utt_id,rater,label,...`, the field's usual short form, too."""
    with readable(path), path.open(encoding="utf-8-sig", newline="") as file:
        return in_order(_csv_rows(path, file), "csv")


def write_jsonl(out: Path, export: Export) -> None:
    """Write answers as one JSON object a line."""
    lines = [json.dumps(row, ensure_ascii=False) + "\n" for row in export.answers.to_pylist()]
    storage.write_bytes(out, "".join(lines).encode())


def read_jsonl(path: Path, project: Project) -> list[Entry]:
    """Read answers from JSON lines."""
    with readable(path), path.open(encoding="utf-8", newline="\n") as file:
        return in_order(_json_rows(path, file), "jsonl")


def write_parquet(out: Path, export: Export) -> None:
    """Write answers as Parquet."""
    storage.write_table(out, export.answers)


def read_parquet(path: Path, project: Project) -> list[Entry]:
    """Read answers from Parquet."""
    with readable(path):
        try:
            parquet = open_parquet(path, path)
            rows = parquet.rows(parquet.read())
        except pa.ArrowException as error:
            raise LabelError(f"{path} is not Parquet: {error}") from None
    return in_order(((f"{path}, row {number}", row) for number, row in enumerate(rows, start=1)), "parquet")


def _cell(name: str, value: Any) -> str:
    if value is None:
        return ""
    if name in LISTS:
        return _cell("", JOINED.join(value)) if value else ""
    if isinstance(value, str):
        return f"'{value}" if RISKY.match(value) else value
    return str(value).lower() if isinstance(value, bool) else repr(value)


def _text(cell: str) -> str:
    """The content of a cell before it was made harmless."""
    return cell[1:] if cell.startswith("'") and RISKY.match(cell[1:]) else cell


def _csv_rows(path: Path, file: io.TextIOBase) -> Iterator[tuple[str, dict[str, Any]]]:
    reader = csv.reader(file, strict=True)
    line = 1
    try:
        names = [ALIASES.get(name.strip(), name.strip()) for name in next(reader, [])]
        if len(set(names)) < len(names):
            raise LabelError(f"{path}, line 1: a column stands twice in {', '.join(names)}")
        line = reader.line_num + 1
        for cells in reader:
            if cells:
                if len(cells) != len(names):
                    raise LabelError(f"{path}, line {line}: {len(cells)} cells under {len(names)} columns")
                yield f"{path}, line {line}", dict(zip(names, map(_value, names, cells), strict=True))
            line = reader.line_num + 1
    except csv.Error as error:
        raise LabelError(f"{path}, line {line}: {error}") from None


def _value(name: str, cell: str) -> Any:
    if cell == "":
        return None
    if name in LISTS:
        return _text(cell).split(JOINED)
    return _text(cell) if name in TEXTS else cell


def _json_rows(path: Path, file: io.TextIOBase) -> Iterator[tuple[str, dict[str, Any]]]:
    for number, line in enumerate(file, start=1):
        position = f"{path}, line {number}"
        if not line.strip():
            continue
        try:
            row = parse_json(line)
        except ValueError as error:
            raise LabelError(f"{position}: not JSON: {error}") from None
        if not isinstance(row, dict):
            raise LabelError(f"{position}: expected an object, got {type(row).__name__}")
        yield position, row
