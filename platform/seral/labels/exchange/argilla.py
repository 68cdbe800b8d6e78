"""Argilla: records with `fields`, `responses`, `suggestions` and `metadata`. Convention: docs.argilla.io, "Records".

Responses are written one a person, `{"user_id", "status", "values": {question: {"value": ...}}}`, as Argilla's server
has them; those that Argilla 2 groups by question, `{question: [{"user_id", "value"}]}`, are read too. What Argilla has
no place for stands under `seral` in responses that we write.
"""

from __future__ import annotations

import json
from collections import defaultdict
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Literal

from pydantic import BaseModel, Field

from seral import storage
from seral.labels.exchange.controls import controls_of, row_of
from seral.labels.exchange.entries import Entry, Export, Question, in_order, read_json
from seral.labels.records import Project

OWN_FIELDS = ("id", "key", "round", "tool", "answered_at", "seconds", "final")
"""Fields that stand under `seral`."""
ABOUT = ("utterance_id", "batch", "purpose", "round")
"""Fields that stand under `metadata`, beside rank and score."""


class _Value(BaseModel):
    value: Any


class _Response(BaseModel):
    user_id: str
    status: Literal["submitted", "discarded", "draft"] = "submitted"
    values: dict[str, _Value] = Field(default_factory=dict)
    seral: dict[str, Any] = Field(default_factory=dict)


class _QuestionResponse(BaseModel):
    user_id: str
    value: Any


class _Record(BaseModel):
    metadata: dict[str, Any]
    responses: list[_Response] | dict[str, list[_QuestionResponse]] = Field(default_factory=list)


def write_argilla(out: Path, export: Export) -> None:
    """Write records in the order of their rank, as a JSON list."""
    responses = defaultdict(list)
    for row in export.answers.to_pylist():
        responses[row["batch"], row["utterance_id"]].append(_response(row))
    records = [
        _record(question, export, responses[question.batch, question.utterance_id]) for question in export.questions
    ]
    storage.write_bytes(out, json.dumps(records, ensure_ascii=False, indent=1).encode())


def read_argilla(path: Path, project: Project) -> list[Entry]:
    """Read the responses of records; drafts do not count."""
    return in_order(_rows(path, read_json(path, list[_Record])), "argilla")


def _record(question: Question, export: Export, responses: list[dict[str, Any]]) -> dict[str, Any]:
    first = export.first_class(question.utterance_id)
    metadata = {name: getattr(question, name) for name in (*ABOUT, "rank")} | ({"score": first[1]} if first else {})
    suggested = {"emotion": {"value": [first[0]], "score": first[1], "agent": "seral"}} if first else {}
    return {
        "id": "/".join(filter(None, (question.batch, question.utterance_id))),
        "fields": {"audio": export.audio_of(question.utterance_id)},
        "metadata": metadata,
        "suggestions": suggested if export.suggest else {},
        "responses": responses,
    }


def _response(row: dict[str, Any]) -> dict[str, Any]:
    return {
        "user_id": row["person"],
        "status": "discarded" if row["kind"] == "skipped" else "submitted",
        "values": {name: {"value": value} for name, value in controls_of(row).items()},
        "seral": {name: row[name] for name in OWN_FIELDS},
    }


def _rows(path: Path, records: list[_Record]) -> Iterator[tuple[str, dict[str, Any]]]:
    for number, record in enumerate(records):
        about = {name: record.metadata.get(name) for name in ABOUT}
        for index, response in enumerate(_by_person(record.responses)):
            if response.status != "draft":
                position = f"{path}, [{number}].responses[{index}]"
                controls = {name: value.value for name, value in response.values.items()}
                row = row_of(controls, skipped=response.status == "discarded", position=position)
                own = {name: response.seral[name] for name in OWN_FIELDS if name in response.seral}
                yield position, about | {"person": response.user_id} | row | own


def _by_person(responses: list[_Response] | dict[str, list[_QuestionResponse]]) -> list[_Response]:
    if isinstance(responses, list):
        return responses
    values: dict[str, dict[str, _Value]] = defaultdict(dict)
    for question, answers in responses.items():
        for answer in answers:
            values[answer.user_id][question] = _Value(value=answer.value)
    return [_Response(user_id=person, values=answered) for person, answered in values.items()]
