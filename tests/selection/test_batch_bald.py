import itertools

import numpy as np
import pytest
from numpy.typing import NDArray

from seral.selection.strategies import scores
from seral.selection.strategies.batch_bald import _Joint, greedy_joint

# R passes · N rows · C classes


def passes(seed: int, rows: int, sharp: float = 0.3) -> NDArray[np.float32]:
    return np.random.default_rng(seed).dirichlet(np.ones(3) * sharp, size=(5, rows)).astype(np.float32)


def information(p_RNC: NDArray[np.float32], rows: list[int]) -> float:
    """Mutual information of the answers to these rows and the passes, by the sum over all answers."""
    wide = p_RNC.astype(np.float64)
    joint = 0.0
    for answers in itertools.product(range(p_RNC.shape[2]), repeat=len(rows)):
        p = np.prod([wide[:, row, answer] for row, answer in zip(rows, answers, strict=True)], axis=0).mean()
        joint -= p * np.log(p) if p > 0 else 0
    return float(joint - sum(np.mean([scores.entropy(wide[s, rows])[at] for s in range(5)]) for at in range(len(rows))))


@pytest.mark.parametrize("seed", range(4))
def test_every_pick_adds_the_most_information(seed: int) -> None:
    p_RNC, picks = passes(seed, 12), list[int]()
    for _ in range(4):
        left = [row for row in range(12) if row not in picks]
        picks.append(max(left, key=lambda row: round(information(p_RNC, [*picks, row]), 6)))
    assert greedy_joint(p_RNC, 4, np.random.default_rng(0), answers=3**4).tolist() == picks


def test_the_first_pick_is_that_of_bald() -> None:
    p_RNC = passes(0, 50)
    assert greedy_joint(p_RNC, 1, np.random.default_rng(0), answers=9)[0] == scores.bald(p_RNC).argmax()


def test_copies_are_not_asked_twice_as_bald_would() -> None:
    p_RNC = np.repeat(passes(1, 10, sharp=0.1), 2, axis=1)
    assert {*scores.top_rows(scores.bald(p_RNC), 2)} == {
        *np.flatnonzero(scores.bald(p_RNC) == scores.bald(p_RNC).max())
    }
    first, second = greedy_joint(p_RNC, 2, np.random.default_rng(0), answers=100)
    assert first // 2 != second // 2


@pytest.mark.parametrize("more", [1, 2])
def test_entropies_by_drawn_answers_are_unbiased(more: int) -> None:
    """The joint entropy of a batch and each candidate, by 60 000 draws and by the sum over all answers."""
    p_RNC = passes(3, 12, sharp=0.5)
    rng, exact, drawn = np.random.default_rng(0), _Joint(5), _Joint(5)
    for row in range(10 + more):
        exact.add(p_RNC[:, row].astype(np.float64), rng, 3**13)
        drawn.add(p_RNC[:, row].astype(np.float64), rng, 60_000)
    assert len(drawn.p_JR) == 60_000 < len(exact.p_JR)
    np.testing.assert_allclose(drawn.entropy_with(p_RNC), exact.entropy_with(p_RNC), rtol=0.01)


def test_drawn_answers_come_near_all_answers() -> None:
    """The information of a batch chosen by 80 drawn answers is that of the exact batch, within 2 %."""
    p_RNC = passes(2, 30, sharp=1.0)
    exact = greedy_joint(p_RNC, 5, np.random.default_rng(0), answers=3**5)
    drawn = greedy_joint(p_RNC, 5, np.random.default_rng(0), answers=80)
    assert information(p_RNC, drawn.tolist()) == pytest.approx(information(p_RNC, exact.tolist()), rel=0.02)
    few = greedy_joint(p_RNC, 5, np.random.default_rng(0), answers=1)
    assert information(p_RNC, few.tolist()) < information(p_RNC, exact.tolist())
