"""Label Studio: what it gives back is understood, and what it is given is what it can show."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import pyarrow as pa
import pytest

from seral import storage
from seral.errors import LabelError
from seral.labels.exchange import ExportOptions, export_labels, import_labels
from seral.labels.exchange.label_studio import labelling_config
from seral.labels.ledger import Ledger
from seral.labels.records import Answer, Project

PROJECT = Project(classes=("anger", "joy & <delight>"), dimensions=("arousal",))


@pytest.fixture
def ledger(tmp_path: Path) -> Ledger:
    ledger = Ledger.create(str(tmp_path / "labels.sqlite"), PROJECT)
    ledger.ask("main/round-0001", ["u2", "u1"], purpose="round", round=1, overlap=2)
    return ledger


def chosen(control: str, kind: str, value: dict[str, Any]) -> dict[str, Any]:
    return {"id": "x1", "from_name": control, "to_name": "audio", "type": kind, "value": value, "origin": "manual"}


def completed(*annotations: dict[str, Any], utterance: str = "u1") -> dict[str, Any]:
    data = {"audio": "/data/u1.flac", "utterance_id": utterance, "rank": 2, "round": 1}
    data |= {"batch": "main/round-0001", "purpose": "round"}
    return {"id": 7, "data": data, "annotations": list(annotations), "predictions": [], "drafts": [], "meta": {}}


def annotation(user: Any, *result: dict[str, Any], **more: Any) -> dict[str, Any]:
    times = {"created_at": "2026-03-01T10:00:00.000000Z", "updated_at": "2026-03-01T10:00:05.500000Z"}
    entry = {
        "id": 3,
        "completed_by": user,
        "lead_time": 4.3,
        "was_cancelled": False,
        "ground_truth": False,
        "task": 7,
    }
    return {**entry, **times, "result": list(result), "unique_id": "8d0c", "import_id": None, **more}


def written(folder: Path, value: Any) -> Path:
    file = folder / "export.json"
    file.write_text(json.dumps(value))
    return file


def test_completed_tasks_come_back_with_who_and_how_long(ledger: Ledger, tmp_path: Path) -> None:
    anger = chosen("emotion", "choices", {"choices": ["anger"]})
    more = chosen("secondary", "choices", {"choices": ["joy & <delight>"]})
    rated = chosen("arousal", "rating", {"rating": 4})
    note = chosen("comment", "textarea", {"text": ["loud", "and short"]})
    tasks = [
        completed(annotation(10, anger, more, rated, note), annotation({"id": 11, "email": "ben@example.org"}, anger)),
        completed(
            annotation(12, chosen("problem", "choices", {"choices": ["unusable"]})),
            annotation(10, anger, was_cancelled=True),
            annotation("lead", anger, ground_truth=True),
            utterance="u2",
        ),
    ]
    file = written(tmp_path, tasks)
    assert import_labels(ledger, file, "label-studio", {"10": "ada"}) == 5
    assert import_labels(ledger, file, "label-studio", {"10": "ada"}) == 0
    table = ledger.answers()
    assert table["person"].to_pylist() == ["ada", "ben@example.org", "12", "ada", "lead"]
    assert table["kind"].to_pylist() == ["label", "label", "unusable", "skipped", "label"]
    assert table["final"].to_pylist() == [False, False, False, False, True]
    first = table.to_pylist()[0]
    assert (first["emotions"], first["secondary"], first["arousal"]) == (["anger"], ["joy & <delight>"], 4.0)
    assert (first["comment"], first["seconds"], first["answered_at"]) == ("loud\nand short", 4.3, 1772359205.5)
    assert (first["batch"], first["purpose"], first["round"], first["tool"]) == (
        "main/round-0001",
        "round",
        1,
        "label-studio",
    )
    (progress,) = ledger.progress()
    assert progress.done == 1, "one was skipped"


def test_an_annotation_that_was_changed_there_is_a_correction_here(ledger: Ledger, tmp_path: Path) -> None:
    answer = annotation(10, chosen("emotion", "choices", {"choices": ["anger"]}))
    import_labels(ledger, written(tmp_path, [completed(answer)]), "label-studio")
    later = {"updated_at": "2026-03-02T08:00:00Z", "result": [chosen("problem", "choices", {"choices": ["unusable"]})]}
    import_labels(ledger, written(tmp_path, [completed(answer | later)]), "label-studio")
    assert ledger.answers()["kind"].to_pylist() == ["unusable"]
    assert ledger.answers(history=True).num_rows == 2


@pytest.mark.parametrize(
    ("tasks", "message"),
    [
        ({"data": {}}, r"export\.json: expected a list"),
        ([{"audio": "x", "emotion": "joy"}], r"\[0\].data: is missing"),
        ([completed(), completed({"result": []})], r"\[1\].annotations\[0\].completed_by.*: is missing"),
        ([completed(annotation(1, {"value": {}}))], r"\[0\].annotations\[0\].result\[0\].from_name: is missing"),
        (
            [completed(annotation(1, chosen("mood", "choices", {"choices": ["x"]})))],
            r"annotations\[0\]: unknown control 'mood'",
        ),
        (
            [completed(annotation(1, chosen("emotion", "choices", {"choices": ["x"]})))],
            r"\[0\].annotations\[0\]: .*class 'x'",
        ),
        (
            [completed(annotation(1, chosen("arousal", "rating", {"rating": 9})))],
            r"\[0\].annotations\[0\]: .* outside 1",
        ),
        ([completed(annotation(1))], r"\[0\].annotations\[0\]: .* it says nothing"),
        ([completed(annotation(1), utterance=None)], r"\[0\].annotations\[0\]: no utterance_id"),  # type: ignore[arg-type]
    ],
)
def test_a_bad_file_is_refused_with_the_path_inside(ledger: Ledger, tmp_path: Path, tasks: Any, message: str) -> None:
    with pytest.raises(LabelError, match=message):
        import_labels(ledger, written(tmp_path, tasks), "label-studio")
    assert ledger.answers().num_rows == 0


def test_what_is_not_json_is_told_with_its_line(ledger: Ledger, tmp_path: Path) -> None:
    (tmp_path / "export.json").write_text("[\n{,\n")
    with pytest.raises(LabelError, match="line 2: not JSON"):
        import_labels(ledger, tmp_path / "export.json", "label-studio")


def test_the_model_is_seen_only_when_asked_for(ledger: Ledger, tmp_path: Path) -> None:
    predictions = {"utterance_id": ["u1", "u2"], "p_anger": [0.75, 0.25], "p_joy & <delight>": [0.25, 0.75]}
    storage.write_table(tmp_path / "predictions.parquet", pa.table(predictions))
    for suggest in (False, True):
        about = {"predictions": str(tmp_path / "predictions.parquet"), "suggest": suggest, "with_answers": False}
        export_labels(ledger, tmp_path / "tasks.json", "label-studio", ExportOptions(**about))  # type: ignore[arg-type]
        tasks = json.loads((tmp_path / "tasks.json").read_text())
        assert [task["data"]["score"] for task in tasks] == [0.75, 0.75]
        choices = [[p["result"][0]["value"]["choices"] for p in task["predictions"]] for task in tasks]
        assert choices == ([[["joy & <delight>"]], [["anger"]]] if suggest else [[], []])


def test_users_that_were_numbers_go_back_as_numbers(ledger: Ledger, tmp_path: Path) -> None:
    people = ("10", "010", "ada@example.org")
    ledger.record(Answer(utterance_id="u1", person=name, emotions=("anger",)) for name in people)
    export_labels(ledger, tmp_path / "tasks.json", "label-studio")
    tasks = json.loads((tmp_path / "tasks.json").read_text())
    assert [each["completed_by"] for task in tasks for each in task["annotations"]] == [10, "010", "ada@example.org"]
    other = Ledger.create(str(tmp_path / "other.sqlite"), PROJECT)
    import_labels(other, tmp_path / "tasks.json", "label-studio")
    assert other.answers()["person"].to_pylist() == list(people)


def test_the_config_has_a_control_for_all_that_is_written(ledger: Ledger, tmp_path: Path) -> None:
    answer = {"emotions": ("anger",), "arousal": 3.0, "confidence": 0.5, "comment": "loud"}
    ledger.record([Answer(utterance_id="u1", person="ada", **answer)])  # type: ignore[arg-type]
    export_labels(ledger, tmp_path / "tasks.json", "label-studio")
    view = ElementTree.parse(tmp_path / "tasks.xml").getroot()
    named = {element.get("name"): element for element in view if element.get("name")}
    assert set(named) == {"audio", "emotion", "secondary", "problem", "arousal", "confidence", "comment"}
    assert [choice.get("value") for choice in named["emotion"]] == list(PROJECT.classes)
    assert (named["arousal"].tag, named["arousal"].get("maxRating")) == ("Rating", "5")
    assert all(element.get("toName") == "audio" for name, element in named.items() if name != "audio")
    tasks = json.loads((tmp_path / "tasks.json").read_text())
    results = [result for task in tasks for each in task["annotations"] for result in each["result"]]
    assert {result["from_name"] for result in results} == {"emotion", "arousal", "confidence", "comment"}
    for result in results:
        assert result["type"] == named[result["from_name"]].tag.lower(), "as the control gives it"
    assert 'min="-1"' in labelling_config(Project(classes=(), dimensions=("valence",), scale=(-1.0, 1.0)))
