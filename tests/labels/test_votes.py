"""Votes of a corpus's raters: shares and winners by hand, ties that stay, words outside the classes, who is right."""

from __future__ import annotations

from typing import Any

import numpy as np
import pyarrow as pa
import pytest

from seral.errors import LabelError
from seral.labels.votes import RatersInTurn, raters_per_clip, vote_facts, voted_labels
from seral.schema import VOTES

CLASSES = ["anger", "neutral", "sadness"]
WORDS = ["angry", "neutral", "sad"]
CLASS_MAP = {"angry": "anger", "neutral": "neutral", "sad": "sadness"}


def votes(*rows: tuple[str, str | None, str | None], **more: Any) -> pa.Table:
    """(clip, rater, word) of each vote."""
    blank = dict.fromkeys(VOTES.names)
    table = [blank | {"utterance_id": u, "rater": r, "emotion": e, "secondary": [], "count": 1} for u, r, e in rows]
    return pa.Table.from_pylist([row | more for row in table], VOTES)


FOUR = votes(
    *(("a", "x", "Angry"), ("a", "y", "angry"), ("a", "z", "sad")),
    *(("b", "x", "neutral"), ("b", "y", "sad")),
    *(("c", "x", "other"), ("c", "y", "other"), ("c", "z", "sad")),
    *(("d", "x", None), ("d", "y", "neutral"), ("d", "z", "other")),
)


def test_shares_winners_ties_and_other_words() -> None:
    voted = voted_labels(FOUR, CLASSES, CLASS_MAP)
    assert voted.ids == ["a", "b", "c", "d"]
    np.testing.assert_allclose(voted.share_NC[0], [2 / 3, 0, 1 / 3])
    np.testing.assert_allclose(voted.share_NC[1], [0, 0.5, 0.5])
    assert np.isnan(voted.share_NC[2]).all(), "other words won"
    np.testing.assert_allclose(voted.share_NC[3], [0, 1, 0], err_msg="one word against one: the class counts")
    assert voted.label_N.tolist() == [0, -1, -1, 1]
    assert voted.tied_N.tolist() == [False, True, False, False]
    assert voted.votes_N.tolist() == [3, 2, 1, 1]
    shuffled = voted_labels(FOUR.take(np.random.default_rng(0).permutation(FOUR.num_rows)), CLASSES, CLASS_MAP)
    np.testing.assert_array_equal(shuffled.share_NC, voted.share_NC)


def test_raters_per_clip_is_a_median_of_those_who_named_an_emotion() -> None:
    assert raters_per_clip(FOUR) == 2.5, "3, 2, 3 and 2 of them"
    assert raters_per_clip(votes(("a", None, "sad"), count=7)) == 7, "nobody by name"


def test_a_majority_gives_everything_to_the_winner_and_leaves_ties() -> None:
    voted = voted_labels(FOUR, CLASSES, CLASS_MAP, "majority")
    np.testing.assert_array_equal(voted.share_NC[0], [1, 0, 0])
    assert voted.label_N.tolist() == [0, -1, -1, 1]


def test_counts_of_nobody_and_further_emotions() -> None:
    counted = votes(("a", None, "angry"), ("a", None, "sad"))
    counted = counted.set_column(VOTES.names.index("count"), "count", pa.array([3, 1], pa.int32()))
    np.testing.assert_allclose(voted_labels(counted, CLASSES, CLASS_MAP).share_NC[0], [0.75, 0, 0.25])
    with pytest.raises(LabelError, match="needs to know who voted, and 2 of 2 votes are of nobody"):
        voted_labels(counted, CLASSES, CLASS_MAP, "dawid-skene")
    further = votes(("a", "x", "angry"), secondary=["sad"])
    np.testing.assert_allclose(voted_labels(further, CLASSES, CLASS_MAP).share_NC[0], [2 / 3, 0, 1 / 3])
    np.testing.assert_allclose(voted_labels(further, CLASSES, CLASS_MAP, secondary=0).share_NC[0], [1, 0, 0])


def test_dawid_skene_believes_who_agrees_with_the_others() -> None:
    rng = np.random.default_rng(0)
    words, rows = ["angry", "neutral", "sad"], []
    for clip in range(60):
        truth = clip % 3
        for rater, right in (("good", 0.95), ("fair", 0.9), ("poor", 0.34)):
            answer = truth if rng.random() < right else int(rng.integers(3))
            rows.append((f"{clip:02d}", rater, words[answer]))
    truth_N = np.arange(60) % 3
    by_model = voted_labels(votes(*rows), CLASSES, CLASS_MAP, "dawid-skene")
    by_vote = voted_labels(votes(*rows), CLASSES, CLASS_MAP)
    assert (by_model.label_N == truth_N).sum() >= (by_vote.label_N == truth_N).sum()
    np.testing.assert_allclose(by_model.share_NC.sum(1), 1)


def test_the_ceiling_is_one_rater_by_the_majority_of_the_others() -> None:
    table = votes(
        *(("a", rater, "angry") for rater in "xyz"),
        *(("b", "x", "sad"), ("b", "y", "sad"), ("b", "z", "neutral")),
        *(("c", "x", "sad"), ("c", "y", "neutral")),
    )
    facts = vote_facts(table, CLASSES, CLASS_MAP)
    # Of a: three votes, each against two alike. Of b: z against two sad; x and y against a tie. Of c: one other each.
    assert facts.compared == 4
    assert facts.ceiling == pytest.approx((3 / 3 + 0 / 1) / 2)
    assert (facts.clips, facts.raters) == (3, pytest.approx(8 / 3))
    assert facts.tied == pytest.approx(1 / 3)
    assert facts.outside == 0
    alone = vote_facts(votes(("a", "x", "sad")), CLASSES, CLASS_MAP)
    assert (alone.ceiling, alone.alpha.alpha) == (None, None)


def test_raters_answer_in_an_order_of_chance_that_stays() -> None:
    rows = [(f"{clip:03d}", rater, word) for clip in range(200) for rater, word in zip("xyz", WORDS, strict=True)]
    in_turn = RatersInTurn.of(votes(*rows), CLASSES, CLASS_MAP)
    first = [int(in_turn.shares(f"{clip:03d}", 1, 3).argmax()) for clip in range(200)]
    assert all(40 < first.count(label) < 95 for label in range(3)), "each rater is the first as often"
    for clip in range(0, 200, 20):
        name = f"{clip:03d}"
        one, two, all_three, more = (in_turn.shares(name, times, 3) for times in (1, 2, 3, 9))
        assert sorted(one.tolist()) == [0, 0, 1]
        assert sorted(two.tolist()) == [0, 0.5, 0.5]
        assert two[one.argmax()] == 0.5, "the first answer stays"
        np.testing.assert_allclose(all_three, 1 / 3)
        np.testing.assert_array_equal(more, all_three)
    shuffled = votes(*rows).take(np.random.default_rng(1).permutation(len(rows)))
    again = RatersInTurn.of(shuffled, CLASSES, CLASS_MAP)
    np.testing.assert_array_equal(again.column_V, in_turn.column_V)
    other = RatersInTurn.of(votes(("a", "x", "amused")), CLASSES, CLASS_MAP)
    assert np.isnan(other.shares("a", 1, 3)).all()
