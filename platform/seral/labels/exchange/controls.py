"""An answer as tools have it that show one control for each thing to say: control -> value.

emotion, secondary          lists of classes
problem                     a list: unusable, or other-language; to skip is the tool's own button
valence, arousal, dominance, confidence     numbers
comment                     text
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from seral.errors import LabelError, unknown_name
from seral.labels.records import RATINGS

PROBLEMS = ("unusable", "other-language")
CHOICES = ("emotion", "secondary", "problem")
NUMBERS = (*RATINGS, "confidence")
CONTROLS = (*CHOICES, *NUMBERS, "comment")


def controls_of(row: Mapping[str, Any]) -> dict[str, Any]:
    """The controls that a row of schema.ANSWERS uses."""
    problem = [row["kind"]] if row["kind"] in PROBLEMS else []
    chosen = {"emotion": row["emotions"], "secondary": row["secondary"], "problem": problem}
    used = {name: words for name, words in chosen.items() if words}
    return used | {name: row[name] for name in (*NUMBERS, "comment") if row[name] is not None}


def row_of(controls: Mapping[str, Any], *, skipped: bool, position: str) -> dict[str, Any]:
    """The fields of schema.ANSWERS that controls tell. What was chosen before a skip does not count."""
    if unknown := [name for name in controls if name not in CONTROLS]:
        raise LabelError(f"{position}: {unknown_name('control', unknown[0], CONTROLS)}")
    words = {name: _texts(controls, name, position) for name in (*CHOICES, "comment")}
    row = {
        "comment": "\n".join(words["comment"]) if words["comment"] else None,
        "confidence": controls.get("confidence"),
    }
    if skipped:
        return row | {"kind": "skipped"}
    row |= {"kind": words["problem"][0] if words["problem"] else "label"}
    row |= {"emotions": words["emotion"], "secondary": words["secondary"]}
    return row | {name: controls.get(name) for name in RATINGS}


def _texts(controls: Mapping[str, Any], name: str, position: str) -> list[str]:
    """The texts of a control, none, one or several."""
    value = controls.get(name)
    texts = [] if value is None else value if isinstance(value, list) else [value]
    if not all(isinstance(text, str) for text in texts):
        raise LabelError(f"{position}: {name} is {value!r}, not text")
    return texts
