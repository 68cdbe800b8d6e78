"""The loop with people: it pauses, goes on where it was, asks nobody twice and opens no gold label."""

from __future__ import annotations

import json
import shutil
import sys
import threading
from collections.abc import Sequence
from contextlib import closing, suppress
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.compute as pc
import pyarrow.parquet as pq
import pytest
import yaml

from seral.cli import main
from seral.errors import AwaitingLabels, LabelError, OptionError, SplitError
from seral.labels import people as people_module
from seral.labels.ledger import Ledger
from seral.labels.records import Answer
from seral.labels.simulated import Person, Truth, answer_all, careful, even, hasty
from seral.loop.loop import run_loop
from seral.loop.options import LoopOptions
from seral.loop.status import loop_status
from seral.options import parse
from seral.pool.shards import open_pool
from seral.report.report import write_run_report
from seral.task.gold import Oracle

Rows = list[dict[str, Any]]


@pytest.fixture(scope="module")
def goldless(speech_pool: str, tmp_path_factory: pytest.TempPathFactory) -> str:
    """The pool, without gold labels and votes."""
    pool = tmp_path_factory.mktemp("goldless") / "pool"
    shutil.copytree(speech_pool, pool)
    for table in ("gold", "votes"):
        shutil.rmtree(pool / table)
    return str(pool)


@pytest.fixture(scope="module")
def truth(speech_pool: str) -> dict[str, Truth]:
    """What each clip is; every sixth is unusable."""
    pool = open_pool(speech_pool)
    oracle, ids = (
        Oracle(pool, ["anger", "happiness", "neutral", "sadness"]),
        sorted(pool.metadata["utterance_id"].to_pylist()),
    )
    answerable = [name for number, name in enumerate(ids) if name in set(oracle.answerable) and number % 6]
    return {**dict.fromkeys(ids), **dict(zip(answerable, oracle.emotions(answerable), strict=True))}


@pytest.fixture
def values(run_values: dict[str, Any], goldless: str) -> dict[str, Any]:
    return run_values | {
        "pool": goldless,
        "people": {"evaluation": 24},
        "strategy": "margin",
        "budget": {"sizes": [8, 14]},
    }


def team(classes: Sequence[str]) -> list[Person]:
    """Two good ones, and one who is in a hurry."""
    return [careful("ada", classes), careful("ben", classes), hasty("cem", classes)]


def answer(values: dict[str, Any], truth: dict[str, Truth], people: Sequence[Person]) -> int:
    ledger = Ledger(str(Path(values["run"]) / "labels.sqlite"))
    count = answer_all(ledger, people, truth)
    ledger.close()
    return count


def paused(values: dict[str, Any]) -> str | None:
    """What a run says when it pauses; None when it came to its end."""
    try:
        run_loop(parse(LoopOptions, values))
    except AwaitingLabels as pause:
        return str(pause)
    return None


def to_the_end(values: dict[str, Any], truth: dict[str, Truth]) -> list[str]:
    """All that a run said when it paused, with answers each time."""
    lines = list[str]()
    while (message := paused(values)) is not None:
        lines.append(message)
        assert answer(values, truth, team(values["classes"])), "it waits although nothing is open"
    return lines


def rounds(values: dict[str, Any]) -> list[Path]:
    return sorted(Path(values["run"]).glob("trajectories/margin.fold-00.seed-0/rounds/*"))


def rows(folder: Path, table: str) -> Rows:
    path = folder / table if (folder / table).is_dir() else folder / f"{table}.parquet"
    rows_of_table: Rows = pq.read_table(path).to_pylist()
    return rows_of_table


def tables(values: dict[str, Any]) -> list[tuple[Rows, Rows, Rows]]:
    """What was asked, answered and predicted."""
    return [(rows(f, "picks"), rows(f, "labels"), rows(f, "predictions")) for f in rounds(values)]


@pytest.mark.ray
def test_a_run_with_people_from_the_evaluation_set_to_the_report(
    values: dict[str, Any], truth: dict[str, Truth]
) -> None:
    values |= {"people": {"evaluation": 24, "overlap": 3, "consensus": "crowd"}, "budget": {"sizes": [8, 14, 20]}}
    values |= {"strategy": {"name": "margin", "wrappers": ["usable"]}}
    lines = to_the_end(values, truth)
    assert "0 of 24 clips of evaluation are labelled" in lines[0]
    assert f"`seral labels serve {values['run']}`" in lines[0]
    assert "0 of 8 clips of margin.fold-00.seed-0/round-0000 are labelled" in lines[1]
    (row,) = loop_status(values["run"])
    assert (row["rounds"], row["stopped"].split(":")[0]) == ("3/3", "budget spent")
    ledger = Ledger(str(Path(values["run"]) / "labels.sqlite"))
    evaluated, asked, unusable = set(ledger.asked("evaluation")), set[str](), set[str]()
    for folder, labelled in zip(rounds(values), (8, 14, 20), strict=True):
        picks = [row["utterance_id"] for row in rows(folder, "picks")]
        first = ledger.asked(f"margin.fold-00.seed-0/round-{folder.name}")
        assert first == picks[: len(first)]
        assert not (asked | evaluated) & set(picks)
        asked |= set(picks)
        assert json.loads((folder / "round.json").read_text())["labelled"] == labelled, "what had no label was replaced"
        scored = rows(folder, "predictions")
        assert not asked & {row["utterance_id"] for row in scored if row["part"] == "pool"}
        assert {row["utterance_id"] for row in scored if row["part"] == "test"} <= evaluated
        unusable |= {row["utterance_id"] for row in rows(folder, "labels") if row["answer"] == "unusable"}
        raters = json.loads((folder / "metrics.json").read_text())["training"]["raters"]
        assert raters.keys() == {"ada", "ben", "cem"}
        assert all(0 < right < 1 for right in raters.values())
    assert len(asked) > 20
    assert unusable
    assert all(truth[name] is None for name in unusable)
    ledger.close()
    assert "<html" in Path(write_run_report(values["run"])).read_text()


@pytest.mark.ray
def test_people_rate_and_the_loop_learns_their_ratings(values: dict[str, Any], speech_pool: str) -> None:
    values |= {"classes": [], "dimensions": ["valence", "arousal"], "strategy": "igs"}
    pool = open_pool(speech_pool)
    ids, oracle = pool.metadata["utterance_id"].to_pylist(), Oracle(pool, [], None, ["valence", "arousal"])
    ratings_of = dict(zip(ids, np.clip(np.rint(np.nan_to_num(oracle.ratings(ids), nan=3)), 1, 5).tolist(), strict=True))
    while (line := paused(values)) is not None:
        with closing(Ledger(str(Path(values["run"]) / "labels.sqlite"))) as ledger:
            if not ledger.people():
                assert "0 of 24 clips of evaluation" in line
                ledger.add_person("ada")
            while tasks := ledger.claim("ada", count=10):
                for task in tasks:
                    valence, arousal = ratings_of[task.utterance_id]
                    rated = Answer(utterance_id=task.utterance_id, person="ada", valence=valence, arousal=arousal)
                    ledger.submit(rated, task.question)
    (row,) = loop_status(values["run"])
    assert (row["rounds"], row["labelled"]) == ("2/2", 14)
    (folder,) = Path(values["run"]).glob("trajectories/igs.*/rounds")
    for label in rows(folder / "0001", "labels"):
        assert [label["valence"], label["arousal"]] == ratings_of[label["utterance_id"]]
    judged = rows(folder / "0001", "ratings")
    assert judged
    for clip in judged:
        assert [clip["true_valence"], clip["true_arousal"]] == ratings_of[clip["utterance_id"]]
    assert "bias is the mean of predicted less true ratings" in Path(write_run_report(values["run"])).read_text()


@pytest.mark.ray
def test_a_run_that_was_killed_and_asked_again_asks_the_same(
    values: dict[str, Any], truth: dict[str, Truth], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    to_the_end(values, truth)
    again = values | {"run": str(tmp_path / "again")}
    for batch, count in (("evaluation", 24), ("margin.fold-00.seed-0/round-0000", 8)):
        lines = paused(again)
        assert lines == paused(again), "nothing was answered in between"
        assert f"0 of {count} clips of {batch}" in str(lines)
        assert loop_status(again["run"])[0]["stopped"] == f"awaiting labels: 0 of {count} clips of {batch} are labelled"
        assert not rounds(again), "a round that waits is not written"
        if batch != "evaluation":
            config = tmp_path / "run.yaml"
            config.write_text(yaml.safe_dump(again))
            monkeypatch.setattr(sys, "argv", ["seral", "loop", "run", str(config)])
            with pytest.raises(SystemExit) as ended:
                main()
            assert ended.value.code == 75
        answer(again, truth, team(values["classes"]))
    to_the_end(again, truth)
    assert tables(again) == tables(values)
    shutil.rmtree(rounds(again)[1])
    assert paused(again) is None, "all of it was answered"
    assert tables(again) == tables(values)


@pytest.mark.ray
def test_it_may_wait_and_doubtful_labels_are_heard_by_others(
    values: dict[str, Any], truth: dict[str, Truth], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(people_module, "POLL_S", 0.05)
    values |= {"people": {"evaluation": 24, "wait": True, "max_skips": 0}}
    values |= {"strategy": {"name": "margin", "wrappers": [{"name": "relabel", "share": 0.4, "doubt": 0.01}]}}
    classes, done = values["classes"], threading.Event()
    sure = [Person(name=name, classes=tuple(classes), confusion_CC=even(classes, 1.0)) for name in ("ada", "ben")]

    def label_all_day() -> None:
        while not done.wait(0.2):
            if (Path(values["run"]) / "labels.sqlite").exists():
                with suppress(LabelError):  # a ledger that has just begun
                    answer(values, truth, sure)

    day = threading.Thread(target=label_all_day)
    day.start()
    try:
        assert paused(values) is None
    finally:
        done.set()
        day.join()
    ledger = Ledger(str(Path(values["run"]) / "labels.sqlite"))
    again = ledger.asked("margin.fold-00.seed-0/round-0001.relabel")
    assert len(again) == 2  # 40 % of six
    answers = [row for row in ledger.answers().to_pylist() if row["utterance_id"] in again]
    assert len({(row["utterance_id"], row["person"]) for row in answers}) == 4, "another person each"
    folders = rounds(values)
    assert [row["utterance_id"] for row in rows(folders[1], "picks") if row["utterance_id"] in again] == again
    assert json.loads((folders[1] / "round.json").read_text())["labelled"] == 12, "second looks cost labels"
    # An adjudication counts in the next round, and is written there.
    name = again[0]
    other = next(word for word in classes if word != truth[name])
    ledger.record([Answer(utterance_id=name, person="lea", emotions=(other,), final=True)])
    ledger.close()
    shutil.rmtree(folders[1])
    assert paused(values) is None
    (label,) = [row for row in rows(folders[1], "labels") if row["utterance_id"] == name]
    assert (label["emotion"], label["round"]) == (other, 1)


@pytest.mark.ray
def test_when_nobody_is_left_to_ask_about_a_run_ends_with_fewer_labels(
    values: dict[str, Any], truth: dict[str, Truth]
) -> None:
    values |= {"budget": {"fractions": [0.9, 1.0]}}
    to_the_end(values, truth)
    picks = {row["utterance_id"] for folder in rounds(values) for row in rows(folder, "picks")}
    described = json.loads((rounds(values)[0].parent.parent / "trajectory.json").read_text())
    assert len(picks) == described["n_train"]
    (row,) = loop_status(values["run"])
    answered = [row["answer"] for folder in rounds(values) for row in rows(folder, "labels")]
    assert row["labelled"] == answered.count("label") < described["n_train"]
    assert answered.count("unusable") == described["n_train"] - row["labelled"]


@pytest.mark.ray
def test_it_goes_on_with_enough_and_asks_for_what_is_lacking_in_the_next_round(
    values: dict[str, Any], truth: dict[str, Truth]
) -> None:
    values |= {"people": {"evaluation": 24, "enough": 0.5}}
    paused(values)
    ada = careful("ada", values["classes"])
    answer(values, truth, [ada])
    assert "round-0000" in str(paused(values))
    ledger = Ledger(str(Path(values["run"]) / "labels.sqlite"))
    for task in ledger.claim("ada", count=5):
        ledger.submit(Answer(utterance_id=task.utterance_id, person="ada", emotions=("anger",)), task.question)
    asked = ledger.asked("margin.fold-00.seed-0/round-0000")
    assert "0 of 9 clips" in str(paused(values)), "14 labels are to be had, and five are there"
    assert [row["utterance_id"] for row in rows(rounds(values)[0], "picks")] == asked[:5]
    left = {row["utterance_id"] for row in rows(rounds(values)[0], "predictions") if row["part"] == "pool"}
    assert set(asked[5:]) <= left, "nobody said anything of these"
    assert {task.round for task in ledger.claim("ada", count=20)} == {1}, "the first round is asked no more"
    ledger.close()


@pytest.mark.ray
def test_what_everybody_has_heard_gets_no_second_look_but_costs_nothing(
    values: dict[str, Any], truth: dict[str, Truth], capsys: pytest.CaptureFixture[str]
) -> None:
    values |= {"strategy": {"name": "margin", "wrappers": [{"name": "relabel", "share": 0.4, "doubt": 0.01}]}}
    values |= {"people": {"evaluation": 24, "overlap": 3}}
    lines = to_the_end(values, truth)
    assert not [message for message in lines if ".relabel" in message]
    assert [row["labelled"] for row in loop_status(values["run"])] == [14]
    assert yaml.safe_load((Path(values["run"]) / "config.yaml").read_text())["people"]["consensus"] == "soft"
    assert capsys.readouterr().err.count("people.consensus=soft: people.overlap is 3") == 1, "said once"


@pytest.mark.ray
def test_a_pool_without_speakers_cannot_be_judged_by(values: dict[str, Any], tmp_path: Path) -> None:
    pool = tmp_path / "pool"
    shutil.copytree(values["pool"], pool)
    for shard in (pool / "utterances").iterdir():
        table = pq.read_table(shard)
        nobody = pc.if_else(pc.is_null(table["speaker"]), table["speaker"], None)
        pq.write_table(table.set_column(table.column_names.index("speaker"), "speaker", nobody), shard)
    with pytest.raises(SplitError, match=r"has a speaker.*name the call or the recording instead"):
        run_loop(parse(LoopOptions, values | {"pool": str(pool)}))


def test_what_would_need_other_labels_is_refused(run_values: dict[str, Any]) -> None:
    values = {name: value for name, value in run_values.items() if name not in ("folds", "seeds")} | {"people": {}}
    options = parse(LoopOptions, values)
    assert (options.random_arm, options.full_arm, options.seeds, options.folds) == (False, False, [0], [0])
    assert parse(LoopOptions, options.model_dump(mode="json")) == options
    for name, value in (
        ("random_arm", True),
        ("full_arm", True),
        ("others", ["badge"]),
        ("source_corpora", ["emodb"]),
        ("votes", {}),
    ):
        with pytest.raises(OptionError, match=f"{name} needs labels that nobody has given"):
            parse(LoopOptions, values | {name: value})
    for name, value in (("seeds", [0, 1]), ("folds", None), ("folds", [0, 1])):
        with pytest.raises(OptionError, match=f"{name}: people label for one model at a time"):
            parse(LoopOptions, values | {name: value})
