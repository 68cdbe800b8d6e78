"""Metrics against scikit-learn, and the bootstrap against known answers."""

from __future__ import annotations

import numpy as np
import pytest
from scipy.spatial.distance import jensenshannon
from sklearn import metrics as oracle

from ser_models import metrics


def labels(seed: int, classes: int = 4, size: int = 60) -> tuple[metrics.Labels, metrics.Labels]:
    rng = np.random.default_rng(seed)
    truth = rng.integers(classes, size=size)
    predicted = np.where(rng.random(size) < 0.6, truth, rng.integers(classes, size=size))
    return truth, predicted


@pytest.mark.parametrize("seed", range(5))
def test_agree_with_scikit_learn(seed: int) -> None:
    truth, predicted = labels(seed)
    np.testing.assert_array_equal(metrics.confusion_matrix(truth, predicted), oracle.confusion_matrix(truth, predicted))
    assert metrics.uar(truth, predicted) == pytest.approx(oracle.balanced_accuracy_score(truth, predicted))
    assert metrics.wa(truth, predicted) == pytest.approx(oracle.accuracy_score(truth, predicted))
    assert metrics.macro_f1(truth, predicted) == pytest.approx(oracle.f1_score(truth, predicted, average="macro"))
    np.testing.assert_allclose(
        metrics.per_class_recall(truth, predicted), oracle.recall_score(truth, predicted, average=None)
    )


def test_a_class_absent_from_the_truth_has_no_recall_and_no_part_in_uar() -> None:
    truth, predicted = np.array([0, 0, 2, 2]), np.array([0, 1, 2, 2])
    np.testing.assert_array_equal(metrics.per_class_recall(truth, predicted, 4), [0.5, np.nan, 1.0, np.nan])
    assert metrics.uar(truth, predicted) == 0.75
    # It does count as a false class in F1, as in scikit-learn: (2/3 + 0 + 1) / 3.
    assert metrics.macro_f1(truth, predicted) == pytest.approx(5 / 9)


def test_confusion_has_the_size_asked_for() -> None:
    matrix = metrics.confusion_matrix(np.array([0, 1]), np.array([1, 1]), 3)
    np.testing.assert_array_equal(matrix, [[0, 1, 0], [0, 1, 0], [0, 0, 0]])
    with pytest.raises(ValueError, match=r"0\.\.1, got 0\.\.2"):
        metrics.confusion_matrix(np.array([0, 2]), np.array([0, 1]), 2)


def test_empty_or_unequal_vectors_are_refused() -> None:
    with pytest.raises(ValueError, match=r"\(2,\) and \(3,\)"):
        metrics.wa(np.zeros(2, np.int64), np.zeros(3, np.int64))
    with pytest.raises(ValueError, match="non-empty"):
        metrics.uar(np.zeros(0, np.int64), np.zeros(0, np.int64))


def test_ccc_known_answers() -> None:
    x = np.random.default_rng(0).normal(size=100)
    assert metrics.ccc(x, x) == pytest.approx(1)
    assert metrics.ccc(x, x + 0.5) == pytest.approx(2 * x.var() / (2 * x.var() + 0.25))
    with pytest.raises(ValueError, match="undefined"):
        metrics.ccc(np.ones(3), np.ones(3))


def test_interval_holds_the_value_and_is_reproducible() -> None:
    truth, predicted = labels(0, size=200)
    speaker = np.repeat([f"s{i}" for i in range(10)], 20)
    first = metrics.bootstrap_interval(metrics.uar, truth, predicted, speaker, np.random.default_rng(1), n=300)
    again = metrics.bootstrap_interval(metrics.uar, truth, predicted, speaker, np.random.default_rng(1), n=300)
    assert first == again
    assert first[0] < metrics.uar(truth, predicted) < first[1]


def test_speakers_that_fail_together_widen_the_interval() -> None:
    truth = np.tile([0, 1], 100)
    speaker = np.repeat(np.arange(10), 20)
    predicted = np.where(speaker < 5, truth, 1 - truth)
    by_speaker = metrics.bootstrap_interval(metrics.wa, truth, predicted, speaker, np.random.default_rng(0))
    by_clip = metrics.bootstrap_interval(metrics.wa, truth, predicted, np.arange(200), np.random.default_rng(0))
    assert by_speaker[1] - by_speaker[0] > 3 * (by_clip[1] - by_clip[0])


def test_every_clip_needs_a_cluster() -> None:
    truth, predicted = labels(0)
    with pytest.raises(ValueError, match="60 clips, 2 cluster names"):
        metrics.bootstrap_interval(metrics.uar, truth, predicted, np.array(["a", "b"]), np.random.default_rng(0))


def test_p_value_tells_a_clear_win_from_a_draw() -> None:
    truth, worse = labels(3, size=200)
    speaker = np.repeat(np.arange(10), 20)
    clear = metrics.paired_bootstrap_p(metrics.uar, truth, truth, worse, speaker, np.random.default_rng(0), n=200)
    draw = metrics.paired_bootstrap_p(metrics.uar, truth, worse, worse, speaker, np.random.default_rng(0), n=200)
    assert clear == pytest.approx(1 / 201)
    assert draw == 1


def distributions(seed: int, rows: int = 50, classes: int = 4) -> np.ndarray:
    return np.random.default_rng(seed).dirichlet(np.full(classes, 0.5), rows)


def test_calibration_error_against_a_loop_over_bins() -> None:
    truth, probability = labels(0, size=50)[0], distributions(1)
    confidence, right = probability.max(1), probability.argmax(1) == truth
    expected = 0.0
    for low in np.arange(15) / 15:
        inside = (confidence > low) & (confidence <= low + 1 / 15)
        if inside.any():
            expected += inside.mean() * abs(right[inside].mean() - confidence[inside].mean())
    assert metrics.calibration_error(truth, probability) == pytest.approx(expected)
    assert metrics.calibration_error(np.array([0, 1]), np.eye(2)) == 0
    assert metrics.calibration_error(np.array([1, 0]), np.eye(2)) == 1
    with pytest.raises(ValueError, match=r"row 1 sums to 2\.0"):
        metrics.calibration_error(np.array([0, 1]), np.array([[0.5, 0.5], [1.0, 1.0]]))


def test_soft_labels_against_scikit_learn_and_scipy() -> None:
    votes, probability = distributions(2), distributions(3)
    agreement = metrics.soft_label_agreement(votes, probability)
    expected = np.mean([jensenshannon(q, p, base=2) ** 2 for q, p in zip(votes, probability, strict=True)])
    assert agreement["jensen_shannon"] == pytest.approx(expected)
    hard = metrics.soft_label_agreement(np.eye(4)[np.arange(50) % 4], probability)
    assert hard["cross_entropy"] == pytest.approx(oracle.log_loss(np.arange(50) % 4, probability))
    same = metrics.soft_label_agreement(votes, votes)
    assert same["overlap"] == pytest.approx(1)
    assert same["jensen_shannon"] == pytest.approx(0, abs=1e-9)
    with pytest.raises(ValueError, match="votes must be distributions"):
        metrics.soft_label_agreement(2 * votes, probability)
