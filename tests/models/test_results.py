"""Figures of a card against plain definitions: leave out each speaker, write the figures down, and do the sums."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pandas as pd
import pytest
from scipy import stats
from sklearn.metrics import balanced_accuracy_score

from ser_models.metrics import ccc
from seral.models.results import Judged


def example(seeds: int = 2, speakers: int = 6, ratings: bool = False) -> Judged:
    """Fourteen clips of each speaker, three speakers a fold, every clip judged by each seed."""
    rng = np.random.default_rng(4)
    speaker_N = np.tile(np.repeat(np.arange(speakers), 14), seeds)
    count = len(speaker_N)
    truth_N = np.tile(np.arange(count // seeds) % 3, seeds)
    predicted_N = np.where(rng.random(count) < 0.7, truth_N, rng.integers(0, 3, count))
    values = np.tile(rng.normal(size=(count // seeds, 1)), (seeds, 1))
    about = pd.DataFrame(
        {
            "corpus": "made",
            "language": np.where(speaker_N < 2, "de", "en"),
            "gender": "unknown",
            "speaker": [f"made/{number}" for number in speaker_N],
        }
    )
    return Judged(
        classes=() if ratings else ("a", "b", "c"),
        dimensions=("valence",) if ratings else (),
        fold_N=speaker_N // 3,
        seed_N=np.repeat(np.arange(seeds), count // seeds),
        about=about,
        truth=values if ratings else truth_N,
        predicted=values + rng.normal(size=values.shape) if ratings else predicted_N,
        share_NC=np.zeros((count, 0)) if ratings else np.eye(3)[predicted_N],
    )


def test_the_expectation_is_a_mean_over_folds_whose_seeds_are_no_further_folds() -> None:
    own = example()
    value_F = np.array(
        [
            np.mean(
                [
                    balanced_accuracy_score(own.truth[rows], own.predicted[rows])
                    for seed in (0, 1)
                    for rows in [(own.fold_N == fold) & (own.seed_N == seed)]
                ]
            )
            for fold in (0, 1)
        ]
    )
    figures = own.expected()
    assert figures["value"] == pytest.approx(value_F.mean())
    low, high = stats.t.interval(0.95, 1, value_F.mean(), stats.sem(value_F))
    assert (figures["low"], figures["high"]) == pytest.approx((max(low, 0.0), min(high, 1.0)))
    assert figures["over"] == "2 folds"
    assert list(figures["folds"].values()) == pytest.approx(value_F.tolist())


def test_a_group_is_judged_by_leaving_out_one_of_its_speakers_at_a_time() -> None:
    own = example()
    rows = {row["language"]: row for row in own.by("language")}
    names = own.about["speaker"].to_numpy()
    english_N = (own.about["language"] == "en").to_numpy()
    value = balanced_accuracy_score(own.truth[english_N], own.predicted[english_N])
    without = np.array(
        [
            balanced_accuracy_score(own.truth[others_N], own.predicted[others_N])
            for name in np.unique(names[english_N])
            for others_N in [english_N & (names != name)]
        ]
    )
    error = np.sqrt(3 / 4 * ((without - without.mean()) ** 2).sum())
    half = stats.t.ppf(0.975, 3) * error
    assert rows["en"]["value"] == pytest.approx(value)
    assert (rows["en"]["low"], rows["en"]["high"]) == pytest.approx((value - half, min(value + half, 1.0)))
    assert (rows["en"]["clips"], rows["en"]["speakers"]) == (56, 4)
    # Two speakers are too few.
    assert (rows["de"]["low"], rows["de"]["high"], rows["de"]["speakers"]) == (None, None, 2)
    assert [row["low"] for row in own.by("speaker")] == [None] * 6


def test_one_fold_is_judged_over_its_speakers() -> None:
    own = example(seeds=1, speakers=3)
    assert own.expected()["over"] == "3 speakers"
    assert own.expected()["low"] < own.expected()["value"] < own.expected()["high"]


def test_ratings_are_judged_by_ccc() -> None:
    own = example(seeds=1, speakers=3, ratings=True)
    assert own.expected()["metric"] == "ccc"
    assert own.expected()["value"] == pytest.approx(ccc(own.truth[:, 0], own.predicted[:, 0]))
    assert own.by_class() == []
    worse = replace(own, predicted=-own.predicted).expected()
    assert -1 <= worse["low"] < worse["value"] < 0, "a CCC may be negative"
