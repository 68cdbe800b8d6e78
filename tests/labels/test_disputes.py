"""What people differ about, and what a lead has settled of it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from seral.labels.disputes import find_disputes
from seral.labels.ledger import Ledger
from seral.labels.records import Answer, Project

PROJECT = Project(classes=("anger", "joy"), dimensions=("valence", "arousal"))


@pytest.fixture
def ledger(tmp_path: Path) -> Ledger:
    """Two people: ratings of arousal ever further apart, and at the last clip they differ about the emotion too."""
    ledger = Ledger.create(str(tmp_path / "labels.sqlite"), PROJECT)
    for name, emotions, arousal in (
        ("u1", "joy joy", (2, 4)),
        ("u2", "joy joy", (1.5, 4)),
        ("u3", "joy anger", (1, 5)),
    ):
        for person, emotion, rating in zip(("ada", "ben"), emotions.split(), arousal, strict=True):
            rated = {"valence": 3.0, "arousal": float(rating)}
            ledger.record([Answer(utterance_id=name, person=person, emotions=(emotion,), **rated)])
    return ledger


def disputes(ledger: Ledger, spread: float = 0.5) -> dict[str, dict[str, Any]]:
    return {clip["utterance_id"]: clip for clip in find_disputes(ledger.answers(), ledger.project, spread)}


def decide(ledger: Ledger, name: str, **decision: Any) -> None:
    ledger.record([Answer(utterance_id=name, person="lea", final=True, **decision)])


def test_ratings_are_disputed_beyond_a_share_of_the_scale(ledger: Ledger) -> None:
    disputed = disputes(ledger)
    assert {name: clip["about"] for name, clip in disputed.items()} == {"u3": ["emotion", "arousal"], "u2": ["arousal"]}
    assert list(disputed) == ["u3", "u2"], "the least agreed upon first"
    assert [clip["agreement"] for clip in disputed.values()] == [0.0, pytest.approx(1 - 2.5 / 4)]
    assert [answer["arousal"] for answer in disputed["u2"]["answers"]] == [1.5, 4.0]
    assert disputed["u2"]["so_far"] == {"emotions": ["joy"], "valence": 3.0, "arousal": pytest.approx(2.75)}
    assert disputed["u3"]["so_far"]["emotions"] == []
    assert set(disputes(ledger, 0.49)) == {"u1", "u2", "u3"}
    assert disputes(ledger, 1.0)["u3"]["about"] == ["emotion"]


def test_what_a_lead_says_is_settled_and_what_they_leave_open_is_not(ledger: Ledger) -> None:
    decide(ledger, "u3", emotions=("anger",))
    left = disputes(ledger)["u3"]
    assert (left["about"], left["so_far"]["emotions"]) == (["arousal"], ["anger"])
    decide(ledger, "u3", arousal=4.5)
    assert disputes(ledger)["u3"]["about"] == ["emotion"], "the newest decision is the one that counts"
    decide(ledger, "u3", emotions=("anger",), arousal=4.5)
    decide(ledger, "u2", kind="unusable")
    assert disputes(ledger) == {}
