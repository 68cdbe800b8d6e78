"""People in the place of an oracle: what they are asked, when the loop goes on, and what their answers are worth."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, closing
from pathlib import Path
from typing import Any

import pytest
from pydantic import ValidationError

from seral.errors import AwaitingLabels, LabelError, OptionError
from seral.labels.ledger import Ledger
from seral.labels.options import PeopleOptions
from seral.labels.people import People, draw_evaluation, ledger_url
from seral.labels.records import Answer, Kind
from seral.pool.ids import Ids
from seral.pool.splits import Fold

CLASSES = ("anger", "neutral")
IDS = [f"calls-{number}" for number in range(4)]
FOLD = Fold(
    name="x",
    train=Ids(["t"]),
    dev=Ids(f"dev-{n:03d}" for n in range(200)),
    test=Ids(f"test-{n}" for n in range(5)),
)


OpenPeople = Callable[..., AbstractContextManager[People]]


@pytest.fixture
def people(tmp_path: Path, url: str) -> OpenPeople:
    """`with people(overlap=2) as asked:` the people of a run."""

    def of_run(**options: Any) -> AbstractContextManager[People]:
        return closing(People(str(tmp_path), PeopleOptions(ledger=url, **options), CLASSES))

    return of_run


@pytest.fixture
def ledger(people: OpenPeople, url: str) -> Iterator[Ledger]:
    """The ledger of the run, and three people."""
    with people():
        pass
    ledger = Ledger(url)
    for name in ("ada", "ben", "cem"):
        ledger.add_person(name)
    yield ledger
    ledger.close()


def say(ledger: Ledger, person: str, *emotions: str | None) -> None:
    """Answer the next clips: a class, a kind of answer that is none, or None to leave the clip open."""
    for task, word in zip(ledger.claim(person, count=len(emotions)), emotions, strict=True):
        if word in CLASSES:
            answer = Answer(utterance_id=task.utterance_id, person=person, emotions=(word,))
        elif word is not None:
            kind: Kind = "unusable" if word == "unusable" else "skipped"
            answer = Answer(utterance_id=task.utterance_id, person=person, kind=kind)
        if word is not None:
            ledger.submit(answer, task.question)
    ledger.let_go(person)


def test_clips_to_evaluate_on_are_drawn_alike_from_both_sides() -> None:
    drawn = draw_evaluation(FOLD, 20, seed=0)
    assert drawn == draw_evaluation(FOLD, 20, seed=0) != draw_evaluation(FOLD, 20, seed=1)
    assert Counter(name.split("-")[0] for name in drawn) == {"dev": 10, "test": 5}, "test has no more"
    assert Counter(name.split("-")[0] for name in drawn[:6]) == {"dev": 3, "test": 3}
    often = Counter(name for seed in range(400) for name in draw_evaluation(FOLD, 20, seed) if name.startswith("dev"))
    assert set(often) == set(FOLD.dev)
    assert max(often.values()) < 20 + 6 * 20**0.5  # 20 times expected


def test_the_evaluation_set_is_settled_once(people: OpenPeople, ledger: Ledger) -> None:
    with people(evaluation=4) as asked:
        asked.ask_evaluation(FOLD, seed=0)
        with pytest.raises(AwaitingLabels, match="0 of 4 clips of evaluation are labelled"):
            asked.evaluated(FOLD)
        dev, _, other_dev, other_test = ids = ledger.asked("evaluation")
        say(ledger, "ada", "anger", "unusable", "neutral", "neutral")
        fold = asked.evaluated(FOLD)
        assert (set(fold.dev), fold.test) == ({dev, other_dev}, (other_test,))
        assert asked.emotions([dev, other_test]) == ["anger", "neutral"]
        ledger.record([Answer(utterance_id=dev, person="lea", emotions=("neutral",), final=True)])
        assert asked.evaluated(FOLD) == fold
        assert asked.emotions([dev]) == ["anger"], "rounds are compared on the same labels"
        with pytest.raises(LabelError, match=f"no label for 1 clips to evaluate on, e.g. {ids[1]}"):
            asked.emotions(ids)


def test_without_a_label_on_one_side_there_is_nothing_to_judge_by(people: OpenPeople, ledger: Ledger) -> None:
    with people(evaluation=2) as asked:
        asked.ask_evaluation(FOLD, seed=0)
        say(ledger, "ada", "anger", "unusable")
        with pytest.raises(LabelError, match=r"no clip of the test speakers a label: raise people\.evaluation"):
            asked.evaluated(FOLD)


def test_a_batch_is_asked_once_and_goes_on_when_all_is_said(people: OpenPeople, ledger: Ledger) -> None:
    with people() as asked:
        assert asked.asked("a/round-0000") == []
        with pytest.raises(AwaitingLabels, match="0 of 4 clips of a/round-0000 are labelled"):
            asked.ask("a/round-0000", IDS, [], 0)
        assert asked.asked("a/round-0000") == IDS
        say(ledger, "ada", "anger", "neutral", "anger")
        with pytest.raises(AwaitingLabels, match="3 of 4 clips"):
            asked.check_rounds()
        say(ledger, "ben", "anger")
        asked.check_rounds()
        assert asked.ask("a/round-0000", ["calls-9"], [], 0) == IDS, "the ledger says what was asked"


def test_enough_may_be_less_than_all_and_the_rest_is_asked_no_more(people: OpenPeople, ledger: Ledger) -> None:
    with people(enough=0.75) as asked:
        with pytest.raises(AwaitingLabels):
            asked.ask("a/round-0000", IDS, [], 0)
        say(ledger, "ada", "anger", "neutral")
        with pytest.raises(AwaitingLabels):
            asked.ask("a/round-0000", IDS, [], 0)
        say(ledger, "ada", "anger")
        assert asked.ask("a/round-0000", IDS, [], 0) == IDS
        assert asked.labels(IDS, 0)["utterance_id"].to_pylist() == IDS[:3], "nothing is known of the last"
        assert ledger.claim("ada") == []


def test_after_the_deadline_it_goes_on_with_what_there_is(people: OpenPeople, ledger: Ledger) -> None:
    with people(deadline_h=1e-9) as asked:
        with pytest.raises(AwaitingLabels):  # with nothing there is nothing to go on with
            asked.ask("a/round-0000", IDS, [], 0)
        say(ledger, "ada", "anger")
        assert asked.ask("a/round-0000", IDS, [], 0) == IDS
        assert asked.labels(IDS, 0).num_rows == 1
        assert ledger.progress()[0].closed
    with people(deadline_h=24) as asked, pytest.raises(AwaitingLabels):
        asked.ask("a/round-0001", IDS, [], 1)


def test_what_answers_are_worth(people: OpenPeople, ledger: Ledger) -> None:
    with people(overlap=2, max_skips=0, consensus="soft") as asked:
        with pytest.raises(AwaitingLabels):
            asked.ask("a/round-0000", IDS, [], 0)
        say(ledger, "ada", "anger", "anger", "unusable", "skipped")
        say(ledger, "ben", "anger", "neutral", "unusable", "skipped")
        asked.ask("a/round-0000", IDS, [], 0)
        rows = asked.labels([*IDS, "calls-9"], 0).to_pylist()
        assert [row["answer"] for row in rows] == ["label", "label", "unusable", "skipped"]
        assert [row["emotion"] for row in rows] == ["anger", None, None, None]
        assert [row["probability"] for row in rows] == [[1, 0], [0.5, 0.5], None, None], "a tie is learnt by its shares"
        with people(overlap=2, consensus="soft", targets="hard") as winners:
            assert winners.labels(IDS[1:2], 0)["answer"].to_pylist() == ["disputed"]
        ledger.record([Answer(utterance_id=IDS[1], person="cem", emotions=("anger",), secondary=("neutral",))])
        decided = asked.labels(IDS[1:2], 1).to_pylist()[0]
        assert (decided["answer"], decided["emotion"], decided["round"]) == ("label", "anger", 1)
        assert decided["probability"] == pytest.approx([(1 + 2 / 3) / 3, (1 + 1 / 3) / 3])
    with people(overlap=2, consensus="soft", targets="hard") as asked:
        assert asked.labels(IDS[1:2], 1)["probability"].to_pylist() == [None]


def test_shares_are_learnt_where_several_people_hear_a_clip_and_nobody_chose(
    people: OpenPeople, ledger: Ledger
) -> None:
    with people(overlap=3) as asked, pytest.raises(AwaitingLabels):
        asked.ask("a/round-0000", IDS[:1], [], 0)
    for person, word in (("ada", "anger"), ("ben", "neutral"), ("cem", "neutral")):
        say(ledger, person, word)
    for options, shares in (({"overlap": 3}, [1 / 3, 2 / 3]), ({"overlap": 2}, [0, 1])):
        with people(**options) as asked:
            (row,) = asked.labels(IDS[:1], 0).to_pylist()
            assert row["emotion"] == "neutral"
            assert row["probability"] == pytest.approx(shares)


def test_votes_are_of_everybody_who_names_one_class_until_a_lead_decides(people: OpenPeople, ledger: Ledger) -> None:
    with people(overlap=2, consensus="crowd") as asked:
        with pytest.raises(AwaitingLabels):
            asked.ask("a/round-0000", IDS, [], 0)
        say(ledger, "ada", "anger", "anger", "unusable", "anger")
        say(ledger, "ben", "neutral", "anger", "neutral", "skipped")
        ledger.record([Answer(utterance_id=IDS[1], person="lea", emotions=("neutral",), final=True)])
        votes_M = asked.votes([*IDS, "elsewhere"])
        assert votes_M is not None
        assert votes_M.tolist() == [(("ada", 0), ("ben", 1)), (), (("ben", 1),), (("ada", 0),), ()]
        assert asked.labels(IDS[:1], 0)["probability"].to_pylist() == [[0.5, 0.5]], "training weighs them"
    with people(overlap=2, consensus="soft") as asked:
        assert asked.votes(IDS) is None
    with pytest.raises(ValidationError, match="consensus=crowd learns shares"):
        PeopleOptions(consensus="crowd", targets="hard")


def test_ratings_are_the_mean_of_those_who_gave_all_of_them(tmp_path: Path, url: str) -> None:
    options = PeopleOptions(ledger=url, overlap=2, evaluation=2)
    with closing(People(str(tmp_path), options, (), ("valence", "arousal"))) as asked, closing(Ledger(url)) as ledger:
        for name in ("ada", "ben"):
            ledger.add_person(name)
        asked.ask_evaluation(FOLD, seed=0)
        with pytest.raises(AwaitingLabels):
            asked.ask("a/round-0000", IDS, [], 0)
        unrated = {"kind": "unusable"}
        both = [{"valence": 1.0, "arousal": 5.0}, {"valence": 2.0, "arousal": 4.0}]
        answers_of = {
            "ada": [both[0], both[1], both[0], {"valence": 3.0}, unrated, both[0]],
            "ben": [both[1], both[1], both[1], {"valence": 2.0}, unrated, both[1]],
        }
        for person, values in answers_of.items():
            for task, value in zip(ledger.claim(person, count=6), values, strict=True):
                ledger.submit(Answer(utterance_id=task.utterance_id, person=person, **value), task.question)
        fold = asked.evaluated(FOLD)
        assert asked.ratings([*fold.dev, *fold.test]).tolist() == [[1.5, 4.5], [2, 4]]
        assert asked.emotions([*fold.dev, *fold.test]) == [None, None]
        rows = asked.labels(IDS, 0).to_pylist()
        assert [row["answer"] for row in rows] == ["label", "disputed", "unusable", "label"]
        assert [(row["valence"], row["arousal"]) for row in rows] == [
            (1.5, 4.5),
            (None, None),
            (None, None),
            (1.5, 4.5),
        ]
        assert {row["emotion"] for row in rows} == {None}


def test_a_second_look_is_for_another_person_and_all_answers_count(people: OpenPeople, ledger: Ledger) -> None:
    with people(overlap=2, consensus="soft") as asked:
        with pytest.raises(AwaitingLabels):
            asked.ask("a/round-0000", IDS[:2], [], 0)
        for person in ("ada", "ben"):
            say(ledger, person, "anger", "anger")
        ledger.record([Answer(utterance_id=IDS[1], person="cem", emotions=("anger",))])
        asked.ask("a/round-0000", IDS[:2], [], 0)
        with pytest.raises(AwaitingLabels, match=r"0 of 1 clips of a/round-0001.relabel"):
            asked.ask("a/round-0001", IDS[2:3], IDS[:2], 1)
        assert ledger.asked("a/round-0001.relabel") == IDS[:1], "everybody has heard the other"
        say(ledger, "ada", "neutral")
        say(ledger, "ben", "neutral")
        say(ledger, "cem", "neutral")
        assert asked.asked("a/round-0001") == [IDS[2], IDS[0]]
        assert asked.ask("a/round-0001", IDS[2:3], IDS[:2], 1) == [IDS[2], IDS[0]]
        assert asked.labels([IDS[0]], 1)["probability"].to_pylist()[0] == pytest.approx([2 / 3, 1 / 3])


def test_a_team_smaller_than_the_overlap_is_told_so(people: OpenPeople, ledger: Ledger) -> None:
    with people(overlap=4) as asked, pytest.raises(AwaitingLabels, match="3 people, and 4 are to hear each"):
        asked.ask("a/round-0000", IDS, [], 0)


def test_a_database_file_is_beside_the_run_or_where_it_is_said_to_be(tmp_path: Path) -> None:
    assert ledger_url(str(tmp_path), PeopleOptions()) == str(tmp_path / "labels.sqlite")
    url = "postgresql+psycopg://server/labels"
    assert ledger_url("s3://bucket/run", PeopleOptions(ledger=url)) == url
    with pytest.raises(OptionError, match=r"name a database server in people\.ledger"):
        ledger_url("s3://bucket/run", PeopleOptions())
