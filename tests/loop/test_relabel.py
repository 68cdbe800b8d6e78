"""Doubts of a run: what its models said before, copies in its pool, and asking again."""

from __future__ import annotations

import json
from collections.abc import Mapping
from contextlib import closing
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
from typer.testing import CliRunner

from seral import cli, storage
from seral.errors import LabelError
from seral.labels.ledger import Ledger
from seral.labels.records import Answer, Project
from seral.loop.options import LoopOptions
from seral.loop.relabel import ask_again, copies, cross_validated, doubts_of, earlier_predictions
from seral.options import parse
from seral.pool.shards import FORMAT, open_pool
from seral.schema import SCREEN, UTTERANCE, prediction_schema
from seral.task.gold import Oracle

CLASSES = ("anger", "joy", "neutral")
Said = Mapping[str, str]


def write_pool(folder: Path, duplicate_of: Mapping[str, str | None], near: Mapping[str, str]) -> str:
    rows = [{"utterance_id": name, "duplicate_of": other} for name, other in duplicate_of.items()]
    storage.write_table(folder / "utterances" / "made-1.parquet", pa.Table.from_pylist(rows, UTTERANCE))
    screen = [{"utterance_id": name, "near_duplicate_of": near.get(name)} for name in duplicate_of]
    storage.write_table(folder / "screen" / "abc.parquet", pa.Table.from_pylist(screen, SCREEN))
    manifest = {"format": FORMAT, "pool_hash": "abc", "revision": 1, "shards": {"made-1": {"rows": len(rows)}}}
    storage.write_json(folder / "manifest.json", manifest)
    return str(folder)


def write_round(folder: Path, number: int, predicted: Mapping[str, list[float]], part: str = "pool") -> None:
    """What a round leaves behind, as far as doubts read it."""
    rows = [
        {"utterance_id": name, "part": part, **{f"p_{c}": p for c, p in zip(CLASSES, p_C, strict=True)}}
        for name, p_C in predicted.items()
    ]
    folder_of_round = folder / "rounds" / f"{number:04d}"
    table = pa.Table.from_pylist(rows, prediction_schema(list(CLASSES)))
    storage.write_table(folder_of_round / "predictions" / f"{part}.parquet", table)
    storage.write_json(folder_of_round / "round.json", {"round": number})


@pytest.fixture
def run(tmp_path: Path) -> str:
    """Ada labelled u0 to u5; the model disagrees about u2, and u4 is a copy of u5."""
    pool = write_pool(tmp_path / "pool", dict.fromkeys(f"u{n}" for n in range(8)), {"u5": "u4"})
    run = tmp_path / "run"
    options = {"pool": pool, "run": str(run), "classes": list(CLASSES)}
    storage.write_bytes(run / "config.yaml", json.dumps(options | {"people": {"ledger": None}}).encode())
    folder = run / "trajectories" / "after.fold-00.seed-0"
    sure, other = [0.1, 0.8, 0.1], [0.7, 0.2, 0.1]
    write_round(folder, 0, {"u0": other, "u1": sure, "u2": other, "u3": [0.8, 0.1, 0.1]})
    write_round(folder, 1, {"u0": sure})
    with closing(Ledger.create(str(run / "labels.sqlite"), Project(classes=CLASSES))) as ledger:
        for person in ("ada", "ben", "cem"):
            ledger.add_person(person)
        ledger.ask("after.fold-00.seed-0/round-0001", [f"u{n}" for n in range(6)], purpose="round", round=1)
        for emotion in ("joy", "joy", "joy", "anger", "neutral", "joy"):
            (task,) = ledger.claim("ada")
            ledger.submit(Answer(utterance_id=task.utterance_id, person="ada", emotions=(emotion,)), task.question)
    return str(run)


def test_models_speak_last_before_the_label(run: str) -> None:
    probability_of = earlier_predictions(run, ["u0", "u2", "u7"], CLASSES)
    assert sorted(probability_of) == ["u0", "u2"]
    np.testing.assert_allclose(probability_of["u0"], [0.1, 0.8, 0.1], rtol=1e-6)
    np.testing.assert_allclose(probability_of["u2"], [0.7, 0.2, 0.1], rtol=1e-6)
    again = Path(run) / "trajectories" / "random.fold-00.seed-0"
    write_round(again, 0, {"u2": [0.1, 0.8, 0.1]}, part="dev")
    np.testing.assert_allclose(earlier_predictions(run, ["u2"], CLASSES)["u2"], [0.4, 0.5, 0.1], rtol=1e-6)


def test_groups_of_copies_join_exact_and_near_ones(tmp_path: Path) -> None:
    pool = write_pool(tmp_path, {"a": None, "b": "a", "c": None, "d": None, "e": None}, {"c": "b", "e": "gone"})
    assert copies(open_pool(pool)) == {"a": "a", "b": "a", "c": "a"}


def test_doubts_of_a_run_have_all_reasons(run: str) -> None:
    doubtful = [(row["utterance_id"], row["reason"], row["suggested"]) for row in doubts_of(run).to_pylist()]
    assert doubtful == [
        ("u4", "near-duplicate", "joy"),
        ("u5", "near-duplicate", "neutral"),
        ("u2", "label-error", "anger"),
    ]
    assert doubts_of(f"{run}/labels.sqlite").num_rows == 0, "a ledger alone knows of no model and no copies"


def test_the_most_doubtful_are_asked_again_once_and_of_others(run: str) -> None:
    assert ask_again(run, 2) == ("relabel-0", ["u4", "u5"])
    assert ask_again(run, 2) == ("relabel-1", ["u2"])
    with pytest.raises(LabelError, match=r"nothing .* is doubtful that was not asked about again"):
        ask_again(run, 2)
    with closing(Ledger(f"{run}/labels.sqlite")) as ledger:
        assert ledger.claim("ada") == []
        for person in ("ben", "cem"):
            tasks = ledger.claim(person, count=5)
            assert [(task.utterance_id, task.purpose) for task in tasks] == [(n, "relabel") for n in ("u4", "u5", "u2")]
            for task in tasks:
                answer = Answer(utterance_id=task.utterance_id, person=person, emotions=("anger",))
                ledger.submit(answer, task.question)
    assert doubts_of(run).num_rows == 0, "two others outvoted the first answer"


def test_where_nobody_was_asked_there_is_nothing_to_doubt(run: str) -> None:
    path = Path(run) / "config.yaml"
    path.write_text(json.dumps(json.loads(path.read_text()) | {"people": None}))
    with pytest.raises(LabelError, match="asks nobody"):
        doubts_of(run)
    with pytest.raises(LabelError, match="no features"):
        doubts_of(f"{run}/labels.sqlite", cross_validate=True)


def test_commands(run: str, tmp_path: Path) -> None:
    out = tmp_path / "doubts.parquet"
    printed = CliRunner().invoke(cli.app, ["labels", "doubts", run, "--out", str(out), "--count", "1", "--json"])
    assert [row["utterance_id"] for row in json.loads(printed.output)] == ["u4"]
    assert storage.read_table(out).num_rows == 3
    printed = CliRunner().invoke(cli.app, ["labels", "relabel", run, "--count", "1", "--overlap", "1"])
    assert printed.output == "relabel-0: 1 clips to hear again\n"


@pytest.mark.ray
def test_cross_validation_judges_every_label_by_the_others(run_values: dict[str, Any]) -> None:
    options = parse(LoopOptions, run_values)
    pool = open_pool(options.pool)
    oracle = Oracle(pool, options.classes)
    ids = sorted(oracle.answerable)
    label_M = oracle.targets(ids).label_N
    probability_MC = cross_validated(options, pool, ids, label_M, len(options.classes))
    p_MC = np.stack([probability_MC[name] for name in ids])
    np.testing.assert_allclose(p_MC.sum(1), 1, atol=1e-6)
    assert p_MC[np.arange(len(ids)), label_M].mean() > 1.5 / len(options.classes)
