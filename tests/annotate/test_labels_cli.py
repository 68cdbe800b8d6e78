"""The commands about labels, on a small ledger."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from typer.testing import CliRunner

from seral import cli, storage
from seral.annotate.ledger import Answer, Ledger, Project
from seral.errors import LabelError
from seral.schema import CLASSES_KEY, CONSENSUS

CLASSES = ("anger", "joy")


@pytest.fixture
def ledger(tmp_path: Path) -> str:
    """Three people about three clips; the last says something else about the first."""
    place = str(tmp_path / "labels.sqlite")
    opened = Ledger.create(place, Project(classes=CLASSES))
    words = {"ada": "joy joy anger", "ben": "joy joy anger", "cem": "anger joy anger"}
    opened.record(
        Answer(utterance_id=f"u{number}", person=person, emotions=(word,), seconds=3.0)
        for person, said in words.items()
        for number, word in enumerate(said.split())
    )
    opened.close()
    return place


def run(*arguments: str) -> str:
    done = CliRunner().invoke(cli.app, list(arguments), env={"COLUMNS": "200", "NO_COLOR": "1", "TERM": "dumb"})
    if done.exception is not None:
        raise done.exception
    return done.output


def test_agreement_is_a_table_or_json(ledger: str) -> None:
    told = json.loads(run("labels", "agreement", ledger, "--json"))
    assert [row["of"] for row in told["agreement"]] == ["emotion", *CLASSES]
    assert {row["person"]: row["answers"] for row in told["people"]} == {"ada": 3, "ben": 3, "cem": 3}
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
