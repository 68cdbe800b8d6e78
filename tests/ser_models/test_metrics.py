"""Metrics against scikit-learn, and the bootstrap against known answers."""

from __future__ import annotations

import numpy as np
import pytest
from scipy.spatial.distance import jensenshannon
from scipy.stats import norm, permutation_test
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


def interval(
    metric: metrics.MetricFunction,
    truth_N: np.ndarray,
    predicted_N: np.ndarray,
    cluster_N: np.ndarray,
    rng: np.random.Generator,
    n: int = 1000,
) -> tuple[float, float]:
    """The 95 % percentile interval of a metric over resampled clusters."""
    low, high = np.quantile(metrics.resampled(metric, truth_N, predicted_N, cluster_N, rng, n), [0.025, 0.975])
    return float(low), float(high)


def test_interval_holds_the_value_and_is_reproducible() -> None:
    truth, predicted = labels(0, size=200)
    speaker = np.repeat([f"s{i}" for i in range(10)], 20)
    first = interval(metrics.uar, truth, predicted, speaker, np.random.default_rng(1), n=300)
    again = interval(metrics.uar, truth, predicted, speaker, np.random.default_rng(1), n=300)
    assert first == again
    assert first[0] < metrics.uar(truth, predicted) < first[1]


def test_speakers_that_fail_together_widen_the_interval() -> None:
    truth = np.tile([0, 1], 100)
    speaker = np.repeat(np.arange(10), 20)
    predicted = np.where(speaker < 5, truth, 1 - truth)
    by_speaker = interval(metrics.wa, truth, predicted, speaker, np.random.default_rng(0))
    by_clip = interval(metrics.wa, truth, predicted, np.arange(200), np.random.default_rng(0))
    assert by_speaker[1] - by_speaker[0] > 3 * (by_clip[1] - by_clip[0])


def test_every_clip_needs_a_cluster() -> None:
    truth, predicted = labels(0)
    with pytest.raises(ValueError, match="60 clips, 2 cluster names"):
        interval(metrics.uar, truth, predicted, np.array(["a", "b"]), np.random.default_rng(0))


def test_p_value_tells_a_clear_win_from_a_draw() -> None:
    truth, worse = labels(3, size=200)
    speaker = np.repeat(np.arange(10), 20)
    clear = metrics.paired_difference(metrics.uar, truth, truth, worse, speaker, np.random.default_rng(0), n=200)
    draw = metrics.paired_difference(metrics.uar, truth, worse, worse, speaker, np.random.default_rng(0), n=200)
    assert clear.p == pytest.approx(2 / 201)
    assert draw.p == 1


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


def test_the_bootstrap_takes_ratings_and_probabilities_too() -> None:
    truth, predicted = ratings(0)
    speaker = np.repeat(np.arange(10), 20)
    low, high = interval(metrics.ccc, truth[:, 0], predicted[:, 0], speaker, np.random.default_rng(0), n=200)
    assert low < metrics.ccc(truth[:, 0], predicted[:, 0]) < high
    label, probability = labels(0, size=200)[0], distributions(1, rows=200)
    low, high = interval(metrics.calibration_error, label, probability, speaker, np.random.default_rng(0), n=200)
    assert 0 < low < high < 1


def test_one_speaker_alone_gives_no_interval() -> None:
    truth, predicted = labels(0)
    with pytest.raises(ValueError, match=r"at least 2 of them, got 1: \['s0'\]"):
        interval(metrics.uar, truth, predicted, np.repeat("s0", 60), np.random.default_rng(0))


def test_the_paired_difference_of_a_known_gain_by_speaker() -> None:
    """One clip a speaker, 0 or 1 right: the bootstrap of the mean difference is that of its normal approximation."""
    rng = np.random.default_rng(0)
    truth = np.ones(400, np.int64)
    a, b = (rng.random(400) < 0.8).astype(np.int64), (rng.random(400) < 0.72).astype(np.int64)
    gain = a - b
    result = metrics.paired_difference(metrics.wa, truth, a, b, np.arange(400), np.random.default_rng(1), n=4000)
    assert result.difference == pytest.approx(gain.mean())
    half = 1.96 * gain.std() / 20
    assert (result.low, result.high) == pytest.approx((gain.mean() - half, gain.mean() + half), abs=0.004)
    # The mean moves in steps of 1/400, and a resample at zero counts for both sides.
    assert result.p == pytest.approx(2 * norm.sf(20 * (gain.mean() - 1 / 800) / gain.std()), abs=0.01)


def test_the_paired_difference_has_a_sign_and_its_p_value_none() -> None:
    truth, near = ratings(0)
    far = ratings(0, noise=0.6)[1]
    speaker = np.repeat(np.arange(10), 20)

    def compare(a: np.ndarray, b: np.ndarray) -> metrics.PairedDifference:
        return metrics.paired_difference(metrics.ccc, truth[:, 0], a[:, 0], b[:, 0], speaker, np.random.default_rng(1))

    win, loss, draw = compare(near, far), compare(far, near), compare(near, near)
    assert win.low > 0
    assert win.p == loss.p < 0.05
    assert (loss.difference, loss.low, loss.high) == pytest.approx((-win.difference, -win.high, -win.low))
    assert draw == (0, 0, 0, 1)


@pytest.mark.parametrize("seed", range(4))
def test_sign_flips_against_scipy(seed: int) -> None:
    a, b = np.random.default_rng(seed).normal([[0.5], [0.0]], 1, size=(2, 8))
    exact = permutation_test(
        (a, b), lambda x, y, axis: (x - y).mean(axis), permutation_type="samples", n_resamples=np.inf, vectorized=True
    )
    assert metrics.sign_flip_p(a - b) == pytest.approx(exact.pvalue)


def test_sign_flips_known_answers() -> None:
    assert metrics.sign_flip_p(np.full(5, 0.1)) == 2 / 32
    assert metrics.sign_flip_p(np.full(16, -0.1)) == 2 / 2**16
    assert metrics.sign_flip_p(np.zeros(5)) == 1
    assert metrics.sign_flip_p(np.array([1.0, -1.0])) == 1
    # Sums of 1, 2 and 4 with any signs: only 7 and -7 are as far from zero as 7, and 5, 7 and their mirrors as 5.
    assert metrics.sign_flip_p(np.array([1.0, 2.0, 4.0])) == 2 / 8
    assert metrics.sign_flip_p(np.array([-1.0, 2.0, 4.0])) == 4 / 8


def test_seeds_of_a_fold_flip_together() -> None:
    difference_FR = np.random.default_rng(0).normal(0.2, 1, size=(6, 5))
    assert metrics.sign_flip_p(difference_FR) == metrics.sign_flip_p(difference_FR.mean(1))
    assert metrics.sign_flip_p(np.full((5, 10), 0.1)) == 2 / 32


def test_many_folds_are_sampled_from_the_generator_and_near_the_normal_answer() -> None:
    difference = np.random.default_rng(2).normal(0.3, 1, size=60)
    first, again = (metrics.sign_flip_p(difference, np.random.default_rng(5)) for _ in range(2))
    assert first == again
    z = abs(difference.sum()) / np.sqrt((difference**2).sum())
    assert first == pytest.approx(2 * norm.sf(z), abs=0.01)
    with pytest.raises(ValueError, match="60 folds have too many"):
        metrics.sign_flip_p(difference)


@pytest.mark.parametrize("wrong", [np.empty(0), np.array([0.1, np.nan]), np.zeros((2, 2, 2)), np.array(0.5)])
def test_sign_flips_refuse_what_are_no_differences(wrong: np.ndarray) -> None:
    with pytest.raises(ValueError, match="expected finite differences"):
        metrics.sign_flip_p(wrong)
