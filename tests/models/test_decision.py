"""Temperature and threshold of a final model: against plain definitions, and measured on who was left out."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.special import softmax

from seral.models.decision import LEAST_ANSWERED, decide, least_confidence, tempered
from seral.models.results import Judged


def judged(rows: int = 1200, *, sharper: float = 3.0, folds: int = 4, seed: int = 0) -> Judged:
    """Truths drawn from probabilities, of which a model says sharper ones; two speakers a fold."""
    rng = np.random.default_rng(seed)
    logits_NC = 1.5 * rng.standard_normal((rows, 3))
    truth_N = (softmax(logits_NC, axis=1).cumsum(1) > rng.random((rows, 1))).argmax(1)
    share_NC, speaker_N = softmax(sharper * logits_NC, axis=1), np.arange(rows) % 8
    about = pd.DataFrame(dict.fromkeys(("corpus", "language", "gender"), "made"), index=range(rows))
    return Judged(
        classes=("a", "b", "c"),
        dimensions=(),
        fold_N=speaker_N * folds // 8,
        seed_N=np.zeros(rows, np.int64),
        about=about.assign(speaker=[f"made/{number}" for number in speaker_N]),
        truth=truth_N,
        predicted=share_NC.argmax(1),
        share_NC=share_NC,
    )


@given(
    st.lists(st.tuples(st.integers(0, 9), st.booleans()), min_size=1, max_size=80),
    st.sampled_from([0.5, 0.6, 0.75, 0.9]),
)
def test_the_threshold_is_the_least_that_leaves_enough_right(rows: list[tuple[int, bool]], wanted: float) -> None:
    confidence_N, right_N = np.array([row[0] / 10 for row in rows]), np.array([row[1] for row in rows])
    fit = [
        value
        for value in np.unique(confidence_N)
        for above_N in [confidence_N >= value]
        if above_N.sum() >= LEAST_ANSWERED and right_N[above_N].mean() >= wanted
    ]
    expected = None if not fit else (0.0 if fit[0] == confidence_N.min() else fit[0])
    assert least_confidence(confidence_N, right_N, wanted) == expected


def test_the_temperature_undoes_what_made_the_model_too_sure() -> None:
    assert decide(judged(4000), 0.8)["temperature"] == pytest.approx(3.0, rel=0.1)
    share_NC = judged().share_NC
    assert tempered(share_NC, 1.0) is share_NC
    np.testing.assert_allclose(tempered(share_NC, 3.0), softmax(np.log(share_NC) / 3, axis=1))


def test_what_is_reported_is_measured_on_folds_that_were_left_out() -> None:
    own = judged()
    decision, right, answered = decide(own, 0.8), 0, 0
    for fold in range(4):
        train_N, out_N = own.fold_N != fold, own.fold_N == fold
        part = decide(
            replace(
                own,
                **{
                    name: getattr(own, name)[train_N] for name in ("fold_N", "seed_N", "truth", "predicted", "share_NC")
                },
                about=own.about[train_N].reset_index(drop=True),
            ),
            0.8,
        )
        share_NC = tempered(own.share_NC[out_N], part["temperature"])
        sure_N = share_NC.max(1) >= part["abstain_below"]
        answered += sure_N.sum()
        right += (share_NC.argmax(1) == own.truth[out_N])[sure_N].sum()
    assert (decision["coverage"], decision["accuracy"]) == (answered / len(own.truth), right / answered)
    assert decision["over"] == "fold"
    assert 0.3 < decision["coverage"] < 0.95
    assert decision["accuracy"] == pytest.approx(0.8, abs=0.05)


def test_one_fold_leaves_out_speakers_and_two_speakers_nobody() -> None:
    assert decide(judged(folds=1), 0.8)["over"] == "speaker"
    two = judged(folds=1)
    few = replace(two, about=two.about.assign(speaker=np.where(np.arange(len(two.truth)) % 2, "made/0", "made/1")))
    assert [decide(few, 0.8)[name] for name in ("accuracy", "coverage", "over")] == [None] * 3


def test_an_accuracy_that_nothing_reaches_has_no_threshold_and_one_that_all_do_leaves_none_out() -> None:
    wrong = judged()
    assert decide(replace(wrong, truth=(wrong.predicted + 1) % 3), 0.9)["abstain_below"] is None
    assert decide(replace(wrong, truth=wrong.predicted), 0.9)["abstain_below"] == 0.0
    assert decide(replace(wrong, classes=(), dimensions=("valence",)), 0.9) == {}
