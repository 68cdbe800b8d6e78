"""Scores by group, by hand: two speakers, two seeds; and a card's figures, which are those of a report."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest
from scipy import stats

from ser_models.metrics import uar
from seral.models.results import Judged
from seral.report.groups import results_by_group
from seral.task.groups import mean_ccc, mean_of_seeds, recalls

TRUTH = np.array([0, 1, 0, 1] * 2)
PREDICTED = np.array([0, 1, 0, 0, 1, 1, 1, 0])
SEED = np.repeat([7, 8], 4)
SPEAKER = np.array([0, 0, 1, 1] * 2)
HALF = stats.t.ppf(0.975, 1) * 0.25
"""Half an interval of two speakers: without one the score is 0.25, without the other 0.75."""


def test_two_speakers_and_two_seeds_by_hand() -> None:
    # With the first seed recalls are 1 and 1/2, with the second 0 and 1/2; seeds are no further speakers.
    scores = recalls(TRUTH, PREDICTED, SEED, SPEAKER)
    assert scores["uar"] == pytest.approx((0.5, 0.5 - HALF, 0.5 + HALF))
    assert scores["wa"] == pytest.approx((0.5, 0.5 - HALF, 0.5 + HALF))
    assert mean_of_seeds(uar, TRUTH, PREDICTED, SEED, SPEAKER) == pytest.approx(scores["uar"])


def test_a_seed_that_lacks_clips_counts_as_much_as_another() -> None:
    rows = slice(0, 6)  # the second seed has the first speaker alone: recalls 0 and 1
    value, *_ = recalls(TRUTH[rows], PREDICTED[rows], SEED[rows], SPEAKER[rows])["uar"]
    assert value == pytest.approx((0.75 + 0.5) / 2), "two thirds, were the seeds thrown together"


def test_a_clip_of_nobody_counts_and_is_never_left_out() -> None:
    unit_N = np.where(SPEAKER == 1, -1, 0)
    value, low, high = recalls(TRUTH, PREDICTED, SEED, unit_N)["uar"]
    assert value == 0.5
    assert np.isnan([low, high]).all(), "one speaker has no interval"


def test_ccc_is_a_mean_over_seeds_too() -> None:
    true_N = TRUTH.astype(float)
    right_then_flat_N = np.where(SEED == 7, true_N, 0.5)
    ratings = pd.DataFrame({"fold": 0, "seed": SEED, "speaker": SPEAKER, "true_x": true_N})
    value, low, high = mean_ccc(ratings.assign(predicted_x=right_then_flat_N), ["x"])
    assert (value, low, high) == pytest.approx((0.5, 0.5, 0.5)), "two thirds, were the seeds thrown together"


def test_a_card_and_a_report_say_the_same_of_a_group() -> None:
    rng, classes = np.random.default_rng(3), ["anger", "neutral", "sadness"]
    speaker_N = np.repeat(np.arange(8), 9)
    truth_N = rng.integers(0, 3, len(speaker_N))
    parts = []
    for seed in (0, 1):
        own = pd.DataFrame({"arm": "margin", "fold": speaker_N // 4, "seed": seed, "truth": truth_N})
        own["predicted"] = np.where(rng.random(len(own)) < 0.6, truth_N, rng.integers(0, 3, len(own)))
        own["utterance_id"] = [f"clip-{number}" for number in range(len(own))]
        about = {"corpus": "made", "language": np.where(speaker_N < 3, "de", "en"), "gender": "female"}
        parts.append(own.assign(speaker=[f"made/{number}" for number in speaker_N], **about))
    judged = pd.concat(parts, ignore_index=True).query("not (fold == 1 and seed == 1)")  # a run that is not done
    names = judged[["truth", "predicted"]].map(lambda code: classes[code])
    shares = {f"p_{name}": 1 / 3 for name in classes}  # read by other people's metrics
    report = results_by_group(judged.assign(**names, **shares), classes).set_index(["by", "group"])
    card = Judged(
        classes=tuple(classes),
        dimensions=(),
        fold_N=judged["fold"].to_numpy(),
        seed_N=judged["seed"].to_numpy(),
        about=judged[["corpus", "language", "gender", "speaker"]].reset_index(drop=True),
        truth=judged["truth"].to_numpy(),
        predicted=judged["predicted"].to_numpy(),
        share_NC=np.eye(3)[judged["predicted"]],
    )
    figures = [("class", row["class"], row["recall"], row) for row in card.by_class()]
    figures += [("language", row["language"], row["value"], row) for row in card.by("language")]
    for by, group, value, row in figures:
        expected = report.loc[(by, group), ["uar", "uar_low", "uar_high"]]
        assert (value, row["low"], row["high"]) == pytest.approx(tuple(expected))
    assert len(figures) == 5
    for row in card.by("speaker"):
        assert row["value"] == pytest.approx(report.loc[("speaker", row["speaker"]), "uar"])
        assert row["low"] is None, "one speaker has no interval in a card"
