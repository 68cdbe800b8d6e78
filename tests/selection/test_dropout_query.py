import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from seral.errors import OptionError
from seral.selection.candidates import Candidates
from seral.selection.strategies.clusters import k_means
from seral.selection.strategies.dropout_query import dropquery

# N candidates · R repeats (passes) · C classes · D features


def pool(count: int, passes: int, seed: int, *, noise: float = 0.3) -> Candidates:
    rng = np.random.default_rng(seed)
    p_NC = rng.dirichlet(np.ones(3), size=count).reshape(-1, 3)
    p_RNC = p_NC + noise * rng.uniform(size=(passes, count, 3))
    return Candidates(
        ids=np.array([f"u{row:04d}" for row in range(count)], dtype=np.str_),
        probability_NC=p_NC,
        dropout_RNC=p_RNC / p_RNC.sum(axis=2, keepdims=True),
        embedding_ND=rng.normal(size=(count, 4)),
    )


def changing(candidates: Candidates, passes: int) -> list[int]:
    """Rows of which more than half of the first passes say another class, counted one by one."""
    p_NC, p_RNC = candidates.need("probability_NC").tolist(), candidates.need("dropout_RNC").tolist()[:passes]
    votes = [
        [pass_NC[row].index(max(pass_NC[row])) != p_C.index(max(p_C)) for pass_NC in p_RNC]
        for row, p_C in enumerate(p_NC)
    ]
    return [row for row, others in enumerate(votes) if sum(others) > len(others) / 2]


def gen(seed: int = 0) -> np.random.Generator:
    return np.random.default_rng(seed)


@settings(max_examples=60, deadline=None)
@given(st.integers(1, 60), st.integers(1, 6), st.integers(1, 7), st.integers(0, 99), st.data())
def test_dropquery_equals_its_definition(count: int, passes: int, read: int, seed: int, data: st.DataObject) -> None:
    """k_means of who changes class; where these are too few, all of them and then the smallest margins."""
    candidates, k = pool(count, passes, seed), data.draw(st.integers(1, count))
    rows = changing(candidates, read)
    rng = gen()
    rng.bytes(8)  # the key of the draw
    expected = k_means(candidates.take(np.array(rows)), min(k, len(rows)), rng) if rows else []
    assert set(expected) <= set(candidates.ids[rows].tolist())
    top_NC = np.sort(candidates.need("probability_NC").astype(np.float64), axis=1)
    others = sorted(set(range(count)) - set(rows), key=lambda row: (top_NC[row, -1] - top_NC[row, -2], row))
    expected += candidates.ids[others[: k - len(expected)]].tolist()
    assert dropquery(candidates, k, gen(), passes=read) == expected


def test_only_a_sample_of_many_that_change_class_is_looked_at() -> None:
    candidates = pool(400, 3, 0, noise=3)
    rows = set(candidates.ids[changing(candidates, 3)].tolist())
    assert len(rows) > 100
    looked_at = [set(dropquery(candidates, 20, gen(seed), sample=20)) for seed in range(30)]
    assert all(picks < rows for picks in looked_at)
    # All that were drawn are picked: each of them as often as any other, so that 600 draws leave out few.
    assert len(set.union(*looked_at)) > 0.8 * len(rows)


def test_wrong_options_are_refused() -> None:
    with pytest.raises(OptionError, match="dropquery needs passes >= 1, got 0"):
        dropquery(pool(5, 2, 0), 1, gen(), passes=0)
    with pytest.raises(OptionError, match="dropquery needs sample >= 1, got 0"):
        dropquery(pool(5, 2, 0), 1, gen(), sample=0)
