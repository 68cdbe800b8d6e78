"""Consensus: majority, soft votes, Dawid and Skene's model, and who is not asked."""

from __future__ import annotations

from itertools import count
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from seral.errors import LabelError
from seral.labels.consensus import consensus, dawid_skene
from seral.schema import ANSWERS

CLASSES = ("anger", "joy", "neutral")
NUMBER = count(1)

# Patient by patient, what five anaesthetists found, the first of them three times. Dawid and Skene 1979, table 1.
ANAESTHETISTS = """
111 1 1 1 1|333 4 3 3 4|112 2 1 2 2|222 3 1 2 1|222 3 2 2 2|222 3 3 2 2|122 2 1 1 1|333 3 4 3 3|222 2 2 2 3|232 2 2 2 3
444 4 4 4 4|222 3 3 4 3|111 1 1 1 1|222 3 2 1 2|121 1 1 1 1|111 2 1 1 1|111 1 1 1 1|111 1 1 1 1|222 2 2 2 1|222 1 3 2 2
222 2 2 2 2|222 2 2 2 1|222 3 2 2 2|221 2 2 2 2|111 1 1 1 1|111 1 1 1 1|232 2 2 2 2|111 1 1 1 1|111 1 1 1 1|112 1 1 2 1
111 1 1 1 1|333 3 2 3 3|111 1 1 1 1|222 2 2 2 2|222 3 2 3 2|433 4 3 4 3|221 2 2 3 2|232 3 2 3 3|333 3 4 3 2|111 1 1 1 1
111 1 1 1 1|121 2 1 1 1|232 2 2 2 2|121 1 1 1 1|222 2 2 2 2
"""


def answer_of(utterance: str, person: str, *emotions: str, **more: Any) -> dict[str, Any]:
    row = {"id": next(NUMBER), "utterance_id": utterance, "person": person, "emotions": list(emotions)}
    return {"kind": "label", "secondary": [], "final": False, "purpose": "round", **row, **more}


def table(*rows: dict[str, Any]) -> pa.Table:
    return pa.Table.from_pylist(list(rows), ANSWERS)


def only(*rows: dict[str, Any], method: Any = "majority", dimensions: tuple[str, ...] = ()) -> dict[str, Any]:
    (row,) = consensus(table(*rows), CLASSES, method, dimensions).to_pylist()
    return dict(row)


def test_most_votes_win_and_a_tie_has_no_winner() -> None:
    row = only(answer_of("a", "ada", "joy"), answer_of("a", "ben", "joy"), answer_of("a", "cem", "anger"))
    assert (row["emotion"], row["probability"], row["n_answers"]) == ("joy", [0, 1, 0], 3)
    assert row["agreement"] == pytest.approx(2 / 3)
    tie = only(answer_of("a", "ada", "joy"), answer_of("a", "ben", "anger"))
    assert (tie["emotion"], tie["probability"], tie["agreement"], tie["unusable"]) == (None, None, 0.5, False)
    assert only(answer_of("a", "ada", "joy"), answer_of("a", "ben", "anger"), method="soft")["probability"] == [
        0.5,
        0.5,
        0,
    ]


def test_several_emotions_share_a_vote_and_secondary_ones_count_half() -> None:
    row = only(answer_of("a", "ada", "joy", "anger", secondary=["neutral"]), method="soft")
    assert row["probability"] == pytest.approx([0.4, 0.4, 0.2])
    assert row["emotion"] is None
    row = only(answer_of("a", "ada", "joy", secondary=["anger"]), answer_of("a", "ben", "anger"), method="soft")
    assert row["probability"] == pytest.approx([2 / 3, 1 / 3, 0])
    assert row["emotion"] == "anger"


def test_an_adjudication_stands_above_the_votes() -> None:
    votes = [answer_of("a", name, "joy") for name in ("ada", "ben", "cem")]
    for method in ("majority", "soft", "dawid-skene"):
        row = only(*votes, answer_of("a", "lead", "anger", final=True), method=method)
        assert (row["emotion"], row["probability"], row["final"]) == ("anger", [1, 0, 0], True)
        assert (row["n_answers"], row["agreement"]) == (3, 0.0)
    row = only(*votes, answer_of("a", "lead", kind="unusable", final=True))
    assert (row["emotion"], row["unusable"], row["final"]) == (None, True, True)


def test_ratings_of_an_adjudication_are_final_and_what_it_leaves_open_is_what_people_said() -> None:
    rated = ("valence", "arousal")
    votes = [
        answer_of("a", "ada", "joy", valence=1.0, arousal=2.0),
        answer_of("a", "ben", "joy", valence=5.0, arousal=4.0),
    ]
    both = only(*votes, answer_of("a", "lead", "anger", final=True, valence=4.5), dimensions=rated)
    assert (both["emotion"], both["valence"], both["arousal"], both["final"]) == ("anger", 4.5, 3.0, True)
    for method in ("majority", "soft", "dawid-skene"):
        row = only(*votes, answer_of("a", "lead", final=True, valence=4.5), method=method, dimensions=rated)
        assert (row["emotion"], row["valence"], row["arousal"], row["final"]) == ("joy", 4.5, 3.0, True)


def test_unusable_is_what_more_than_half_said() -> None:
    useless = [answer_of("a", name, kind="unusable") for name in ("ada", "ben")]
    passed = [answer_of("a", name, kind="skipped") for name in ("dee", "eva", "fay")]
    row = only(*useless, *passed, answer_of("a", "cem", "joy"))
    assert (row["unusable"], row["emotion"], row["probability"], row["n_answers"]) == (True, None, None, 3)
    row = only(useless[0], *passed, answer_of("a", "cem", "joy"))
    assert (row["unusable"], row["emotion"], row["n_answers"]) == (False, "joy", 2)
    assert consensus(table(*passed), CLASSES).num_rows == 0


def test_a_second_look_replaces_what_the_same_person_said_unless_they_pass() -> None:
    before = [answer_of("a", "ada", "joy"), answer_of("a", "ben", "joy")]
    again = [
        answer_of("a", "ada", "anger", purpose="relabel"),
        answer_of("a", "ben", kind="skipped", purpose="relabel"),
    ]
    row = only(*before, *again, answer_of("a", "cem", "anger", purpose="relabel"))
    assert (row["emotion"], row["n_answers"]) == ("anger", 3)


def test_answers_to_checks_are_no_labels() -> None:
    checks = [answer_of("a", "ada", "joy", purpose="check"), answer_of("b", "ada", "joy", purpose="check")]
    row = only(*checks, answer_of("b", "ben", "anger"))
    assert (row["utterance_id"], row["emotion"]) == ("b", "anger")


def test_ratings_are_means_over_those_who_rated() -> None:
    rows = [
        answer_of("a", "ada", "joy", arousal=2.0),
        answer_of("a", "ben", arousal=5.0),
        answer_of("a", "cem", "joy", valence=1.0),
    ]
    row = only(*rows, dimensions=("arousal",))
    assert (row["emotion"], row["arousal"], row["valence"]) == ("joy", 3.5, None)


def test_a_class_that_is_not_asked_for_is_refused() -> None:
    for method in ("majority", "dawid-skene"):
        with pytest.raises(LabelError, match="unknown class 'rage'; known: anger, joy, neutral"):
            only(answer_of("a", "ada", "rage"), method=method)
    with pytest.raises(LabelError, match="unknown consensus 'mean'"):
        only(answer_of("a", "ada", "joy"), method="mean")


def test_the_anaesthetists_of_1979() -> None:
    votes = {}
    for patient, row in enumerate(ANAESTHETISTS.strip().replace("\n", "|").split("|")):
        votes[f"{patient:02d}"] = [
            answer_of("", str(person), *right_of) for person, right_of in enumerate(row.split(), start=1)
        ]
    model = dawid_skene(votes, {}, "1234")
    # Dawid and Skene 1979, table 2: how common the classes are, and how often each observer finds what there is.
    assert model.prior_C == pytest.approx([0.40, 0.42, 0.11, 0.07], abs=0.006)
    right_of = {person: np.diagonal(model.confusion[person]) for person in "1234"}
    assert right_of["1"] == pytest.approx([0.89, 0.88, 0.66, 0.44], abs=0.006)
    assert right_of["2"] == pytest.approx([0.83, 0.63, 1.00, 1.00], abs=0.006)
    assert right_of["3"] == pytest.approx([1.00, 0.79, 0.20, 0.33], abs=0.006)
    assert right_of["4"] == pytest.approx([0.94, 0.84, 0.80, 0.67], abs=0.006)
    assert model.confusion["1"][2] == pytest.approx([0.00, 0.34, 0.66, 0.00], abs=0.006)


def answers_of(rng: np.random.Generator, truth_U: np.ndarray, confusion: dict[str, np.ndarray]) -> pa.Table:
    rows = []
    for index, truth in enumerate(truth_U):
        for person, confusion_CC in confusion.items():
            rows.append(answer_of(f"u{index:04d}", person, CLASSES[rng.choice(3, p=confusion_CC[truth])]))
    return table(*rows)


def planted(*right: float) -> np.ndarray:
    """Confusion of a person who is right that often for each class, and says the next one otherwise."""
    return np.diag(right) + np.roll(np.diag([1 - share for share in right]), 1, axis=1)


def test_dawid_skene_finds_planted_confusions_and_beats_the_majority() -> None:
    rng = np.random.default_rng(7)
    confusion = {"good": planted(0.9, 0.95, 0.9), "fair": planted(0.8, 0.8, 0.75), "poor": planted(0.3, 0.4, 0.45)}
    truth_U = rng.choice(3, p=[0.5, 0.3, 0.2], size=800)
    answers = answers_of(rng, truth_U, confusion)
    votes = {name: [] for name in answers["utterance_id"].unique().to_pylist()}
    for row in answers.to_pylist():
        votes[row["utterance_id"]].append(row)
    model = dawid_skene(votes, {}, CLASSES)
    for person, confusion_CC in confusion.items():
        assert model.confusion[person] == pytest.approx(confusion_CC, abs=0.1)
        expected = np.bincount(truth_U, minlength=3) / len(truth_U) @ np.diagonal(confusion_CC)
        assert model.accuracy(person) == pytest.approx(expected, abs=0.06)
    right = {
        method: np.mean([label == CLASSES[t] for label, t in zip(labels.to_pylist(), truth_U, strict=True)])
        for method in ("majority", "dawid-skene")
        for labels in [consensus(answers, CLASSES, method)["emotion"]]  # type: ignore[arg-type]
    }
    assert right["dawid-skene"] > right["majority"]


def test_what_is_adjudicated_teaches_the_model() -> None:
    # One says joy where the other says anger: only adjudications can tell who is right.
    rows = [answer_of(f"u{n}", person, word) for n in range(20) for person, word in (("ada", "joy"), ("ben", "anger"))]
    rows += [answer_of(f"n{n}", person, "anger") for n in range(5) for person in ("ada", "ben")]
    final = [answer_of(f"u{n}", "lead", "joy", final=True) for n in range(10)]
    labels = consensus(table(*rows, *final), CLASSES, "dawid-skene").to_pylist()
    assert {row["emotion"] for row in labels if row["utterance_id"].startswith("u")} == {"joy"}


answer = st.builds(
    answer_of,
    st.sampled_from("abc"),
    st.sampled_from(["ada", "ben", "cem", "dee"]),
    st.sampled_from(CLASSES),
    kind=st.just("label"),
    final=st.sampled_from([False, False, False, True]),
    arousal=st.none() | st.floats(1, 5),
)


@settings(deadline=None)
@given(st.lists(answer, min_size=1, max_size=12), st.randoms(), st.sampled_from(["majority", "soft"]))
def test_the_order_of_answers_does_not_matter(rows: list[dict[str, Any]], random: Any, method: Any) -> None:
    shuffled = random.sample(rows, len(rows))
    first = consensus(table(*rows), CLASSES, method, ("arousal",))
    assert first.equals(consensus(table(*shuffled), CLASSES, method, ("arousal",)))
    for row in first.to_pylist():
        assert row["probability"] is None or sum(row["probability"]) == pytest.approx(1)


def test_the_order_of_answers_does_not_matter_to_dawid_skene() -> None:
    rng = np.random.default_rng(1)
    answers = answers_of(rng, rng.integers(3, size=60), {"ada": planted(0.9, 0.8, 0.9), "ben": planted(0.6, 0.7, 0.5)})
    shuffled = answers.take(rng.permutation(len(answers)))
    assert consensus(answers, CLASSES, "dawid-skene").equals(consensus(shuffled, CLASSES, "dawid-skene"))
