import numpy as np

from seral.active.doubt import doubt


def labelled(count: int, seed: int) -> tuple[np.ndarray, np.ndarray]:
    """Three groups apart and their labels."""
    rng = np.random.default_rng(seed)
    label_M = np.arange(count) % 3
    return (np.eye(3, 5)[label_M] * 6 + rng.normal(size=(count, 5))).astype(np.float32), label_M


def test_wrong_labels_are_doubted_most() -> None:
    x_MD, label_M = labelled(90, 0)
    wrong = np.array([4, 30, 77])
    label_M[wrong] = (label_M[wrong] + 1) % 3
    doubt_M = doubt(x_MD, label_M, 0)
    assert set(np.argsort(-doubt_M)[:3]) == set(wrong)
    assert doubt_M[wrong].min() > 0.5 > np.delete(doubt_M, wrong).max()


def test_a_label_is_judged_by_a_model_that_did_not_see_it() -> None:
    """Labels at random are believed no more than chance, however many features could tell them apart."""
    rng = np.random.default_rng(0)
    doubt_M = doubt(rng.normal(size=(60, 200)).astype(np.float32), np.arange(60) % 3, 0)
    assert 0.55 < doubt_M.mean() < 0.8


def test_what_cannot_be_judged_is_not_doubted() -> None:
    x_MD, label_M = labelled(31, 0)
    label_M[:] = 0
    assert doubt(x_MD, label_M, 0).tolist() == [0.0] * 31
    label_M[15:], label_M[3] = 1, 2
    doubt_M = doubt(x_MD, label_M, 0)
    assert doubt_M[3] == 0
    assert (np.delete(doubt_M, 3) > 0).all()
