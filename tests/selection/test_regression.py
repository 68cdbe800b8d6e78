"""Strategies for ratings against plain definitions."""

from collections.abc import Callable

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from seral.errors import OptionError, SelectionError
from seral.selection.candidates import Candidates
from seral.selection.selection import select

# N candidates · M labelled · D features · K rated dimensions

Floats = NDArray[np.float64]


def pool(count: int, labelled: int, seed: int) -> Candidates:
    """Whole numbers with many ties; rows in the order of ids."""
    rng = np.random.default_rng(seed)
    return Candidates(
        ids=np.array([f"u{number:03d}" for number in range(count)]),
        embedding_ND=rng.integers(-3, 4, size=(count, 3)).astype(np.float32),
        value_NK=rng.integers(1, 8, size=(count, 2)).astype(np.float32),
        member_RNK=rng.normal(size=(4, count, 2)).astype(np.float32),
        labelled_ids=np.array([f"v{number:03d}" for number in range(labelled)], dtype=np.str_),
        labelled_embedding_MD=rng.integers(-3, 4, size=(labelled, 3)).astype(np.float32),
        labelled_value_MK=rng.integers(1, 8, size=(labelled, 2)).astype(np.float32),
    )


def rows_of(name: str, candidates: Candidates, k: int) -> list[int]:
    """Rows that a strategy picks."""
    return [int(pick[1:]) for pick in select(name, candidates, k, np.random.default_rng(0))]


def squares(one_ND: Floats, other_MD: Floats) -> Floats:
    return ((one_ND[:, None].astype(np.float64) - other_MD) ** 2).sum(axis=2)


def greedy(candidates: Candidates, k: int, worth: Callable[[Floats, Floats], Floats]) -> list[int]:
    """Picks of a worth of all candidates by the features and values of what is labelled or picked, (N,)."""
    x_ND, value_NK = candidates.need("embedding_ND"), candidates.need("value_NK")
    picks = list[int]()
    while len(picks) < k:
        centre_MD = np.concatenate([candidates.need("labelled_embedding_MD"), x_ND[picks]])
        value_MK = np.concatenate([candidates.need("labelled_value_MK"), value_NK[picks]])
        worth_N = worth(centre_MD, value_MK)
        worth_N[picks] = -np.inf
        picks.append(int(worth_N.argmax()))
    return picks


@settings(max_examples=60, deadline=None)
@given(st.integers(1, 30), st.integers(1, 4), st.integers(0, 999), st.data())
def test_greedy_sampling_equals_its_definition(count: int, labelled: int, seed: int, data: st.DataObject) -> None:
    candidates, k = pool(count, labelled, seed), data.draw(st.integers(1, count))
    x_ND, value_NK = candidates.need("embedding_ND"), candidates.need("value_NK")
    output = greedy(candidates, k, lambda _, value_MK: squares(value_NK, value_MK).min(axis=1))
    assert rows_of("gsy", candidates, k) == output
    both = greedy(candidates, k, lambda x_MD, y_MK: (squares(x_ND, x_MD) * squares(value_NK, y_MK)).min(axis=1))
    assert rows_of("igs", candidates, k) == both


@settings(max_examples=60, deadline=None)
@given(st.integers(1, 30), st.integers(1, 4), st.integers(0, 999), st.data())
def test_lcmd_equals_its_definition(count: int, labelled: int, seed: int, data: st.DataObject) -> None:
    """The largest cluster's farthest member; of what is left of copies, the first ids."""
    candidates, k = pool(count, labelled, seed), data.draw(st.integers(1, count))
    x_ND = candidates.need("embedding_ND")

    def worth(centre_MD: Floats, _: Floats) -> Floats:
        distance_NM = squares(x_ND, centre_MD)
        nearest_N = distance_NM.argmin(axis=1)
        sums = np.bincount(nearest_N, distance_NM.min(axis=1), minlength=len(centre_MD))
        return np.where(nearest_N == sums.argmax(), distance_NM.min(axis=1), -1.0 if sums.any() else 0.0)

    assert rows_of("lcmd", candidates, k) == greedy(candidates, k, worth)


def left_variance(x_ND: Floats, centre_MD: Floats, noise: float) -> Floats:
    """Posterior variance of a Gaussian process with the kernel 1 + x·y, on features as the strategies take them."""
    mean_D = x_ND.mean(axis=0, dtype=np.float64)
    scale = np.sqrt(((x_ND - mean_D) ** 2).sum(axis=1).mean())
    one, other = ((part.astype(np.float64) - mean_D) / scale for part in (x_ND, centre_MD))
    cross_NM, own_MM = 1 + one @ other.T, 1 + other @ other.T
    explained_N = (cross_NM @ np.linalg.inv(own_MM + noise * np.eye(len(other))) * cross_NM).sum(axis=1)
    return 1 + (one**2).sum(axis=1) - explained_N


@pytest.mark.parametrize("labelled", [0, 3, 12])
def test_variances_are_those_of_a_gaussian_process(labelled: int) -> None:
    """In the dual form, which shares no line with the primal one of the strategies."""
    candidates = pool(25, labelled, 1)
    x_ND = candidates.need("embedding_ND")
    x_ND += np.random.default_rng(2).normal(size=x_ND.shape).astype(np.float32)  # no ties
    before_N = left_variance(x_ND, candidates.need("labelled_embedding_MD"), 0.1)
    assert rows_of("predictive_variance", candidates, 9) == np.argsort(-before_N)[:9].tolist()
    in_turn = greedy(candidates, 9, lambda centre_MD, _: left_variance(x_ND, centre_MD, 0.1))
    assert rows_of("max_det", candidates, 9) == in_turn
    assert in_turn != np.argsort(-before_N)[:9].tolist()


def test_expected_model_change_is_the_mean_gradient_of_the_last_layer() -> None:
    candidates = pool(25, 3, 0)
    member_RNK = candidates.need("member_RNK").astype(np.float64)
    with_one_ND = np.c_[candidates.need("embedding_ND"), np.ones(25)].astype(np.float64)
    gradients = np.einsum("rnk,nd->rnkd", member_RNK - member_RNK.mean(axis=0), with_one_ND)
    change_N = np.sqrt((gradients**2).sum(axis=(2, 3))).mean(axis=0)
    assert rows_of("emcm", candidates, 8) == np.argsort(-change_N)[:8].tolist()


def test_what_cannot_be_computed_is_refused() -> None:
    with pytest.raises(OptionError, match="noise must be above 0, got 0"):
        select("max_det", pool(5, 1, 0), 2, np.random.default_rng(0), noise=0.0)
    without = Candidates(ids=np.array(["a", "b"]), embedding_ND=np.eye(2), value_NK=np.eye(2))
    with pytest.raises(SelectionError, match="needs labelled_value_MK"):
        select("igs", without, 1, np.random.default_rng(0))
