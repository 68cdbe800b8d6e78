import itertools
from collections import Counter

import numpy as np
import pytest
from scipy.stats import chisquare

from seral.errors import SelectionError
from seral.selection.candidates import Candidates
from seral.selection.strategies.spread import badge
from seral.vectors import seeding
from seral.vectors.distances import (
    Centres,
    Points,
    distances,
    feature_points,
    gradient_points,
    nearest_distance,
    upper_bounds,
)
from seral.vectors.seeding import seed_rows

# N rows · M labelled · C classes · D features


def gradients(p_NC: np.ndarray, u_ND: np.ndarray) -> np.ndarray:
    """The gradient embedding, built."""
    error_NC = p_NC - np.eye(p_NC.shape[1])[p_NC.argmax(axis=1)]
    return np.einsum("nc,nd->ncd", error_NC, u_ND).reshape(len(p_NC), -1)


@pytest.mark.parametrize("stored", [np.float32, np.float16])
def test_distances_of_gradients_are_those_of_the_embedding_that_is_never_built(stored: type) -> None:
    rng = np.random.default_rng(0)
    p_NC, u_ND = rng.dirichlet(np.ones(4), size=30).astype(np.float32), rng.normal(size=(30, 6)).astype(stored)
    built_NG = gradients(p_NC.astype(np.float64), u_ND.astype(np.float64))
    exact_NN = ((built_NG[:, None] - built_NG) ** 2).sum(axis=2)
    block = gradient_points(p_NC, u_ND).block(slice(None))
    np.testing.assert_allclose(distances(block, block), exact_NN, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("offset", [0, 1000])
def test_distances_of_features_keep_their_digits_far_from_the_origin(offset: float) -> None:
    x_ND = (np.random.default_rng(0).normal(size=(30, 6)) + offset).astype(np.float32)
    wide_ND = x_ND.astype(np.float64)
    block = feature_points(x_ND).block(slice(None))
    np.testing.assert_allclose(
        distances(block, block), ((wide_ND[:, None] - wide_ND) ** 2).sum(axis=2), rtol=1e-6, atol=1e-6
    )


def test_the_nearest_centre_is_found_over_many_slabs(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("seral.vectors.distances.SLAB", 3)
    points = feature_points(np.random.default_rng(0).normal(size=(20, 4)).astype(np.float32))
    centres = Centres(points.widths, 10)
    centres.add(points.block(slice(0, 4)))
    centres.add(points.block(slice(4, 10)))
    exact_NM = distances(points.block(slice(None)), points.block(slice(0, 10)))
    assert nearest_distance(points.block(slice(None)), centres).tolist() == exact_NM.min(axis=1).tolist()
    late_N = upper_bounds(points.block(slice(None), narrow=True), centres.since(7, narrow=True))
    np.testing.assert_allclose(late_N, exact_NM[:, 7:].min(axis=1), rtol=1e-3, atol=1e-3)
    assert np.isinf(upper_bounds(points.block(slice(None), narrow=True), centres.since(10, narrow=True))).all()


@pytest.mark.parametrize("offset", [0, 1, 1e4])
@pytest.mark.parametrize("kind", ["features", "gradients"])
def test_upper_bounds_are_never_below_the_distance_and_close_to_it(kind: str, offset: float) -> None:
    rng = np.random.default_rng(0)
    x_ND = (rng.normal(size=(400, 64)) * 10.0 ** rng.uniform(-3, 3, size=(400, 1)) + offset).astype(np.float32)
    p_NC = rng.dirichlet(np.ones(5), size=400).astype(np.float32)
    points = feature_points(x_ND) if kind == "features" else gradient_points(p_NC, x_ND)
    centre = points.block(slice(0, 40))
    exact_N = distances(points.block(slice(None)), centre).min(axis=1)
    bound_N = points.upper_bounds(centre)
    assert (bound_N >= exact_N).all()
    scale_N = points.block(slice(None)).square_B + centre.square_B.max()
    assert ((bound_N - exact_N) / scale_N).max() < 1e-4


@pytest.mark.parametrize("labelled", [0, 2])
@pytest.mark.parametrize("stale", [0.0, 1e9])
def test_draws_have_the_distribution_of_the_textbook(
    labelled: int, stale: float, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Every series of three draws as often as its probability says, with bounds always fresh and never refreshed."""
    monkeypatch.setattr(seeding, "FIRST_BLOCK", 3)
    monkeypatch.setattr(seeding, "STALE", stale)
    rng = np.random.default_rng(0)
    x_ND, labelled_MD = rng.normal(size=(6, 2)), rng.normal(size=(labelled, 2))
    square_NN = ((x_ND[:, None] - x_ND) ** 2).sum(axis=2)
    square_NM = ((x_ND[:, None] - labelled_MD) ** 2).sum(axis=2)
    expected = {}
    for series in itertools.permutations(range(6), 3):
        chance, taken = 1.0, list[int]()
        for row in series:
            near_N = np.concatenate([square_NM, square_NN[:, taken]], axis=1).min(axis=1, initial=np.inf)
            weight_N = near_N if np.isfinite(near_N).all() else np.ones(6)
            chance *= weight_N[row] / weight_N.sum()
            taken.append(row)
        expected[series] = chance
    points = feature_points(x_ND.astype(np.float32))
    labelled_points = Points(labelled_MD.astype(np.float32), centre_D=points.centre_D)
    count = 6000
    counts = dict.fromkeys(expected, 0)
    for _ in range(count):
        counts[tuple(seed_rows(points, labelled_points, 3, rng).tolist())] += 1
    common = [series for series, chance in expected.items() if chance * count >= 5]
    rare = [series for series in expected if series not in set(common)]
    observed = [*(counts[series] for series in common), sum(counts[series] for series in rare)]
    wanted = [*(expected[series] for series in common), sum(expected[series] for series in rare)]
    assert chisquare(observed, np.array(wanted) * count / sum(wanted)).pvalue > 1e-4


def test_badge_starts_with_the_largest_gradient() -> None:
    p_NC = np.array([[0.5, 0.5], [0.9, 0.1], [0.5, 0.5]], dtype=np.float32)
    u_ND = np.array([[1.0, 0.0], [9.0, 0.0], [2.0, 0.0]], dtype=np.float32)
    points = gradient_points(p_NC, u_ND)
    assert points.largest() == int((gradients(p_NC, u_ND) ** 2).sum(axis=1).argmax()) == 1 + 1


def test_badge_draws_by_the_distance_between_gradients_that_are_built() -> None:
    """From the largest on, every series of two draws as often as its squared distances to what is picked say."""
    rng = np.random.default_rng(1)
    p_NC, u_ND = rng.dirichlet(np.ones(3), size=6).astype(np.float32), rng.normal(size=(6, 2)).astype(np.float32)
    candidates = Candidates(ids=np.array(list("abcdef")), probability_NC=p_NC, embedding_ND=u_ND)
    built_NG = gradients(p_NC.astype(np.float64), u_ND.astype(np.float64))
    square_NN = ((built_NG[:, None] - built_NG) ** 2).sum(axis=2)
    first = int((built_NG**2).sum(axis=1).argmax())
    chance = {}
    for second, third in itertools.permutations(sorted({*range(6)} - {first}), 2):
        one_N, two_N = square_NN[first], np.minimum(square_NN[first], square_NN[second])
        chance["".join("abcdef"[row] for row in (first, second, third))] = (
            one_N[second] / one_N.sum() * two_N[third] / two_N.sum()
        )
    draws = 5000
    counts = Counter("".join(badge(candidates, 3, np.random.default_rng(seed))) for seed in range(draws))
    assert set(counts) <= set(chance)
    assert min(chance.values()) * draws >= 5
    wanted = np.array(list(chance.values())) * draws
    assert chisquare([counts[series] for series in chance], wanted * draws / wanted.sum()).pvalue > 1e-3


def test_features_whose_distances_overflow_are_refused() -> None:
    points = feature_points((1e20 * np.random.default_rng(0).normal(size=(40, 4))).astype(np.float32))
    with np.errstate(over="ignore"):
        centre = points.block(np.array([3]))
        with pytest.raises(SelectionError, match="too large to take distances"):
            points.upper_bounds(centre)
