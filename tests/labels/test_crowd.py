"""A classifier and its raters: each rater's confusions, and what a clip is by both."""

from __future__ import annotations

import numpy as np
import pytest

from seral.labels.crowd import PRIOR, confusions, votes_of, weighed

rng = np.random.default_rng(0)


def test_a_clip_is_what_model_and_raters_make_likely_together() -> None:
    votes_M = votes_of([[("ada", 0)], [("ada", 0), ("ben", 1)], []])
    share_MC = np.array([[1.0, 0.0], [0.5, 0.5], [0.2, 0.8]])
    model_MC = np.array([[0.4, 0.6], [0.9, 0.1], [0.5, 0.5]])
    weighed_MC, confusion_of = weighed(votes_M, share_MC, model_MC)
    # By hand: sums of shares by what was said, everybody's with one vote of prior on each side of right.
    all_CC = np.array([[1 + 1.5, 1 + 0.5], [1 + 0.5, 1 + 0.5]])
    all_CC /= all_CC.sum(1, keepdims=True)
    ada_CC = np.array([[1.5, 0.0], [0.5, 0.0]]) + PRIOR * all_CC
    ben_CC = np.array([[0.0, 0.5], [0.0, 0.5]]) + PRIOR * all_CC
    for name, own_CC in (("ada", ada_CC), ("ben", ben_CC)):
        own_CC /= own_CC.sum(1, keepdims=True)
        np.testing.assert_allclose(confusion_of[name], own_CC)
    for row, likelihood_C in ((0, ada_CC[:, 0]), (1, ada_CC[:, 0] * ben_CC[:, 1])):
        product_C = model_MC[row] * likelihood_C
        np.testing.assert_allclose(weighed_MC[row], product_C / product_C.sum())
    np.testing.assert_allclose(weighed_MC[2], share_MC[2], err_msg="nobody voted")


def test_who_says_anything_counts_for_nothing() -> None:
    truth_M = rng.integers(3, size=400)
    drawn_M = rng.integers(3, size=400)
    votes_M = votes_of([[("careful", int(c)), ("guessing", int(g))] for c, g in zip(truth_M, drawn_M, strict=True)])
    model_MC = np.full((400, 3), 0.2) + 0.4 * np.eye(3)[truth_M]
    share_MC = (np.eye(3)[truth_M] + np.eye(3)[drawn_M]) / 2
    for _ in range(4):
        share_MC, confusion_of = weighed(votes_M, share_MC, model_MC)
    assert (share_MC.argmax(1) == truth_M).mean() > 0.99
    assert np.diagonal(confusion_of["careful"]).mean() > 0.95
    assert np.diagonal(confusion_of["guessing"]).mean() == pytest.approx(1 / 3, abs=0.08)


def test_a_rater_of_few_votes_is_like_the_others_and_order_means_nothing() -> None:
    rows = [[("ada", 0)]] * 40 + [[("ben", 1)]]
    share_MC = np.tile([1.0, 0.0], (41, 1))
    confusion_of = confusions(votes_of(rows), share_MC)
    assert confusion_of["ben"][0, 0] > 0.7, "one vote against forty of others"
    back = confusions(votes_of(rows[::-1]), share_MC[::-1])
    np.testing.assert_allclose(back["ben"], confusion_of["ben"])
