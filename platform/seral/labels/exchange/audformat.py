"""audformat databases: a header and a Parquet table a batch, with columns for each rater. The package is not needed.

`emotion.NAME`, `valence.NAME`, ... are what a person said, under the schemes of those names; adjudications stand in
tables called gold_standard. An emotion is told where the answer has one primary emotion. `answer.NAME` holds the whole
answer as JSON and is what we read where it is there. Convention: audeering.github.io/audformat.
"""

from __future__ import annotations

import json
import re
from collections import defaultdict
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import pyarrow as pa
import yaml

from seral import storage
from seral.corpora.formats.audformat import FORMATS, HEADER, MEANING, RATED
from seral.corpora.reading.rows import read_rows
from seral.errors import LabelError
from seral.labels.exchange.entries import Entry, Export, in_order, readable
from seral.labels.records import RATINGS, Project
from seral.schema import ANSWERS
from seral.security.text import parse_json

Group = tuple[str | None, bool]
"""The batch, and whether adjudicated."""
ByPerson = dict[str, dict[str, Any]]
"""Person -> row of schema.ANSWERS."""
UTTERANCE, WHOLE = "utterance_id", "answer"
IN_ANSWER = tuple(name for name in ANSWERS.names if name not in {UTTERANCE, "person", "batch", "purpose", "supersedes"})


def write_audformat(out: Path, export: Export) -> None:
    """Write a database folder. Raises LabelError for superseded answers, which a column a rater cannot hold."""
    answers = export.answers.to_pylist()
    if {row["supersedes"] for row in answers} & {row["id"] for row in answers}:
        raise LabelError("audformat has no place for superseded answers; leave the history out, or write jsonl")
    groups: dict[Group, dict[str, ByPerson]] = defaultdict(lambda: defaultdict(dict))
    for question in export.questions:
        groups[question.batch, False][question.utterance_id] = {}
    for row in answers:
        groups[row["batch"], row["final"]][row["utterance_id"]][row["person"]] = row
    purposes = {question.batch: question.purpose for question in export.questions}
    header = _header(out.name, export.project, sorted({row["person"] for row in answers}))
    for number, ((batch, final), by_utterance) in enumerate(groups.items()):
        kind, words = "gold_standard" if final else "votes", re.sub(r"[^A-Za-z0-9]+", "-", batch or "unasked")
        name, columns = f"{kind}.{number}.{words}", _columns(by_utterance, export.project)
        table = {"type": "filewise", "columns": {UTTERANCE: {"scheme_id": UTTERANCE}} | columns}
        header["tables"][name] = table | ({"seral": {"batch": batch, "purpose": purposes[batch]}} if batch else {})
        storage.write_table(out / f"db.{name}.parquet", _table(by_utterance, columns, export))
    # Last: a folder without a header is no database.
    storage.write_bytes(out / HEADER, yaml.safe_dump(header, sort_keys=False, allow_unicode=True).encode())


def read_audformat(path: Path, project: Project) -> list[Entry]:
    """Read what the human raters of a database said. An utterance without an id is its file's name without suffix."""
    return in_order(_rows(path, _read_header(path)), "audformat")


def _header(name: str, project: Project, people: list[str]) -> dict[str, Any]:
    low, high = project.scale
    schemes: dict[str, dict[str, Any]] = {UTTERANCE: {"dtype": "str"}, WHOLE: {"dtype": "str"}}
    if project.classes:
        schemes["emotion"] = {"dtype": "str", "labels": list(project.classes)}
    schemes |= {key: {"dtype": "float", "minimum": low, "maximum": high} for key in project.dimensions}
    raters = {person: {"type": "human"} for person in people}
    return {"name": name, "source": "", "usage": "unrestricted", "raters": raters, "schemes": schemes, "tables": {}}


def _columns(by_utterance: Mapping[str, ByPerson], project: Project) -> dict[str, dict[str, str]]:
    people = sorted({person for rows in by_utterance.values() for person in rows})
    schemes = [*(["emotion"] if project.classes else []), *project.dimensions, WHOLE]
    return {f"{scheme}.{who}": {"scheme_id": scheme, "rater_id": who} for who in people for scheme in schemes}


def _table(by_utterance: Mapping[str, ByPerson], columns: Mapping[str, Mapping[str, str]], export: Export) -> pa.Table:
    content = {"file": [export.audio_of(name) for name in by_utterance], UTTERANCE: list(by_utterance)}
    fields = [(name, pa.string()) for name in content]
    for column, about in columns.items():
        scheme, rater = about["scheme_id"], about["rater_id"]
        content[column] = [_value(rows.get(rater), scheme) for rows in by_utterance.values()]
        fields.append((column, pa.float64() if scheme in RATINGS else pa.string()))
    return pa.table(content, pa.schema(fields))


def _value(row: Mapping[str, Any] | None, scheme: str) -> Any:
    if row is None:
        return None
    if scheme == WHOLE:
        return json.dumps({name: row[name] for name in IN_ANSWER}, ensure_ascii=False)
    if scheme == "emotion":
        return row["emotions"][0] if len(row["emotions"]) == 1 else None
    return row[scheme]


def _read_header(path: Path) -> dict[str, Any]:
    try:
        with readable(path):
            header = yaml.safe_load((path / HEADER).read_text(encoding="utf-8"))
    except yaml.YAMLError as error:
        raise LabelError(f"{path / HEADER} is not valid YAML: {error}") from None
    if not isinstance(header, dict) or not all(isinstance(header.get(part), dict) for part in ("raters", "tables")):
        raise LabelError(f"{path / HEADER}: expected a header with raters and tables")
    return header


def _rows(path: Path, header: dict[str, Any]) -> Iterator[tuple[str, dict[str, Any]]]:
    people = {rater for rater, about in header["raters"].items() if (about or {}).get("type", "human") == "human"}
    for table, about in header["tables"].items():
        by_rater: dict[str, dict[str, str]] = defaultdict(dict)
        for column, content in (about.get("columns") or {}).items():
            if content.get("rater_id") in people:
                by_rater[content["rater_id"]][column] = content.get("scheme_id") or column
        asked = about.get("seral") or {}
        files = [path / f"db.{table}{suffix}" for suffix in FORMATS]
        file = next((file for file in files if file.is_file()), files[0])
        for row in read_rows(file):
            name = row.values.get(UTTERANCE) or Path(str(row.values.get("file"))).stem
            for rater, columns in by_rater.items():
                position = f"{file}, {row.location}, rater {rater}"
                fields = _fields_of({scheme: row.values.get(column) for column, scheme in columns.items()}, position)
                if fields:
                    final = {"final": True} if table.startswith("gold_standard") else {}
                    yield position, {UTTERANCE: name, "person": rater} | final | fields | asked


def _fields_of(values: Mapping[str, Any], position: str) -> dict[str, Any]:
    """The fields of one rater in one row; none where all cells are empty."""
    if values.get(WHOLE):
        try:
            answer = parse_json(values[WHOLE])
        except ValueError as error:
            raise LabelError(f"{position}: the answer is not JSON: {error}") from None
        if not isinstance(answer, dict):
            raise LabelError(f"{position}: the answer is {answer!r}, not an object")
        return answer
    meant = {MEANING.get(scheme.lower()): value for scheme, value in values.items() if value not in {None, ""}}
    fields = {name: meant[name] for name in RATED if name in meant}
    return fields | {"emotions": [fields.pop("emotion")]} if "emotion" in fields else fields
