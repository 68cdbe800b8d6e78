"""Drift and confusion of people, against hand counts and simulated people of known quality."""

from __future__ import annotations

from itertools import count
from typing import Any

import numpy as np
import pyarrow as pa
import pytest

from seral.labels.drift import coincidence_matrix, confused_pairs, drifts
from seral.labels.simulated import careful, drifting
from seral.schema import ANSWERS

CLASSES = ("anger", "joy", "neutral")
NUMBER = count(1)


def answer(utterance: str, person: str, *emotions: str, **more: Any) -> dict[str, Any]:
    number = next(NUMBER)
    row = {"id": number, "utterance_id": utterance, "person": person, "emotions": list(emotions)}
    about = {"kind": "label", "secondary": [], "final": False, "purpose": "round", "answered_at": float(number)}
    return {**about, **row, **more}


def table(*rows: dict[str, Any]) -> pa.Table:
    return pa.Table.from_pylist(list(rows), ANSWERS)


def test_who_stays_the_same_shows_no_trend_and_who_drifts_does() -> None:
    people = [careful("ada", CLASSES), careful("ben", CLASSES), careful("cem", CLASSES), drifting("dan", CLASSES)]
    rng, rows = np.random.default_rng(0), []
    for number in range(300):
        truth, name = CLASSES[rng.integers(3)], f"u{number:04d}"
        rows += [answer(name, one.name, *one.answer(name, truth, answered=number).emotions) for one in people]
    drift_of = {drift.person: drift for drift in drifts(table(*rows), CLASSES)}
    dan = drift_of.pop("dan")
    assert dan.p is not None
    assert dan.trend is not None
    assert dan.early is not None
    assert dan.late is not None
    assert dan.p < 0.001
    assert dan.trend < 0
    assert dan.late < dan.early - 0.1
    assert all(drift.p is not None and drift.p > 0.05 / len(people) for drift in drift_of.values())


def test_a_trend_is_over_time_not_over_names() -> None:
    """Somebody right about the first clips they hear and wrong about the last, whatever the clips are called."""
    order = [7, 2, 5, 0, 6, 1, 4, 3]
    rows = [answer(f"u{name}", person, "joy") for name in range(8) for person in ("ada", "ben")]
    rows += [answer(f"u{name}", "cem", "joy" if position < 4 else "anger") for position, name in enumerate(order)]
    drift = {one.person: one for one in drifts(table(*rows), CLASSES)}["cem"]
    assert (drift.compared, drift.early, drift.late) == (8, 1.0, 0.0)
    # Of 28 pairs 16 differ, all downwards; tau-b divides by sqrt(16 · 28).
    assert drift.trend == pytest.approx(-16 / np.sqrt(16 * 28))


def test_without_others_or_without_any_change_there_is_no_trend() -> None:
    assert drifts(table(answer("u1", "ada", "joy")), CLASSES) == []
    rows = [answer(f"u{name}", person, "joy") for name in range(5) for person in ("ada", "ben")]
    assert all(
        (one.early, one.late, one.trend, one.p) == (1.0, 1.0, None, None) for one in drifts(table(*rows), CLASSES)
    )


def test_confusion_counts_pairs_of_people() -> None:
    answers = table(
        answer("u1", "ada", "anger"), answer("u1", "ben", "anger"), answer("u1", "cem", "joy"),
        answer("u2", "ada", "joy"), answer("u2", "ben", "anger", "joy"),
        answer("u3", "ada", "neutral"),
        answer("u4", "ada", "neutral"), answer("u4", "ben", kind="unusable"),
    )  # fmt: skip
    together_CC = coincidence_matrix(answers, CLASSES)
    # u1: anger-anger twice (both orders), anger-joy twice each way. u2: joy with half anger and half joy, each way.
    np.testing.assert_allclose(together_CC, [[2, 2.5, 0], [2.5, 1, 0], [0, 0, 0]])
    (pair,) = confused_pairs(together_CC, CLASSES)
    assert (pair.one, pair.other, pair.pairs) == ("anger", "joy", round(2.5))
    assert pair.share == pytest.approx(5 / 8)


def test_the_pair_that_is_hardest_to_tell_apart_comes_first() -> None:
    together_CC = np.array([[10, 2, 0], [2, 4, 6], [0, 6, 4.0]])
    pairs = confused_pairs(together_CC, CLASSES)
    assert [(pair.one, pair.other, pair.pairs) for pair in pairs] == [("joy", "neutral", 6), ("anger", "joy", 2)]
    assert pairs[0].share == pytest.approx(12 / 20)
