import math
from collections.abc import Callable
from itertools import combinations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from seral.errors import OptionError
from seral.selection.candidates import Candidates
from seral.selection.parts.local import Parts
from seral.selection.parts.part import PoolPart
from seral.selection.strategies import herding, scores
from seral.selection.strategies.herding import least_distance, max_herding, tempered, uncertainty_herding
from seral.selection.strategies.uniform import drawn
from seral.vectors.view import unit_rows

# N candidates · M labelled · D features


@pytest.fixture(params=["as it is", "small blocks"])
def blocks(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """Every path at the sizes of a test: bounds made anew, reduced, columns forgotten."""
    if request.param == "small blocks":
        for name, value in {
            "BLOCK": 7,
            "TILE": 5,
            "REFRESHED": 4,
            "COMPARED": 2,
            "ANEW": 0.3,
            "CHUNK": 3,
            "LATELY": 1,
        }.items():
            monkeypatch.setattr(herding, name, value)


def pool(count: int, labelled: int, seed: int, *, copies: bool = False, model: bool = True) -> Candidates:
    """Rows around four directions, sorted by id; with copies, few different ones."""
    rng = np.random.default_rng(seed)
    different = max(1, count // 3) if copies else count
    rows = rng.integers(different, size=count) if copies else np.arange(count)
    x_ND = 2 * np.eye(6)[rng.integers(4, size=different)] + rng.normal(size=(different, 6))
    return Candidates(
        ids=np.array([f"u{row:04d}" for row in range(count)]),
        probability_NC=rng.dirichlet(np.ones(3), size=different)[rows] if model else None,
        embedding_ND=x_ND[rows].astype(np.float32),
        labelled_ids=np.array([f"v{row}" for row in range(labelled)], dtype=np.str_),
        labelled_embedding_MD=(np.eye(6)[0] + rng.normal(size=(labelled, 6))).astype(np.float32),
    )


def rows(picks: list[str]) -> list[int]:
    return [int(pick[1:]) for pick in picks]


def gen() -> np.random.Generator:
    return np.random.default_rng(0)


def gains_of(candidates: Candidates, picks: list[int], weight_N: NDArray[np.float64], width: float) -> list[NDArray]:
    """What every row would add before each pick, by the definition: all kernels, every time."""
    unit_ND, labelled_MD = (
        unit_rows(part).astype(np.float64) for part in (candidates.need("embedding_ND"), candidates.labelled_centres())
    )

    def kernel(one_ND: NDArray[np.float64]) -> NDArray[np.float64]:
        return np.exp(-((unit_ND[:, None] - one_ND) ** 2).sum(axis=2) / width**2)

    kernel_NN, near_N = kernel(unit_ND), kernel(labelled_MD).max(axis=1, initial=0)
    gains = []
    for row in picks:
        gains.append(weight_N @ np.maximum(kernel_NN - near_N[:, None], 0))
        near_N = np.maximum(near_N, kernel_NN[:, row])
    return gains


def assert_greedy(picks: list[int], gains: list[NDArray[np.float64]]) -> None:
    """Each pick adds most of all that are free, the lower of equals, in so far as steps of kernel and weight tell."""
    for number, (row, gain_N) in enumerate(zip(picks, gains, strict=True)):
        free_N = ~np.isin(np.arange(len(gain_N)), picks[:number])
        step = 1e-6 * len(gain_N)
        assert gain_N[row] >= gain_N[free_N].max() - step
        assert not (free_N & (gain_N > gain_N[row] + step))[:row].any()


@pytest.mark.usefixtures("blocks")
@settings(max_examples=25, deadline=None)
@given(st.integers(1, 70), st.integers(0, 4), st.sampled_from([0.05, 0.4, 1.0, 3.0]), st.integers(0, 99), st.data())
def test_max_herding_is_the_greedy_choice(
    count: int, labelled: int, width: float, seed: int, data: st.DataObject
) -> None:
    candidates, k = pool(count, labelled, seed), data.draw(st.integers(1, count))
    picks = rows(max_herding(candidates, k, gen(), width=width))
    assert_greedy(picks, gains_of(candidates, picks, np.ones(count), width))


@pytest.mark.usefixtures("blocks")
@settings(max_examples=25, deadline=None)
@given(st.integers(1, 70), st.integers(0, 4), st.booleans(), st.sampled_from([0.5, 1.0, 2.0]), st.integers(0, 99))
def test_uncertainty_herding_is_the_greedy_choice(
    count: int, labelled: int, model: bool, temperature: float, seed: int
) -> None:
    candidates = pool(count, labelled, seed, model=model)
    weight_N = np.ones(count)
    if candidates.probability_NC is not None:
        power_NC = candidates.probability_NC.astype(np.float64) ** (1 / temperature)
        top_NC = np.sort(power_NC / power_NC.sum(axis=1, keepdims=True), axis=1)
        weight_N = 1 - (top_NC[:, -1] - top_NC[:, -2])
    unit_MD = unit_rows(candidates.labelled_centres()).astype(np.float64)
    width = min((float(np.linalg.norm(one - other)) for one, other in combinations(unit_MD, 2)), default=1.0)
    picks = rows(uncertainty_herding(candidates, (count + 1) // 2, gen(), temperature=temperature))
    # Weights of a small pool have steps of 2^-22 and smaller.
    assert_greedy(picks, gains_of(candidates, picks, weight_N, width))


@pytest.mark.usefixtures("blocks")
@pytest.mark.parametrize("seed", range(6))
def test_copies_fall_to_the_lower_id_and_are_taken_at_last(seed: int) -> None:
    candidates = pool(30, 2, seed, copies=True)
    x_ND, picks = candidates.need("embedding_ND"), rows(max_herding(candidates, 30, gen()))
    first = [int(np.flatnonzero((x_ND == x_ND[row]).all(axis=1))[0]) for row in range(30)]
    different = len(set(first))
    assert sorted(picks[:different]) == sorted(set(first)), "of every kind the first, before any second"
    assert picks[different:] == sorted(set(range(30)) - set(first))


def test_many_picks_of_many_rows_are_greedy() -> None:
    candidates = pool(1500, 5, 0)
    picks = rows(max_herding(candidates, 120, gen(), width=0.7))
    assert_greedy(picks, gains_of(candidates, picks, np.ones(1500), 0.7))


def test_a_model_that_is_sure_of_a_group_sends_herding_elsewhere() -> None:
    candidates = pool(200, 3, 1)
    sure_N = candidates.need("embedding_ND").argmax(axis=1) == 1
    p_NC = np.where(sure_N[:, None], [1.0, 0, 0], [0.4, 0.3, 0.3]).astype(np.float32)
    unsure = Candidates(**{**vars(candidates), "probability_NC": p_NC})
    assert sure_N[rows(max_herding(unsure, 20, gen()))].any()
    assert not sure_N[rows(uncertainty_herding(unsure, 20, gen()))].any()


def test_the_least_distance_leaves_out_copies_and_looks_over_slabs(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(herding, "SLAB", 4)
    x_MD = np.repeat(pool(9, 0, 0).need("embedding_ND"), 2, axis=0)
    unit_MD = unit_rows(x_MD).astype(np.float64)
    away = [float(np.linalg.norm(one - other)) for one, other in combinations(unit_MD, 2)]
    assert least_distance(x_MD) == pytest.approx(min(distance for distance in away if distance > 1e-6), rel=1e-5)
    assert [least_distance(None), least_distance(x_MD[:1]), least_distance(x_MD[:2])] == [1, 1, 1]


def test_a_temperature_flattens_probabilities() -> None:
    p_NC = np.array([[0.8, 0.2, 0.0], [0.5, 0.25, 0.25]], dtype=np.float32)
    np.testing.assert_allclose(tempered(p_NC, 1), p_NC, rtol=1e-6)
    np.testing.assert_allclose(tempered(p_NC, 2)[0], [2 / 3, 1 / 3, 0], rtol=1e-6)
    assert scores.margin(tempered(p_NC, 3))[1] > scores.margin(p_NC)[1]


@pytest.mark.parametrize("strategy", [max_herding, uncertainty_herding])
def test_a_large_pool_is_drawn_from_and_the_draw_depends_on_the_seed(strategy: Callable[..., list[str]]) -> None:
    candidates = pool(300, 3, 0)
    drawn_ids = drawn(Parts([PoolPart(candidates)]), 40, gen()).ids
    small = candidates.take(candidates.rows(drawn_ids.tolist()))
    assert len(small) == 40
    assert strategy(candidates, 10, gen(), sample=40) == strategy(small, 10, gen(), sample=40)
    assert strategy(candidates, 10, gen(), sample=40) != strategy(candidates, 10, np.random.default_rng(1), sample=40)
    assert strategy(candidates, 10, gen(), sample=300) == strategy(candidates, 10, np.random.default_rng(1))
    assert len(set(strategy(candidates, 60, gen(), sample=40))) == 60


@pytest.mark.parametrize("wrong", [0.0, -1.0, math.inf, math.nan])
def test_wrong_options_are_refused(wrong: float) -> None:
    with pytest.raises(OptionError, match=f"max_herding needs a finite width > 0, got {wrong}"):
        max_herding(pool(5, 0, 0), 1, gen(), width=wrong)
    with pytest.raises(OptionError, match=f"uncertainty_herding needs a finite temperature > 0, got {wrong}"):
        uncertainty_herding(pool(5, 0, 0), 1, gen(), temperature=wrong)
    with pytest.raises(OptionError, match="max_herding needs sample >= 1, got 0"):
        max_herding(pool(5, 0, 0), 1, gen(), sample=0)


@pytest.mark.parametrize("k", [9, 20, 33])
def test_copies_are_picked_one_after_the_other_and_nobody_twice(k: int) -> None:
    for seed in range(20):
        rng = np.random.default_rng(seed)
        x_ND = rng.normal(size=(8, 5))[rng.integers(8, size=33)]
        candidates = Candidates(ids=np.array([f"u{row:02d}" for row in range(33)]), embedding_ND=x_ND)
        picks = max_herding(candidates, k, np.random.default_rng(0))
        assert len(set(picks)) == k
