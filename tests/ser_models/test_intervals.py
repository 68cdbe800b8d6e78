"""Intervals against scipy, known answers, and by simulation: whether they cover what they claim to."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from scipy.special import expit
from scipy.stats import norm, permutation_test, ttest_1samp

from ser_models import intervals, metrics

CLASSES, CLIPS = 4, 5
"""Classes, and clips of each that a simulated speaker has."""
RECALL_C = np.array([0.2, 0.6, -0.2, 0.9])
"""Log-odds of recognising a clip of each class by a speaker like all."""
REPETITIONS = 1500
LEAST, MOST = 0.93, 0.97
"""Coverage that is accepted where 95 % is claimed."""


def speaker_names(count: int, clips: int = 20) -> np.ndarray:
    return np.repeat([f"s{index:02d}" for index in range(count)], clips)


@pytest.mark.parametrize("count", [2, 3, 8])
def test_the_interval_of_a_mean_is_student_s(count: int) -> None:
    value_G = np.random.default_rng(count).normal(0.1, 1, count)
    expected = ttest_1samp(value_G, 0)
    low, high, p = intervals.mean_interval(value_G)
    assert (low, high) == pytest.approx(tuple(expected.confidence_interval(0.95)))
    assert p == pytest.approx(expected.pvalue)
    assert np.isnan(intervals.mean_interval(value_G[:1])).all()


def test_leaving_out_one_of_equal_units_gives_the_interval_of_their_mean() -> None:
    value_GK = np.random.default_rng(0).normal(size=(7, 3))
    without_GK = (value_GK.sum(0) - value_GK) / 6
    low, high, p = intervals.jackknife_interval(value_GK.mean(0), without_GK)
    for k in range(3):
        assert (low[k], high[k], p[k]) == pytest.approx(intervals.mean_interval(value_GK[:, k]))
    assert np.isnan(intervals.jackknife_interval(1.0, without_GK[:1, 0])).all()


def coverage(covers: Callable[[np.random.Generator], bool]) -> float:
    rng = np.random.default_rng(0)
    return float(np.mean([covers(rng) for _ in range(REPETITIONS)]))


@pytest.mark.parametrize("folds", [2, 3, 5, 10])
def test_the_interval_over_folds_covers_what_it_claims(folds: int) -> None:
    def covers(rng: np.random.Generator) -> bool:
        low, high, _ = intervals.mean_interval(rng.normal(0.02, 0.03, folds))
        return bool(low <= 0.02 <= high)

    assert LEAST <= coverage(covers) <= MOST


def hits(rng: np.random.Generator, speakers: int, shift_G1: Any) -> np.ndarray:
    """Clips that are recognised, by speaker and class, (G, C), of speakers who differ in how well they are."""
    return rng.binomial(CLIPS, expit(RECALL_C + shift_G1), (speakers, CLASSES))


def of_hits(hit_GC: np.ndarray) -> np.ndarray:
    """Classes predicted of the clips that `hits` counts, in the order of `truths`, (N,)."""
    truth_N = truths(len(hit_GC))
    right_N = (np.arange(CLIPS) < hit_GC[:, :, None]).ravel()
    return np.where(right_N, truth_N, (truth_N + 1) % CLASSES)


def truths(speakers: int) -> np.ndarray:
    return np.tile(np.repeat(np.arange(CLASSES), CLIPS), speakers)


def recall(truth_N: np.ndarray, predicted_N: np.ndarray) -> float:
    """UAR of clips of which every class has as many: a plain mean, and fast enough to be taken a million times."""
    return float((truth_N == predicted_N).mean())


@pytest.mark.parametrize("speakers", [4, 6, 10, 24])
def test_the_interval_over_speakers_covers_what_it_claims(speakers: int) -> None:
    truth_N, speaker_N = truths(speakers), speaker_names(speakers, CLASSES * CLIPS)
    many = np.random.default_rng(1).normal(0, 0.6, (200_000, 1))
    expected = expit(RECALL_C + many).mean()

    def covers(rng: np.random.Generator) -> bool:
        predicted_N = of_hits(hits(rng, speakers, rng.normal(0, 0.6, (speakers, 1))))
        without_G = intervals.without_each(recall, truth_N, predicted_N, speaker_N)
        low, high, _ = intervals.jackknife_interval(recall(truth_N, predicted_N), without_G)
        return bool(low <= expected <= high)

    assert LEAST <= coverage(covers) <= MOST


@pytest.mark.parametrize("speakers", [4, 6, 10, 24])
def test_two_systems_that_are_equally_good_differ_in_one_case_of_twenty(speakers: int) -> None:
    truth_N, speaker_N = truths(speakers), speaker_names(speakers, CLASSES * CLIPS)

    def covers(rng: np.random.Generator) -> bool:
        voice_G1, taste_G1 = rng.normal(0, 0.6, (speakers, 1)), rng.normal(0, 0.4, (speakers, 1))
        a_N, b_N = (of_hits(hits(rng, speakers, voice_G1 + sign * taste_G1)) for sign in (1, -1))
        result = intervals.paired_difference(recall, truth_N, a_N, b_N, speaker_N)
        assert result.units == speakers
        assert (result.p < 0.05) == (not result.low <= 0 <= result.high)
        return bool(result.low <= 0 <= result.high)

    assert LEAST <= coverage(covers) <= MOST


def test_speakers_that_fail_together_widen_the_interval() -> None:
    truth_N, speaker_N = np.tile([0, 1], 100), speaker_names(10)
    predicted_N = np.where(speaker_N < "s05", truth_N, 1 - truth_N)
    width = []
    for unit_N in (speaker_N, np.arange(200)):
        without_G = intervals.without_each(metrics.wa, truth_N, predicted_N, unit_N)
        low, high, _ = intervals.jackknife_interval(metrics.wa(truth_N, predicted_N), without_G)
        width.append(high - low)
    assert width[0] > 3 * width[1]


def test_every_clip_needs_a_speaker() -> None:
    truth_N = np.tile([0, 1], 30)
    with pytest.raises(ValueError, match="60 clips, 2 names"):
        intervals.without_each(metrics.uar, truth_N, truth_N, np.array(["a", "b"]))
    with pytest.raises(ValueError, match="as many predictions as truths, got 60 and 59"):
        intervals.without_each(metrics.uar, truth_N, truth_N[1:], truth_N)


def test_a_single_speaker_has_a_difference_without_an_interval() -> None:
    truth_N = np.tile([0, 1], 30)
    result = intervals.paired_difference(metrics.uar, truth_N, truth_N, np.zeros(60, int), np.repeat("s0", 60))
    assert result.difference == pytest.approx(0.5)
    assert result.units == 1
    assert np.isnan([result.low, result.high, result.p]).all()


def test_the_paired_difference_has_a_sign_and_its_p_value_none() -> None:
    rng = np.random.default_rng(0)
    truth_N, speaker_N = rng.normal(size=200), speaker_names(10)
    near_N, far_N = truth_N + 0.3 * rng.normal(size=200), truth_N + 0.6 * rng.normal(size=200)

    def compare(a_N: np.ndarray, b_N: np.ndarray) -> intervals.PairedDifference:
        return intervals.paired_difference(metrics.ccc, truth_N, a_N, b_N, speaker_N)

    win, loss, draw = compare(near_N, far_N), compare(far_N, near_N), compare(near_N, near_N)
    assert win.low > 0
    assert win.p == loss.p < 0.05
    assert (loss.difference, loss.low, loss.high) == pytest.approx((-win.difference, -win.high, -win.low))
    assert draw == (0, 0, 0, 1, 10)


@pytest.mark.parametrize("seed", range(4))
def test_sign_flips_against_scipy(seed: int) -> None:
    a, b = np.random.default_rng(seed).normal([[0.5], [0.0]], 1, size=(2, 8))
    exact = permutation_test(
        (a, b), lambda x, y, axis: (x - y).mean(axis), permutation_type="samples", n_resamples=np.inf, vectorized=True
    )
    assert intervals.sign_flip_p(a - b) == pytest.approx(exact.pvalue)


def test_sign_flips_known_answers() -> None:
    assert intervals.sign_flip_p(np.full(5, 0.1)) == 2 / 32
    assert intervals.sign_flip_p(np.full(16, -0.1)) == 2 / 2**16
    assert intervals.sign_flip_p(np.zeros(5)) == 1
    assert intervals.sign_flip_p(np.array([1.0, -1.0])) == 1
    # Sums of 1, 2 and 4 with any signs: only 7 and -7 are as far from zero as 7, and 5, 7 and their mirrors as 5.
    assert intervals.sign_flip_p(np.array([1.0, 2.0, 4.0])) == 2 / 8
    assert intervals.sign_flip_p(np.array([-1.0, 2.0, 4.0])) == 4 / 8


def test_seeds_of_a_fold_flip_together() -> None:
    difference_FR = np.random.default_rng(0).normal(0.2, 1, size=(6, 5))
    assert intervals.sign_flip_p(difference_FR) == intervals.sign_flip_p(difference_FR.mean(1))
    assert intervals.sign_flip_p(np.full((5, 10), 0.1)) == 2 / 32


def test_many_folds_are_sampled_from_the_generator_and_near_the_normal_answer() -> None:
    difference = np.random.default_rng(2).normal(0.3, 1, size=60)
    first, again = (intervals.sign_flip_p(difference, np.random.default_rng(5)) for _ in range(2))
    assert first == again
    z = abs(difference.sum()) / np.sqrt((difference**2).sum())
    assert first == pytest.approx(2 * norm.sf(z), abs=0.01)
    with pytest.raises(ValueError, match="60 folds have too many"):
        intervals.sign_flip_p(difference)


@pytest.mark.parametrize("wrong", [np.empty(0), np.array([0.1, np.nan]), np.zeros((2, 2, 2)), np.array(0.5)])
def test_sign_flips_refuse_what_are_no_differences(wrong: np.ndarray) -> None:
    with pytest.raises(ValueError, match="expected finite differences"):
        intervals.sign_flip_p(wrong)
