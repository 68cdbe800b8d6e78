import numpy as np
import pytest
from numpy.typing import NDArray

from seral.vectors import view as views
from seral.vectors.view import View, slabs, unit_rows

# N rows · D features


@pytest.fixture
def arrays() -> tuple[NDArray[np.float16], NDArray[np.float32]]:
    rng = np.random.default_rng(0)
    first = rng.normal(size=(7, 3)).astype(np.float16)
    first[2] = 0
    return first, rng.normal(size=(4, 3)).astype(np.float32)


@pytest.mark.parametrize("unit", [False, True])
def test_a_view_reads_what_a_copy_would_hold(arrays: tuple[NDArray, ...], unit: bool) -> None:
    whole_ND = np.concatenate([array.astype(np.float32) for array in arrays])
    expected_ND = unit_rows(whole_ND) if unit else whole_ND
    view, wanted = View(*arrays, unit=unit), np.array([10, 0, 6, 7, 7])
    assert view.shape == expected_ND.shape
    assert len(view) == len(expected_ND)
    for rows in (slice(None), slice(5, 9), slice(8, 8), slice(7, 99), wanted):
        assert view[rows].tobytes() == expected_ND[rows].tobytes()
    assert view.only(wanted)[1:3].tobytes() == expected_ND[wanted][1:3].tobytes()
    assert view.only(wanted).only(np.array([3, 1]))[:].tobytes() == expected_ND[[7, 0]].tobytes()


def test_what_is_read_is_a_copy_even_of_what_may_not_be_written() -> None:
    x_ND = np.ones((4, 2), np.float32)
    x_ND.setflags(write=False)
    View(x_ND)[:2][:] = 5
    unit_rows(x_ND)[:] = 5
    assert (x_ND == 1).all()


def test_the_mean_is_that_of_all_slabs(arrays: tuple[NDArray, ...], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(views, "NUMBERS", 6)
    mean_D = np.concatenate([array.astype(np.float64) for array in arrays]).mean(axis=0)
    np.testing.assert_allclose(View(*arrays).mean(), mean_D, rtol=1e-12)


def test_slabs_cover_every_row_once_and_hold_one_row_at_least(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(views, "NUMBERS", 10)
    assert [(part.start, part.stop) for part in slabs(7, 4)] == [(0, 2), (2, 4), (4, 6), (6, 7)]
    assert len(list(slabs(3, 99))) == 3
    assert list(slabs(0, 4)) == []


def test_a_row_of_zeros_stays_zero() -> None:
    assert unit_rows(np.array([[0, 0], [3, 4]], dtype=np.float32)).tolist() == [
        [0, 0],
        [pytest.approx(0.6), pytest.approx(0.8)],
    ]
