"""The commands about labels, on a small ledger."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from typer.testing import CliRunner

from seral import cli, storage
from seral.errors import LabelError
from seral.labels.ledger import Ledger
from seral.labels.records import Answer, Project
from seral.schema import CLASSES_KEY, CONSENSUS

CLASSES = ("anger", "joy")


@pytest.fixture
def ledger(tmp_path: Path) -> str:
    """Three people about three clips; the last says something else about the first."""
    url = str(tmp_path / "labels.sqlite")
    opened = Ledger.create(url, Project(classes=CLASSES))
    words = {"ada": "joy joy anger", "ben": "joy joy anger", "cem": "anger joy anger"}
    opened.record(
        Answer(utterance_id=f"u{number}", person=person, emotions=(word,), seconds=3.0)
        for person, answers in words.items()
        for number, word in enumerate(answers.split())
    )
    opened.close()
    return url


def run(*arguments: str) -> str:
    done = CliRunner().invoke(cli.app, list(arguments), env={"COLUMNS": "200", "NO_COLOR": "1", "TERM": "dumb"})
    if done.exception is not None:
        raise done.exception
    return done.output


def test_agreement_is_a_table_or_json(ledger: str) -> None:
    agreement = json.loads(run("labels", "agreement", ledger, "--json"))
    assert [row["of"] for row in agreement["agreement"]] == ["emotion", *CLASSES]
    assert {row["person"]: row["answers"] for row in agreement["people"]} == {"ada": 3, "ben": 3, "cem": 3}
    text = run("labels", "agreement", ledger)
    assert "emotion" in text
    assert "confusion" not in text
    (cem,) = (line for line in text.splitlines() if line.startswith("cem"))
    assert "0.667" in cem


def test_consensus_is_written_with_its_classes(ledger: str, tmp_path: Path) -> None:
    out = str(tmp_path / "labels.parquet")
    assert "3 labels" in run("labels", "consensus", ledger, "--out", out, "--method", "soft")
    table = storage.read_table(out)
    assert table.schema.equals(CONSENSUS)
    assert table["emotion"].to_pylist() == ["joy", "joy", "anger"]
    assert json.loads(table.schema.metadata[CLASSES_KEY.encode()]) == list(CLASSES)
    with pytest.raises(LabelError, match="known: dawid-skene, majority, soft"):
        run("labels", "consensus", ledger, "--out", out, "--method", "mean")


def test_answers_go_out_and_come_in(ledger: str, tmp_path: Path) -> None:
    out = str(tmp_path / "tasks.json")
    assert "9 answers" in run("labels", "export", ledger, "--format", "label-studio", "--out", out)
    other = str(tmp_path / "other.sqlite")
    Ledger.create(other, Project(classes=CLASSES)).close()
    arguments = ("labels", "import", other, out, "--format", "label-studio", "--person", "ada=Ada Lovelace")
    assert "9 new answers" in run(*arguments)
    assert "0 new answers" in run(*arguments)
    assert [row.name for row in Ledger(other).people()] == ["Ada Lovelace", "ben", "cem"]


def test_tasks_for_people_show_nobody_elses_answers(ledger: str, tmp_path: Path) -> None:
    Ledger(ledger).ask("evaluation", ["u1", "u0"], purpose="evaluation")
    out = tmp_path / "tasks.json"
    address = "https://clips.example/{utterance_id}.flac"
    arguments = ("--batch", "evaluation", "--tasks", "--audio", address)
    assert "0 answers" in run("labels", "export", ledger, "--format", "label-studio", "--out", str(out), *arguments)
    tasks = json.loads(out.read_text())
    assert [task["annotations"] + task["predictions"] for task in tasks] == [[], []]
    assert [(task["data"]["rank"], task["data"]["audio"]) for task in tasks] == [
        (1, "https://clips.example/u1.flac"),
        (2, "https://clips.example/u0.flac"),
    ]
    with pytest.raises(LabelError, match="unknown batch 'round-9'; known: evaluation"):
        run("labels", "export", ledger, "--format", "csv", "--out", str(out), "--batch", "round-9")
