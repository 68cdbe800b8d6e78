"""Label Studio: tasks with their labelling config out, completed JSON back. Convention: labelstud.io, "Task format".

`data` of a task has `audio`, `utterance_id`, `batch`, `purpose`, `round`, and `rank`, the place in the order in which
the clips are to be labelled; with probabilities of a model also `score`, that of its first class. One annotation is
one answer: who (`completed_by`), how long (`lead_time`), a skip (`was_cancelled`), an adjudication (`ground_truth`).
What Label Studio has no place for stands under `seral` in annotations that we write.
"""

from __future__ import annotations

import json
from collections import defaultdict
from collections.abc import Iterator
from datetime import datetime
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

from pydantic import BaseModel, Field

from seral import storage
from seral.labels.exchange.controls import CHOICES, PROBLEMS, controls_of, row_of
from seral.labels.exchange.entries import Entry, Export, Question, in_order, read_json
from seral.labels.records import Project

OWN_FIELDS = ("id", "key", "round", "tool", "answered_at")
"""Fields that stand under `seral`."""
VALUES = ("choices", "rating", "number", "text")
"""Under which the value of a control stands, by its type."""


class _Result(BaseModel):
    from_name: str
    value: dict[str, Any]


class _Annotation(BaseModel):
    completed_by: int | str | dict[str, Any]
    lead_time: float | None = None
    was_cancelled: bool = False
    ground_truth: bool = False
    created_at: datetime | None = None
    updated_at: datetime | None = None
    result: list[_Result] = Field(default_factory=list)
    seral: dict[str, Any] = Field(default_factory=dict)

    @property
    def person(self) -> str:
        """An email or a name where the file tells one, else the number of the user."""
        user = self.completed_by
        return str(user.get("email") or user.get("username") or user.get("id")) if isinstance(user, dict) else str(user)


class _Task(BaseModel):
    data: dict[str, Any]
    annotations: list[_Annotation] = Field(default_factory=list)


def write_label_studio(out: Path, export: Export) -> None:
    """Write tasks in the order of their rank, and the labelling config beside them as `.xml`."""
    annotations = defaultdict(list)
    for row in export.answers.to_pylist():
        annotations[row["batch"], row["utterance_id"]].append(_annotation(row, export.project))
    tasks = []
    for question in export.questions:
        task = {"data": _data(question, export), "annotations": annotations[question.batch, question.utterance_id]}
        tasks.append(task | {"predictions": list(_predictions(question, export))})
    storage.write_bytes(out, json.dumps(tasks, ensure_ascii=False, indent=1).encode())
    storage.write_bytes(out.with_suffix(".xml"), labelling_config(export.project).encode())


def read_label_studio(path: Path, project: Project) -> list[Entry]:
    """Read the annotations of completed tasks, as Label Studio exports them (JSON, not JSON-MIN)."""
    return in_order(_rows(path, read_json(path, list[_Task])), "label-studio")


def labelling_config(project: Project) -> str:
    """The labelling config of a Label Studio project that asks for the same, XML."""
    view = ElementTree.Element("View")
    ElementTree.SubElement(view, "Audio", name="audio", value="$audio")
    choices = {"emotion": project.classes, "secondary": project.classes, "problem": PROBLEMS}
    for name, words in choices.items():
        if words:
            ElementTree.SubElement(view, "Header", value=name)
            kind = "multiple" if name == "secondary" else "single-radio"
            control = ElementTree.SubElement(view, "Choices", name=name, toName="audio", choice=kind, showInline="true")
            for word in words:
                ElementTree.SubElement(control, "Choice", value=word)
    for name in (*project.dimensions, "confidence"):
        ElementTree.SubElement(view, "Header", value=name)
        low, high = project.scale if name in project.dimensions else (0.0, 1.0)
        if _is_rating(name, project):
            ElementTree.SubElement(view, "Rating", name=name, toName="audio", maxRating=f"{high:g}")
        else:
            limits = {"min": f"{low:g}", "max": f"{high:g}", "step": "0.1"}
            ElementTree.SubElement(view, "Number", name=name, toName="audio", attrib=limits)
    ElementTree.SubElement(view, "Header", value="comment")
    ElementTree.SubElement(view, "TextArea", name="comment", toName="audio", rows="2", editable="true")
    ElementTree.indent(view)
    return ElementTree.tostring(view, encoding="unicode") + "\n"


def _is_rating(name: str, project: Project) -> bool:
    """True for a control that shows stars: whole numbers from 1 on, ten at most. Others are typed."""
    low, high = project.scale
    return name in project.dimensions and low == 1 and high in range(2, 11)


def _data(question: Question, export: Export) -> dict[str, Any]:
    data: dict[str, Any] = {"audio": export.audio_of(question.utterance_id), "utterance_id": question.utterance_id}
    data |= {"rank": question.rank, "round": question.round, "batch": question.batch, "purpose": question.purpose}
    if first := export.first_class(question.utterance_id):
        data["score"] = first[1]
    return data


def _predictions(question: Question, export: Export) -> Iterator[dict[str, Any]]:
    first = export.first_class(question.utterance_id)
    if export.suggest and first is not None:
        yield {"model_version": "seral", "score": first[1], "result": [_result("emotion", [first[0]], export.project)]}


def _annotation(row: dict[str, Any], project: Project) -> dict[str, Any]:
    return {
        "completed_by": _user(row["person"]),
        "lead_time": row["seconds"],
        "was_cancelled": row["kind"] == "skipped",
        "ground_truth": row["final"],
        "result": [_result(name, value, project) for name, value in controls_of(row).items()],
        "seral": {name: row[name] for name in OWN_FIELDS},
    }


def _user(person: str) -> int | str:
    """Label Studio takes the number of a user, or an email."""
    return int(person) if person.isdecimal() and str(int(person)) == person else person


def _result(name: str, value: Any, project: Project) -> dict[str, Any]:
    kind = "choices" if name in CHOICES else "rating" if _is_rating(name, project) else "number"
    content = {kind: value}
    if name == "comment":
        kind, content = "textarea", {"text": [value]}
    return {"id": name, "from_name": name, "to_name": "audio", "type": kind, "value": content}


def _rows(path: Path, tasks: list[_Task]) -> Iterator[tuple[str, dict[str, Any]]]:
    for number, task in enumerate(tasks):
        asked = {name: task.data.get(name) for name in ("batch", "purpose", "round")}
        about = task.data.get("utterance_id", task.data.get("utt_id"))
        for index, annotation in enumerate(task.annotations):
            position = f"{path}, [{number}].annotations[{index}]"
            yield position, {"utterance_id": about} | asked | _fields_of(annotation, position)


def _fields_of(annotation: _Annotation, position: str) -> dict[str, Any]:
    values = {result.from_name: result.value for result in annotation.result}
    controls = {name: next((value[key] for key in VALUES if key in value), None) for name, value in values.items()}
    when = annotation.updated_at or annotation.created_at
    row = {
        "person": annotation.person,
        "seconds": annotation.lead_time,
        "final": annotation.ground_truth,
        "answered_at": when.timestamp() if when else None,
    }
    own = {name: annotation.seral[name] for name in OWN_FIELDS if name in annotation.seral}
    return row | row_of(controls, skipped=annotation.was_cancelled, position=position) | own
