import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from seral.errors import OptionError
from seral.selection.candidates import Candidates
from seral.selection.parts.local import Parts
from seral.selection.parts.part import PoolPart
from seral.selection.strategies import dynamic_coverage
from seral.selection.strategies.dynamic_coverage import competence, dcom
from seral.selection.strategies.uniform import drawn
from seral.vectors.neighbourhoods import pure_radius
from seral.vectors.view import View, unit_rows

# N candidates · M labelled · C classes · D features


def pool(count: int, labelled: int, seed: int) -> Candidates:
    """Rows around three directions, which the model tells apart more or less."""
    rng = np.random.default_rng(seed)
    group_N = rng.integers(3, size=count)
    p_NC = np.eye(3)[group_N] + rng.uniform(0, 1.2, size=(count, 3))
    return Candidates(
        ids=np.array([f"u{row:04d}" for row in range(count)]),
        probability_NC=p_NC / p_NC.sum(axis=1, keepdims=True),
        embedding_ND=2 * np.eye(5)[group_N] + rng.normal(size=(count, 5)),
        labelled_ids=np.array([f"v{row}" for row in range(labelled)], dtype=np.str_),
        labelled_embedding_MD=2 * np.eye(5)[np.arange(labelled) % 3] + rng.normal(size=(labelled, 5)),
    )


def rows(picks: list[str]) -> list[int]:
    return [int(pick[1:]) for pick in picks]


def gen() -> np.random.Generator:
    return np.random.default_rng(0)


def away(one_ND: NDArray[np.float32], other_MD: NDArray[np.float32]) -> NDArray[np.float32]:
    return ((one_ND[:, None].astype(np.float64) - other_MD) ** 2).sum(axis=2).astype(np.float32)


def plain_dcom(candidates: Candidates, k: int, centre: float = 0.8, steepness: float = 50.0) -> list[int]:
    """The definition: all pairs of rows, and all counts anew for every pick."""
    p_NC, count = candidates.need("probability_NC").astype(np.float64), len(candidates)
    unit_ND, labelled_MD = (
        unit_rows(candidates.need("embedding_ND")),
        unit_rows(candidates.need("labelled_embedding_MD")),
    )
    square_NN, square_MN, class_N = away(unit_ND, unit_ND), away(labelled_MD, unit_ND), p_NC.argmax(axis=1)
    covered_N, radius = np.zeros(count, bool), 0.0
    for _ in range(2):
        purity, radii = 0.4 + 0.2 * covered_N.mean(), []
        for square_N in square_MN:
            low, high = 0.0, 2.0
            while high - low > 2 / 2**12:
                middle = (low + high) / 2
                inside = np.flatnonzero(square_N <= middle**2)
                pure = sum(class_N[inside] == class_N[square_N.argmin()]) >= purity * len(inside)
                low, high = (middle, high) if pure else (low, middle)
            radii.append(low)
        covered_N = (square_MN <= np.square(radii)[:, None]).any(axis=0) if radii else covered_N
        radius = float(np.mean(radii)) if radii else pure_radius(View(unit_ND), class_N, 0.95, 1)
    near_NN = square_NN <= np.float32(radius**2)
    if candidates.picked is not None:
        covered_N |= (away(unit_ND, unit_rows(candidates.picked.need("embedding_ND"))) <= np.float32(radius**2)).any(
            axis=1
        )
    margin_N = -np.diff(np.sort(p_NC, axis=1)[:, -2:], axis=1)[:, 0]
    unsure_N = (margin_N - margin_N.min()) / max(np.ptp(margin_N), 1e-300)
    picks: list[int] = []
    while len(picks) < k:
        p = 1 + math.exp(-steepness * (1 - centre))
        c = p / (1 + math.exp(-steepness * (covered_N.mean() - centre)))
        count_N = (near_NN & ~covered_N).sum(axis=1)
        score_N = c * unsure_N + (1 - c) * count_N / max(1, count_N.max())
        score_N[picks] = -1
        picks.append(int(score_N.argmax()))
        covered_N |= near_NN[picks[-1]]
    return picks


@settings(max_examples=30, deadline=None)
@given(st.integers(1, 60), st.integers(0, 6), st.sampled_from([(0.8, 50.0), (0.5, 5.0)]), st.integers(0, 99), st.data())
def test_dcom_equals_its_definition(
    count: int, labelled: int, logistic: tuple[float, float], seed: int, data: st.DataObject
) -> None:
    candidates, k = pool(count, labelled, seed), data.draw(st.integers(1, count))
    expected = plain_dcom(candidates, k, *logistic)
    assert rows(dcom(candidates, k, gen(), centre=logistic[0], steepness=logistic[1])) == expected


def test_dcom_over_many_blocks_equals_its_definition(monkeypatch: pytest.MonkeyPatch) -> None:
    candidates = pool(300, 9, 1)
    expected = plain_dcom(candidates, 60)
    assert rows(dcom(candidates, 60, gen())) == expected
    monkeypatch.setattr(dynamic_coverage, "BLOCK", 4)
    assert rows(dcom(candidates, 60, gen())) == expected


@settings(max_examples=30, deadline=None)
@given(st.integers(0, 6), st.integers(1, 20), st.integers(0, 99))
def test_who_is_picked_already_covers_and_is_no_label(labelled: int, picked: int, seed: int) -> None:
    """A wrapper asks again: radii go by labels alone, and what is near to a pick is covered."""
    candidates = pool(60, labelled, seed)
    left = candidates.but(candidates.ids[:picked].tolist())
    expected = left.ids[plain_dcom(left, 20)].tolist()
    assert dcom(left, 20, gen()) == expected


def test_the_weight_of_the_margin_goes_from_0_to_1() -> None:
    weights = [competence(coverage, 0.8, 50) for coverage in np.linspace(0, 1, 11)]
    assert weights == sorted(weights)
    assert weights[0] < 1e-10
    assert weights[-1] == 1
    assert competence(0.8, 0.8, 50) == pytest.approx(0.5, abs=1e-4)


def test_a_large_pool_is_drawn_from() -> None:
    candidates = pool(200, 5, 0)
    small = candidates.take(candidates.rows(drawn(Parts([PoolPart(candidates)]), 40, gen()).ids.tolist()))
    assert dcom(candidates, 12, gen(), sample=40) == dcom(small, 12, gen())


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"centre": 1.5}, "dcom needs a centre in 0..1, got 1.5"),
        ({"centre": math.nan}, "dcom needs a centre in 0..1, got nan"),
        ({"steepness": -1.0}, "dcom needs a finite steepness >= 0, got -1.0"),
        ({"sample": 0}, "dcom needs sample >= 1, got 0"),
    ],
)
def test_wrong_options_are_refused(options: dict[str, float], message: str) -> None:
    with pytest.raises(OptionError, match=message):
        dcom(pool(9, 1, 0), 1, gen(), **options)  # type: ignore[arg-type]
