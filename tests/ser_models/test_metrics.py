"""Metrics against scikit-learn and known answers."""

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


def test_kappa_agrees_with_scikit_learn_and_is_one_where_there_is_one_answer_only() -> None:
    rng = np.random.default_rng(0)
    one_N, other_N = rng.integers(0, 3, 40), rng.integers(0, 4, 40)
    assert metrics.cohen_kappa(one_N, other_N, 5) == pytest.approx(oracle.cohen_kappa_score(one_N, other_N))
    assert metrics.cohen_kappa(one_N * 0, one_N * 0, 5) == 1
    assert metrics.cohen_kappa(one_N * 0, one_N * 0 + 1, 5) == 0


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
    for measure in (metrics.ccc, metrics.rmse):
        with pytest.raises(ValueError, match="expected finite ratings, got 2 rows without, the first of them 1"):
            measure(np.array([1, np.nan, 3, 4]), np.array([1, 2, 3, np.inf]))


@pytest.mark.parametrize("name", metrics.METRICS)
def test_every_metric_of_the_table_says_which_of_two_models_is_better(name: str) -> None:
    entry, (truth, _) = metrics.METRICS[name], labels(0)
    certain = np.eye(int(truth.max()) + 1)[truth]
    perfect = {"classes": truth, "probabilities": certain, "ratings": truth.astype(float)}[entry.of]
    poor = {"classes": np.roll(truth, 1), "probabilities": certain[:, ::-1], "ratings": 3.0 - truth}[entry.of]
    assert entry.function.__doc__, f"{name!r} has no docstring that says what it measures"
    good, bad = (entry.function(truth.astype(perfect.dtype) if entry.of == "ratings" else truth, outputs)
                 for outputs in (perfect, poor))  # fmt: skip
    assert isinstance(good, float), f"{name!r} must return a number"
    assert (good > bad) == (entry.better == "higher"), f"{name!r} says that {entry.better} is better, and is wrong"


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


def test_a_label_outside_the_columns_has_no_calibration() -> None:
    with pytest.raises(ValueError, match=r"0\.\.1, got 0\.\.2"):
        metrics.calibration_error(np.array([0, 2]), np.eye(2))


def ratings(seed: int, noise: float = 0.5, size: int = 200) -> tuple[np.ndarray, np.ndarray]:
    """Valence, arousal and dominance of ten speakers' clips, and a prediction with some noise."""
    rng = np.random.default_rng(seed)
    truth = rng.normal(size=(size, 3))
    return truth, truth + noise * rng.normal(size=(size, 3))


def test_rmse_against_scikit_learn() -> None:
    truth, predicted = ratings(0)
    assert metrics.rmse(truth[:, 0], predicted[:, 0]) == pytest.approx(
        oracle.root_mean_squared_error(truth[:, 0], predicted[:, 0])
    )
    with pytest.raises(ValueError, match=r"\(200,\) and \(199,\)"):
        metrics.rmse(truth[:, 0], predicted[1:, 0])


def test_every_dimension_has_its_ccc_over_the_whole_set() -> None:
    truth, predicted = ratings(0)
    names = ("valence", "arousal", "dominance")
    result = metrics.ccc_by_dimension(truth, predicted, names)
    assert tuple(result) == names
    for k, name in enumerate(names):
        x, y = truth[:, k], predicted[:, k]
        covariance = np.cov(x, y, bias=True)
        expected = 2 * covariance[0, 1] / (covariance.trace() + (x.mean() - y.mean()) ** 2)
        assert result[name] == pytest.approx(expected)
    for wrong in (("valence", "arousal"), ("valence", "valence", "arousal")):
        with pytest.raises(ValueError, match=r"for the dimensions .* got \(200, 3\) and \(200, 3\)"):
            metrics.ccc_by_dimension(truth, predicted, wrong)
