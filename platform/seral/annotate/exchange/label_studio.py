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

from pydantic import BaseModel, Field, TypeAdapter, ValidationError

from seral import storage
from seral.annotate.exchange.entries import Entry, Export, Question, in_order, readable
from seral.annotate.ledger import RATINGS, Project
from seral.errors import LabelError, unknown_name

PROBLEMS = ("unusable", "other-language")
"""Choices of the control `problem`; to skip is Label Studio's own button."""
CHOICES = ("emotion", "secondary", "problem")
NUMBERS = (*RATINGS, "confidence")
KEPT = ("id", "key", "round", "tool", "answered_at")
"""What stands under `seral`."""


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
    given = defaultdict(list)
    for row in export.answers.to_pylist():
        given[row["batch"], row["utterance_id"]].append(_annotation(row, export.project))
    tasks = []
    for question in export.questions:
        task = {"data": _data(question, export), "annotations": given[question.batch, question.utterance_id]}
        tasks.append(task | {"predictions": list(_predictions(question, export))})
    storage.write_bytes(out, json.dumps(tasks, ensure_ascii=False, indent=1).encode())
    storage.write_bytes(out.with_suffix(".xml"), labelling_config(export.project).encode())


def read_label_studio(path: Path, project: Project) -> list[Entry]:
    """Read the annotations of completed tasks, as Label Studio exports them (JSON, not JSON-MIN)."""
    try:
        with readable(path):
            tasks = TypeAdapter(list[_Task]).validate_python(json.loads(path.read_text(encoding="utf-8")))
    except json.JSONDecodeError as error:
        raise LabelError(f"{path}, line {error.lineno}: not JSON: {error.msg}") from None
    except ValidationError as error:
        problem = error.errors()[0]
        raise LabelError(f"{path}, {_path(problem['loc'])}: {problem['msg']}") from None
    return in_order(_rows(path, tasks), "label-studio")


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
    low, high = project.scale
    for name, limits in [*((name, (low, high)) for name in project.dimensions), ("confidence", (0.0, 1.0))]:
        ElementTree.SubElement(view, "Header", value=name)
        if limits[0] == 1 and limits[1] in range(2, 11):
            ElementTree.SubElement(view, "Rating", name=name, toName="audio", maxRating=f"{limits[1]:g}")
        else:
            least, most = (f"{limit:g}" for limit in limits)
            ElementTree.SubElement(view, "Number", name=name, toName="audio", min=least, max=most, step="0.1")
    ElementTree.SubElement(view, "Header", value="comment")
    ElementTree.SubElement(view, "TextArea", name="comment", toName="audio", rows="2", editable="true")
    ElementTree.indent(view)
    return ElementTree.tostring(view, encoding="unicode") + "\n"


def _data(question: Question, export: Export) -> dict[str, Any]:
    told: dict[str, Any] = {"audio": export.audio_of(question.utterance_id), "utterance_id": question.utterance_id}
    told |= {"rank": question.rank, "round": question.round, "batch": question.batch, "purpose": question.purpose}
    if first := export.first_class(question.utterance_id):
        told["score"] = first[1]
    return told


def _predictions(question: Question, export: Export) -> Iterator[dict[str, Any]]:
    first = export.first_class(question.utterance_id)
    if export.suggest and first is not None:
        yield {"model_version": "seral", "score": first[1], "result": [_choice("emotion", [first[0]])]}


def _choice(name: str, words: list[str]) -> dict[str, Any]:
    return {"id": name, "from_name": name, "to_name": "audio", "type": "choices", "value": {"choices": words}}


def _annotation(row: dict[str, Any], project: Project) -> dict[str, Any]:
    problem = [row["kind"]] if row["kind"] in PROBLEMS else []
    chosen = zip(CHOICES, (row["emotions"], row["secondary"], problem), strict=True)
    result = [_choice(name, words) for name, words in chosen if words]
    for name in NUMBERS:
        if row[name] is not None:
            value = {"number": row[name]}
            result.append({"id": name, "from_name": name, "to_name": "audio", "type": "number", "value": value})
    if row["comment"] is not None:
        value = {"text": [row["comment"]]}
        result.append({"id": "comment", "from_name": "comment", "to_name": "audio", "type": "textarea", "value": value})
    return {
        "completed_by": row["person"],
        "lead_time": row["seconds"],
        "was_cancelled": row["kind"] == "skipped",
        "ground_truth": row["final"],
        "result": result,
        "seral": {name: row[name] for name in KEPT},
    }


def _rows(path: Path, tasks: list[_Task]) -> Iterator[tuple[str, dict[str, Any]]]:
    for number, task in enumerate(tasks):
        asked = {name: task.data.get(name) for name in ("batch", "purpose", "round")}
        about = task.data.get("utterance_id", task.data.get("utt_id"))
        for index, annotation in enumerate(task.annotations):
            place = f"{path}, [{number}].annotations[{index}]"
            yield place, {"utterance_id": about} | asked | _said(annotation, place)


def _said(annotation: _Annotation, place: str) -> dict[str, Any]:
    found: dict[str, Any] = {}
    for index, result in enumerate(annotation.result):
        name, value = result.from_name, result.value
        if name not in {*CHOICES, *NUMBERS, "comment"}:
            known = unknown_name("control", name, (*CHOICES, *NUMBERS, "comment"))
            raise LabelError(f"{place}.result[{index}]: {known}")
        found[name] = value.get("choices", value.get("rating", value.get("number", value.get("text"))))
    when = annotation.updated_at or annotation.created_at
    problem = found.pop("problem", None)
    comment = found.pop("comment", None)
    row = {
        "person": annotation.person,
        "kind": "skipped" if annotation.was_cancelled else problem[0] if problem else "label",
        "comment": "\n".join(comment) if isinstance(comment, list) else comment,
        "seconds": annotation.lead_time,
        "final": annotation.ground_truth,
        "answered_at": when.timestamp() if when else None,
    }
    if not annotation.was_cancelled:  # what was chosen before the skip does not count
        row |= {"emotions": found.pop("emotion", None)} | found
    return row | {name: annotation.seral.get(name) for name in KEPT if name in annotation.seral}


def _path(loc: tuple[int | str, ...]) -> str:
    return "".join(f"[{part}]" if isinstance(part, int) else f".{part}" for part in loc) or "."
