import numpy as np

from seral.labels.confident import confident_class, label_error_scores, out_of_sample


def labelled(count: int, seed: int) -> tuple[np.ndarray, np.ndarray]:
    """Three groups apart and their labels."""
    rng = np.random.default_rng(seed)
    label_M = np.arange(count) % 3
    return (np.eye(3, 5)[label_M] * 6 + rng.normal(size=(count, 5))).astype(np.float32), label_M


def test_wrong_labels_are_doubted_most() -> None:
    x_MD, label_M = labelled(90, 0)
    wrong = np.array([4, 30, 77])
    label_M[wrong] = (label_M[wrong] + 1) % 3
    doubt_M = label_error_scores(x_MD, label_M, 0)
    assert set(np.argsort(-doubt_M)[:3]) == set(wrong)
    assert doubt_M[wrong].min() > 0.5 > np.delete(doubt_M, wrong).max()


def test_a_label_is_judged_by_a_model_that_did_not_see_it() -> None:
    """Labels at random are believed no more than chance, however many features could tell them apart."""
    rng = np.random.default_rng(0)
    doubt_M = label_error_scores(rng.normal(size=(60, 200)).astype(np.float32), np.arange(60) % 3, 0)
    assert 0.55 < doubt_M.mean() < 0.8


def test_what_cannot_be_judged_is_not_doubted() -> None:
    x_MD, label_M = labelled(31, 0)
    label_M[:] = 0
    assert label_error_scores(x_MD, label_M, 0).tolist() == [0.0] * 31
    label_M[15:], label_M[3] = 1, 2
    doubt_M = label_error_scores(x_MD, label_M, 0)
    assert doubt_M[3] == 0
    assert (np.delete(doubt_M, 3) > 0).all()


def test_the_confident_class_of_a_worked_example() -> None:
    """Thresholds by hand: class 0 (0.9 + 0.6 + 0.3) / 3 = 0.6, class 1 (0.8 + 0.4) / 2 = 0.6, class 2 0.5."""
    label_M = np.array([0, 0, 0, 1, 1, 2])
    p_MC = np.array(
        [
            [0.90, 0.05, 0.05],  # its own
            [0.60, 0.30, 0.10],  # its own, just
            [0.30, 0.65, 0.05],  # 1 reaches its threshold: an error
            [0.10, 0.80, 0.10],  # its own
            [0.35, 0.40, 0.25],  # nothing reaches its threshold: the likeliest
            [0.00, 0.50, 0.50],  # the likeliest is 1, but 2 reaches its threshold and 1 does not
        ]
    )
    assert confident_class(p_MC, label_M).tolist() == [0, 0, 1, 1, 1, 2]
    p_MC[3] = np.nan
    assert confident_class(p_MC, label_M)[3] == 1, "what has not been judged keeps its label"


def test_a_class_counts_by_what_it_has_on_its_own_labels() -> None:
    """A rare class that no probability says much for is suggested as soon as one says as much as for its own."""
    p_MC = np.array([[0.9, 0.1], [0.9, 0.1], [0.6, 0.4], [0.7, 0.3]])
    label_M = np.array([0, 0, 0, 1])
    assert p_MC.argmax(1).tolist() == [0, 0, 0, 0]
    assert confident_class(p_MC, label_M).tolist() == [0, 0, 1, 1]


def test_probabilities_are_of_the_labels_that_occur() -> None:
    x_MD, label_M = labelled(31, 0)
    label_M[3] = 7
    p_MC = out_of_sample(x_MD, label_M, 0)
    assert p_MC.shape == (31, 4)
    assert np.isnan(p_MC[3]).all()
    four_MC = np.delete(p_MC, 3, axis=0)
    np.testing.assert_allclose(four_MC.sum(1), 1)
    assert not four_MC[:, 3].any()
