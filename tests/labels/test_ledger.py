"""The ledger: who is asked, who said what, and that nothing of it is lost or overwritten."""

from __future__ import annotations

import sqlite3
import threading
from collections import Counter
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from pathlib import Path

import pytest
import sqlalchemy as sa

from seral.errors import LabelError
from seral.labels.database import PERSON
from seral.labels.ledger import Ledger
from seral.labels.records import Answer, Asked, Project, Task

PROJECT = Project(classes=("anger", "joy", "neutral"), dimensions=("arousal",))
IDS = [f"calls-{number:04d}" for number in range(6)]


@pytest.fixture
def ledger(url: str) -> Iterator[Ledger]:
    ledger = Ledger.create(url, PROJECT)
    for name in ("ada", "ben", "cem"):
        ledger.add_person(name)
    yield ledger
    ledger.close()


def answer_of(task: Task, person: str, emotion: str = "joy", **more: object) -> Answer:
    return Answer(utterance_id=task.utterance_id, person=person, emotions=(emotion,), **more)  # type: ignore[arg-type]


def answer_all(ledger: Ledger, person: str) -> list[str]:
    given_out = []
    while tasks := ledger.claim(person):
        ledger.submit(answer_of(tasks[0], person), tasks[0].question)
        given_out.append(tasks[0].utterance_id)
    return given_out


def test_clips_come_in_order_and_to_as_many_people_as_wanted(ledger: Ledger) -> None:
    assert ledger.ask("round-0", IDS, purpose="round", round=0, overlap=2) == IDS
    assert answer_all(ledger, "ada") == IDS
    assert answer_all(ledger, "ben") == IDS
    assert answer_all(ledger, "cem") == [], "two were wanted"
    (progress,) = ledger.progress()
    assert (progress.questions, progress.done, progress.answers) == (6, 6, 12)


def test_a_batch_is_asked_once(ledger: Ledger) -> None:
    ledger.ask("round-0", IDS, purpose="round")
    assert ledger.ask("round-0", IDS[:2], purpose="round") == IDS
    assert ledger.progress()[0].questions == 6


def test_the_same_clip_is_at_hand_until_it_is_answered(ledger: Ledger) -> None:
    ledger.ask("round-0", IDS, purpose="round")
    first, second = ledger.claim("ada", count=2)
    assert [task.question for task in ledger.claim("ada", count=2)] == [first.question, second.question]
    assert ledger.claim("ben")[0].utterance_id == IDS[2]
    ledger.submit(answer_of(first, "ada"), first.question)
    assert [task.utterance_id for task in ledger.claim("ada", count=2)] == [IDS[1], IDS[3]]


def test_a_lease_that_ran_out_goes_to_somebody_else_and_a_late_answer_counts(ledger: Ledger) -> None:
    ledger.ask("round-0", IDS[:1], purpose="round")
    (task,) = ledger.claim("ada", lease_s=0.0)
    (taken,) = ledger.claim("ben")
    assert taken.utterance_id == task.utterance_id
    assert ledger.claim("ada") == [], "ben has it now"
    ledger.submit(answer_of(task, "ada", "anger"), task.question)
    ledger.submit(answer_of(taken, "ben"), taken.question)
    assert ledger.answers()["person"].to_pylist() == ["ada", "ben"]
    assert ledger.progress()[0].done == 1


def test_a_late_answer_needs_nobody_else(ledger: Ledger) -> None:
    ledger.ask("round-0", IDS[:1], purpose="round")
    (task,) = ledger.claim("ada", lease_s=0.0)
    ledger.let_go("ada")
    ledger.submit(answer_of(task, "ada"), task.question)
    assert ledger.claim("ben") == []
    assert ledger.progress()[0].done == 1


def test_who_comes_back_gets_what_they_left(ledger: Ledger) -> None:
    ledger.ask("round-0", IDS, purpose="round")
    ledger.claim("ada", lease_s=0.0)
    ledger.let_go("ada")
    assert ledger.claim("ada")[0].utterance_id == IDS[0]
    assert ledger.claim("ben")[0].utterance_id == IDS[1]


def test_who_passes_is_replaced_but_not_for_ever(ledger: Ledger) -> None:
    ledger.ask("round-0", IDS[:1], purpose="round", max_skips=1)
    (task,) = ledger.claim("ada")
    ledger.submit(Answer(utterance_id=IDS[0], person="ada", kind="skipped"), task.question)
    assert ledger.progress()[0].done == 0
    (task,) = ledger.claim("ben")
    ledger.submit(Answer(utterance_id=IDS[0], person="ben", kind="other-language"), task.question)
    assert ledger.claim("cem") == []
    assert ledger.progress()[0].done == 1


def test_a_correction_supersedes_and_both_stay(ledger: Ledger) -> None:
    ledger.ask("round-0", IDS[:1], purpose="round")
    (task,) = ledger.claim("ada")
    first = ledger.submit(Answer(utterance_id=IDS[0], person="ada", kind="skipped"), task.question)
    second = ledger.submit(answer_of(task, "ada", "neutral"), task.question)
    assert ledger.answers()["emotions"].to_pylist() == [["neutral"]]
    assert ledger.answers(history=True)["supersedes"].to_pylist() == [None, first]
    assert ledger.answers()["id"].to_pylist() == [second]
    assert ledger.claim("ben") == [], "the place of the one who passed is filled"


def test_the_same_answer_sent_again_is_written_once(ledger: Ledger) -> None:
    ledger.ask("round-0", IDS[:1], purpose="round")
    (task,) = ledger.claim("ada")
    answer = answer_of(task, "ada", key="press-1")
    assert ledger.submit(answer, task.question) == ledger.submit(answer, task.question)
    assert ledger.answers(history=True).num_rows == 1
    with pytest.raises(LabelError, match="press-1 belongs to another"):
        ledger.submit(Answer(utterance_id=IDS[0], person="ben", emotions=("joy",), key="press-1"))


def test_nobody_answers_what_they_were_not_given(ledger: Ledger) -> None:
    ledger.ask("round-0", IDS, purpose="round")
    (task,) = ledger.claim("ada")
    assert ledger.may_hear("ada", IDS[0])
    assert not ledger.may_hear("ben", IDS[0])
    with pytest.raises(LabelError, match=f"ben was not asked about {IDS[0]}"):
        ledger.submit(answer_of(task, "ben"), task.question)
    with pytest.raises(LabelError, match=f"not about {IDS[3]}"):
        ledger.submit(Answer(utterance_id=IDS[3], person="ada", emotions=("joy",)), task.question)


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"emotions": ("rage",)}, "unknown class 'rage'"),
        ({"emotions": ("joy",), "secondary": ("joy",)}, "stands twice"),
        ({"emotions": ("joy",), "arousal": 7.0}, "arousal is 7, outside 1 to 5"),
        ({"emotions": ("joy",), "valence": 2.0}, "nobody asked for valence"),
        ({}, "says nothing"),
        ({"kind": "skipped", "emotions": ("joy",)}, "and yet"),
        ({"kind": "bored"}, "unknown kind"),
        ({"emotions": ("joy",), "confidence": 1.5}, "confidence"),
        ({"emotions": ("joy",), "seconds": float("nan")}, "seconds"),
        ({"emotions": ("joy",), "comment": "\0"}, "comment has a character that is no text"),
        ({"emotions": ("joy",), "comment": "\ud83d"}, "comment has a character that is no text"),
        ({"emotions": ("joy",), "key": ""}, "key has 0 characters"),
        ({"emotions": ("joy",), "tool": "x" * 41}, "tool has 41 characters"),
    ],
)
def test_what_is_no_answer_is_refused_and_nothing_written(
    ledger: Ledger, fields: dict[str, object], message: str
) -> None:
    good = Answer(utterance_id=IDS[1], person="ada", emotions=("joy",))
    bad = Answer(utterance_id=IDS[0], person="ada", **fields)  # type: ignore[arg-type]
    with pytest.raises(LabelError, match=message):
        ledger.record([good, bad])
    assert ledger.answers().num_rows == 0


def test_answers_from_elsewhere_fill_the_places_of_their_people(ledger: Ledger) -> None:
    ledger.ask("round-0", IDS[:2], purpose="round", round=3, overlap=2)
    answers = [Answer(utterance_id=IDS[0], person=name, emotions=("joy",), key=name) for name in ("dee", "eva")]
    assert ledger.record(answers) == 2
    assert ledger.record(answers) == 0, "imported twice, there once"
    assert ledger.progress()[0].done == 1
    assert ledger.answers()["batch"].to_pylist() == ["round-0"] * 2
    assert ledger.claim("ada")[0].utterance_id == IDS[1]


def test_answers_bring_the_batches_that_asked_them(ledger: Ledger) -> None:
    ledger.ask("round-0", IDS[:1], purpose="round", overlap=2)
    answers = [Answer(utterance_id=name, person="ada", emotions=("joy",), key=name) for name in IDS[:3]]
    asked: list[Asked | None] = [("round-0", "round"), ("evaluation", "evaluation"), None]
    assert ledger.record(answers, asked) == 3
    assert ledger.record(answers, asked) == 0
    table = ledger.answers()
    assert table["batch"].to_pylist() == ["round-0", "evaluation", None]
    assert table["purpose"].to_pylist() == ["round", "evaluation", None]
    assert [(batch.batch, batch.closed, batch.done) for batch in ledger.progress()] == [
        ("round-0", False, 0),
        ("evaluation", True, 1),
    ]
    assert [task.batch for task in ledger.claim("ben", count=3)] == ["round-0"], "nobody is asked for what came along"
    other = Answer(utterance_id=IDS[3], person="ada", emotions=("joy",))
    with pytest.raises(LabelError, match="'round-0' is here for the purpose 'round', not 'check'"):
        ledger.record([other], [("round-0", "check")])


def test_checks_come_to_everybody_every_so_often(ledger: Ledger) -> None:
    ledger.ask("checks", ["check-1", "check-2"], purpose="check")
    ledger.ask("round-0", IDS, purpose="round", overlap=2)
    for person in ("ada", "ben"):
        given_out = []
        while tasks := ledger.claim(person, check_every=2):
            ledger.submit(answer_of(tasks[0], person), tasks[0].question)
            given_out.append(tasks[0].utterance_id)
        assert given_out == [*IDS[:2], "check-1", *IDS[2:4], "check-2", *IDS[4:]]


def test_a_batch_that_is_shut_asks_nobody_and_still_takes_answers(ledger: Ledger) -> None:
    ledger.ask("round-0", IDS, purpose="round")
    (task,) = ledger.claim("ada")
    ledger.shut("round-0")
    assert ledger.claim("ben") == []
    ledger.submit(answer_of(task, "ada"), task.question)
    assert ledger.answers().num_rows == 1


def test_a_final_answer_stands_beside_the_others(ledger: Ledger) -> None:
    ledger.ask("round-0", IDS[:1], purpose="round")
    (task,) = ledger.claim("ada")
    ledger.submit(answer_of(task, "ada"), task.question)
    ledger.submit(answer_of(task, "ada", "anger", final=True))
    assert ledger.answers()["final"].to_pylist() == [False, True]
    ledger.submit(answer_of(task, "ada", "neutral", final=True))
    assert ledger.answers()["emotions"].to_pylist() == [["joy"], ["neutral"]]


def test_a_second_look_is_for_people_who_have_not_answered_yet(ledger: Ledger) -> None:
    ledger.ask("round-0", IDS[:2], purpose="round")
    assert answer_all(ledger, "ada") == IDS[:2]
    ledger.ask("relabel-0", IDS[:1], purpose="relabel", overlap=2)
    assert ledger.claim("ada") == [], "ben and cem are enough"
    assert answer_all(ledger, "ben") == answer_all(ledger, "cem") == IDS[:1]
    ledger.ask("relabel-1", IDS[:2], purpose="relabel", overlap=1)
    assert answer_all(ledger, "ben") == IDS[:2], "nobody is left who has not heard the first one"
    assert ledger.progress()[2].done == 2


def test_a_second_look_does_not_wait_for_people_who_cannot_come(ledger: Ledger) -> None:
    ledger.ask("round-0", IDS[:1], purpose="round")
    assert answer_all(ledger, "ada") == IDS[:1]
    ledger.ask("relabel-0", IDS[:1], purpose="relabel", overlap=2)
    ledger.revoke("cem")
    (task,) = ledger.claim("ada")
    assert (task.purpose, task.utterance_id) == ("relabel", IDS[0])


def test_second_looks_at_several_clips_do_not_count_for_each_other(ledger: Ledger) -> None:
    ledger.ask("round-0", IDS[:2], purpose="round")
    assert answer_all(ledger, "ada") == IDS[:2]
    ledger.revoke("cem")
    ledger.ask("relabel-0", IDS[:2], purpose="relabel")
    (task,) = ledger.claim("ben")
    ledger.submit(answer_of(task, "ben"), task.question)
    assert ledger.claim("ada") == [], "ben has not heard the other one either"
    assert answer_all(ledger, "ben") == IDS[1:2]


def test_links_open_and_are_revoked(ledger: Ledger, tmp_path: Path) -> None:
    token = ledger.add_person("ada", "lead")
    assert ledger.person_of(token) == ("ada", "lead")
    assert ledger.person_of(token[:-1]) is None
    again = ledger.add_person("ada", "lead")
    assert ledger.person_of(token) is None, "a new link ends the old one"
    ledger.revoke("ada")
    assert ledger.person_of(again) is None
    with pytest.raises(LabelError, match="unknown person 'zoe'"):
        ledger.revoke("zoe")


@pytest.mark.parametrize(
    ("name", "reason"),
    [
        ("a\0da", r"character 2, U\+0000 \(a control character\)"),
        ("ada\x1b[2J", r"U\+001B"),
        ("\u202eada", r"U\+202E \(right-to-left override\), is one that nobody sees"),
        ("a\u2066da", r"U\+2066"),
        ("ada\u200f", r"U\+200F"),
        ("ada\u200b", r"U\+200B"),
        ("ada\u200d", r"U\+200D"),
        ("a\ud800", r"U\+D800"),
        ("a\u2028b", r"U\+2028"),
        ("a/b", "is no name"),
        ("ada\u00a0", "is no name"),
        ("", "is no name"),
        ("x" * 100, "is no name"),
    ],
)
def test_what_nobody_sees_is_in_no_name(ledger: Ledger, name: str, reason: str) -> None:
    before = ledger.people()
    with pytest.raises(LabelError, match=reason):
        ledger.add_person(name)
    with pytest.raises(LabelError, match=r"no name|no text"):
        ledger.record([Answer(utterance_id=IDS[0], person=name, emotions=("joy",))])
    assert ledger.people() == before


def test_names_that_look_alike_are_alike(ledger: Ledger) -> None:
    decomposed, composed = "zoe\u0308", "zo\u00eb"
    token = ledger.add_person(decomposed)
    assert ledger.person_of(token) == (composed, "annotator")
    ledger.record([Answer(utterance_id=IDS[0], person=decomposed, emotions=("joy",))])
    ledger.add_person("da\u00a0silva")
    ledger.add_person("\u0645\u06cc\u200c\u0646")  # a joiner that is spelling
    assert [row.name for row in ledger.people() if row.name not in ("ada", "ben", "cem")] == [
        "da silva",
        composed,
        "\u0645\u06cc\u200c\u0646",
    ]
    assert ledger.answers()["person"].to_pylist() == [composed]
    ledger.revoke(decomposed)
    assert ledger.person_of(token) is None


def test_people_of_an_older_ledger_go_on_under_their_names(ledger: Ledger) -> None:
    with ledger.database.write() as connection:
        connection.execute(sa.insert(PERSON).values(name="zoe\u0308", role="annotator", created_at=0.0))
    ledger.record([Answer(utterance_id=IDS[0], person="zoe\u0308", emotions=("joy",))])
    ledger.ask("round-0", IDS, purpose="round")
    (task,) = ledger.claim("zoe\u0308")
    ledger.submit(answer_of(task, "zoe\u0308"), task.question)
    assert set(ledger.answers()["person"].to_pylist()) == {"zoe\u0308"}


def test_erased_utterances_leave_nothing(ledger: Ledger) -> None:
    ledger.ask("round-0", IDS[:2], purpose="round")
    (task,) = ledger.claim("ada")
    ledger.submit(answer_of(task, "ada"), task.question)
    ledger.submit(answer_of(task, "ada", "anger"), task.question)
    assert ledger.erase([IDS[0]]) == {"slot": 1, "answer": 2, "question": 1, "event": 0}
    assert ledger.asked("round-0") == IDS[1:2]
    assert ledger.answers(history=True).num_rows == 0


def test_a_ledger_of_other_classes_is_refused(ledger: Ledger, url: str) -> None:
    with pytest.raises(LabelError, match="asks for"):
        Ledger.create(url, Project(classes=("anger", "sadness")))
    same = Ledger.create(url, PROJECT)
    assert same.project == PROJECT
    same.close()


def test_what_is_no_ledger_is_named(tmp_path: Path) -> None:
    with pytest.raises(LabelError, match="there is no ledger"):
        Ledger(str(tmp_path / "none.sqlite"))
    (tmp_path / "text.sqlite").write_text("no database at all " * 100)
    with pytest.raises(LabelError, match="not a database"):
        Ledger(str(tmp_path / "text.sqlite"))


ODD = [
    "a b",
    "Überraschung",
    "it's",
    'a"b',
    "a#b",
    "a?b=c",
    "a?b=d",
    "100%",
    "%41",
    "A",
    "a&b",
    "a+b",
    "a\nb",
    "x" * 240,
]


def test_ledgers_under_odd_names_are_where_they_are_said_to_be(tmp_path: Path) -> None:
    """Each is a file of its own, in the folder of that name."""
    for number, name in enumerate(ODD):
        file = tmp_path / name / "labels.sqlite"
        ledger = Ledger.create(str(file), PROJECT)
        ledger.add_person(f"person {number}")
        ledger.close()
        assert file.is_file()
    for number, name in enumerate(ODD):
        with closing(Ledger(str(tmp_path / name / "labels.sqlite"))) as ledger:
            assert [person.name for person in ledger.people()] == [f"person {number}"]
    assert sorted(path.name for path in tmp_path.iterdir()) == sorted(ODD)


def test_several_begin_one_ledger_at_once(url: str) -> None:
    together = threading.Barrier(8)

    def begin(number: int) -> None:
        together.wait()
        with closing(Ledger.create(url, PROJECT)) as ledger:
            ledger.add_person(f"person {number}")

    with ThreadPoolExecutor(8) as pool:
        list(pool.map(begin, range(8)))
    with closing(Ledger(url)) as ledger:
        assert len(ledger.people()) == 8


def test_one_waits_for_whoever_writes_to_a_new_file(tmp_path: Path) -> None:
    """SQLite's own waiting leaves out the change of a file's journal, where two would wait for each other."""
    file = str(tmp_path / "labels.sqlite")
    with closing(sqlite3.connect(file, isolation_level=None, check_same_thread=False)) as other:
        other.execute("BEGIN IMMEDIATE")
        timer = threading.Timer(0.5, other.execute, ["COMMIT"])
        timer.start()
        with closing(Ledger.create(file, PROJECT)) as ledger:
            assert not other.in_transaction
            assert ledger.people() == []
        timer.join()


def test_a_file_keeps_what_was_committed(tmp_path: Path) -> None:
    ledger = Ledger.create(str(tmp_path / "labels.sqlite"), PROJECT)
    with sqlite3.connect(tmp_path / "labels.sqlite") as plain:
        assert plain.execute("PRAGMA journal_mode").fetchone() == ("wal",)
    ledger.close()


def test_many_at_once_lose_nothing_and_double_nothing(url: str) -> None:
    """Twelve people, each with connections of their own, three places at each of 40 clips."""
    ledger = Ledger.create(url, PROJECT)
    ids = [f"calls-{number:04d}" for number in range(40)]
    ledger.ask("round-0", ids, purpose="round", overlap=3)
    people = [f"person {number}" for number in range(12)]
    for name in people:
        ledger.add_person(name)
    given_out: dict[str, list[str]] = {}

    def work(name: str) -> None:
        own = Ledger(url)
        given_out[name] = answer_all(own, name)
        own.close()

    threads = [threading.Thread(target=work, args=(name,)) for name in people]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert all(len(set(mine)) == len(mine) for mine in given_out.values())
    assert Counter(name for mine in given_out.values() for name in mine) == dict.fromkeys(ids, 3)
    assert ledger.answers().num_rows == ledger.answers(history=True).num_rows == 120
    ledger.close()


def test_standing_counts_what_a_person_has_answered_and_what_is_left_for_them(ledger: Ledger) -> None:
    ledger.ask("round-0", IDS, purpose="round", overlap=2)
    first, second = ledger.claim("ada", count=2)
    ledger.submit(answer_of(first, "ada"), first.question)
    ledger.submit(answer_of(first, "ada", "anger"), first.question)
    assert (ledger.standing("ada").answered, ledger.standing("ada").left) == (1, 5)
    assert (ledger.standing("ben").answered, ledger.standing("ben").left) == (0, 6)
    for person in ("ben", "cem"):
        answer_all(ledger, person)
    assert ledger.standing("ada").left == 1, "only the clip at hand: both others have said all that was wanted"
    ledger.submit(answer_of(second, "ada"), second.question)
    assert (ledger.standing("ada").answered, ledger.standing("ada").left) == (2, 0)


def test_latest_are_the_answers_that_count_with_their_questions_and_rounds(ledger: Ledger) -> None:
    ledger.ask("round-4", IDS, purpose="round", round=4)
    first, second = ledger.claim("ada", count=2)
    for task, emotion in ((first, "joy"), (second, "joy"), (first, "anger")):
        ledger.submit(answer_of(task, "ada", emotion), task.question)
    latest = ledger.latest("ada", 5)
    assert [(question, answer.emotions) for question, answer in latest] == [
        (first.question, ("anger",)),
        (second.question, ("joy",)),
    ]
    assert {answer.round for _, answer in latest} == {4}
    assert ledger.latest("ben", 5) == []
