"""Argilla: responses as its server has them and as Argilla 2 groups them."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest

from seral import storage
from seral.errors import LabelError
from seral.labels.exchange import ExportOptions, export_labels, import_labels
from seral.labels.ledger import Ledger
from seral.labels.records import Project


@pytest.fixture
def ledger(tmp_path: Path) -> Ledger:
    ledger = Ledger.create(str(tmp_path / "labels.sqlite"), Project(classes=("anger", "joy"), dimensions=("arousal",)))
    ledger.ask("evaluation", ["u1", "u2"], purpose="evaluation")
    return ledger


def record(responses: Any) -> dict[str, Any]:
    metadata = {"utterance_id": "u1", "batch": "evaluation", "purpose": "evaluation"}
    return {"id": "1", "fields": {"audio": "u1.flac"}, "metadata": metadata, "suggestions": {}, "responses": responses}


def read(ledger: Ledger, folder: Path, *responses: Any) -> int:
    file = folder / "records.json"
    file.write_text(json.dumps([record(each) for each in responses]))
    return import_labels(ledger, file, "argilla")


def test_responses_come_back_in_both_forms(ledger: Ledger, tmp_path: Path) -> None:
    values = {"emotion": {"value": ["joy"]}, "arousal": {"value": 4}}
    server = [
        {"user_id": "ada", "status": "submitted", "values": values},
        {"user_id": "ben", "status": "discarded", "values": values},
        {"user_id": "cem", "status": "draft", "values": values},
    ]
    grouped = {
        "emotion": [{"user_id": "dee", "value": "anger"}, {"user_id": "eva", "value": "joy"}],
        "comment": [{"user_id": "dee", "value": "shouts"}],
    }
    assert read(ledger, tmp_path, server, grouped) == 4
    assert read(ledger, tmp_path, server, grouped) == 0
    rows = ledger.answers().to_pylist()
    assert [(row["person"], row["kind"], row["emotions"]) for row in rows] == [
        ("ada", "label", ["joy"]),
        ("ben", "skipped", []),
        ("dee", "label", ["anger"]),
        ("eva", "label", ["joy"]),
    ]
    assert (rows[0]["arousal"], rows[2]["comment"], rows[0]["tool"], rows[0]["batch"]) == (
        4.0,
        "shouts",
        "argilla",
        "evaluation",
    )


@pytest.mark.parametrize(
    ("responses", "message"),
    [
        ([{"status": "submitted"}], r"\[0\].responses"),
        ([{"user_id": "ada", "values": {"mood": {"value": "x"}}}], r"\[0\].responses\[0\]: unknown control 'mood'"),
        ([{"user_id": "ada", "values": {"emotion": {"value": ["x"]}}}], r"\[0\].responses\[0\]: .*unknown class 'x'"),
        ([{"user_id": "ada", "values": {"emotion": {"value": 3}}}], r"\[0\].responses\[0\]: emotion is 3, not text"),
    ],
)
def test_a_bad_file_is_refused_with_the_path_inside(
    ledger: Ledger, tmp_path: Path, responses: Any, message: str
) -> None:
    with pytest.raises(LabelError, match=message):
        read(ledger, tmp_path, responses)
    assert ledger.answers().num_rows == 0


def test_records_have_their_order_and_suggestions_only_when_asked_for(ledger: Ledger, tmp_path: Path) -> None:
    table = pa.table({"utterance_id": ["u1"], "p_anger": [0.75], "p_joy": [0.25]})
    storage.write_table(tmp_path / "predictions.parquet", table)
    for suggest in (False, True):
        file = tmp_path / "records.json"
        export_labels(
            ledger, file, "argilla", ExportOptions(predictions=str(tmp_path / "predictions.parquet"), suggest=suggest)
        )
        first, second = json.loads(file.read_text())
        assert (first["metadata"]["rank"], second["metadata"]["rank"]) == (1, 2)
        assert first["metadata"]["score"] == 0.75
        assert first["fields"] == {"audio": "clips/u1.flac"}
        assert [each["suggestions"].get("emotion", {}).get("value") for each in (first, second)] == [
            ["anger"] if suggest else None,
            None,
        ]
