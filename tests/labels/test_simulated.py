"""Simulated people: as good as they say they are, the same every time, and on the path that real people take."""

from __future__ import annotations

from collections import Counter

import numpy as np
import pytest

from seral.errors import LabelError
from seral.labels.ledger import Ledger
from seral.labels.records import Project
from seral.labels.simulated import PERSONALITIES, Person, answer_all, careful, drifting, even, hasty, skipping

CLASSES = ("anger", "happiness", "neutral", "sadness")
IDS = [f"calls-{number:05d}" for number in range(4000)]
TRUTH = {name: CLASSES[number % 4] for number, name in enumerate(IDS)}


@pytest.mark.parametrize("personality", PERSONALITIES)
def test_a_person_errs_as_often_and_in_the_way_that_is_known(personality: str) -> None:
    person = PERSONALITIES[personality]("ada", CLASSES)
    answers = [person.answer(name, TRUTH[name], seed=1) for name in IDS]
    count_CC = np.zeros((4, 4))
    for answer in answers:
        if answer.kind == "label":
            count_CC[CLASSES.index(TRUTH[answer.utterance_id]), CLASSES.index(answer.emotions[0])] += 1
    # 1000 clips a class: five standard errors of a share.
    np.testing.assert_allclose(count_CC / count_CC.sum(1, keepdims=True), person.confusion_CC, atol=0.09)
    assert np.mean([answer.kind == "skipped" for answer in answers]) == pytest.approx(person.skips, abs=0.04)
    noise = Counter(person.answer(name, None, seed=1).kind for name in IDS)
    assert noise["label"] / len(IDS) == pytest.approx((1 - person.skips) * person.misses_noise, abs=0.04)


def test_an_answer_depends_on_seed_person_and_clip_alone() -> None:
    ada, ben = careful("ada", CLASSES), careful("ben", CLASSES)

    def answers(person: Person, seed: int) -> list[tuple[str, ...]]:
        return [person.answer(name, "anger", seed=seed).emotions for name in IDS[:300]]

    assert answers(ada, 0) == answers(ada, 0)
    assert answers(ada, 0) != answers(ada, 1)
    assert answers(ada, 0) != answers(ben, 0)


def test_who_drifts_gets_worse_with_every_clip() -> None:
    person = drifting("ada", CLASSES)

    def right(answers: int) -> float:
        return float(np.mean([person.answer(n, TRUTH[n], answered=answers).emotions == (TRUTH[n],) for n in IDS]))

    assert right(0) == pytest.approx(0.9, abs=0.03)
    assert right(100) == pytest.approx((0.9 + 0.25) / 2, abs=0.04)
    assert right(0) > right(30) > right(100) > right(1000)


def test_votes_of_real_raters_are_heard_in_their_shares() -> None:
    person = Person(name="ada", classes=CLASSES, confusion_CC=even(CLASSES, 1.0))
    counts = Counter(person.answer(name, {"anger": 3, "sadness": 1}).emotions[0] for name in IDS)
    assert set(counts) == {"anger", "sadness"}
    assert counts["anger"] / counts.total() == pytest.approx(0.75, abs=0.04)
    with pytest.raises(LabelError, match="unknown class 'joy'"):
        person.answer(IDS[0], {"joy": 1})
    with pytest.raises(LabelError, match="ada: a confusion has 4 rows"):
        Person(name="ada", classes=CLASSES, confusion_CC=np.eye(3))


def test_people_take_the_path_of_real_ones_until_nothing_is_left(url: str) -> None:
    ledger = Ledger.create(url, Project(classes=CLASSES))
    people = [careful("ada", CLASSES), hasty("ben", CLASSES), skipping("cem", CLASSES)]
    ledger.ask("round-0", IDS[:30], purpose="round", round=0, overlap=2)
    truth = {**TRUTH, IDS[3]: None}
    count = answer_all(ledger, people, truth)
    answers = ledger.answers().to_pylist()
    assert len(answers) == count
    per_clip = Counter(row["utterance_id"] for row in answers if row["kind"] in ("label", "unusable"))
    assert set(per_clip) <= set(IDS[:30])
    assert all(number <= 2 for number in per_clip.values())
    passed = {row["utterance_id"] for row in answers if row["kind"] == "skipped"}
    assert {name for name in IDS[:30] if per_clip[name] == 2} >= set(IDS[:30]) - passed
    assert answer_all(ledger, people, truth) == 0
    ledger.close()
