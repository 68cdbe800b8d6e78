from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError

from seral.errors import OptionError
from seral.loop.budget import PRESETS, BudgetOptions


def test_default_is_the_clean_preset() -> None:
    assert PRESETS["clean"] == (0.05, 0.10, 0.15, 0.20)
    assert BudgetOptions().schedule(1000) == [50, 100, 150, 200]


@pytest.mark.parametrize(
    ("share", "n_train", "expected"), [(0.29, 50, 15), (0.05, 10, 1), (0.15, 1130, 170), (0.25, 10, 3), (0.2, 431, 86)]
)
def test_halves_go_up_in_decimal(share: float, n_train: int, expected: int) -> None:
    assert BudgetOptions(fractions=[share]).schedule(n_train) == [expected]


def test_a_clip_costs_its_listening_and_the_rest() -> None:
    pace = BudgetOptions.model_validate({"minutes": [30, 60.5], "pace": {"listening": 2, "deciding_s": 4}}).pace
    assert pace.seconds(np.array([1.5, 10], np.float32)).tolist() == [7, 24]


def test_sizes_are_taken_as_they_are() -> None:
    assert BudgetOptions(sizes=[10, 25]).schedule(25) == [10, 25]


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"sizes": [1], "fractions": [0.1]}, r"one of them, got sizes \[1\], fractions \[0.1\]"),
        ({"sizes": []}, "empty"),
        ({"minutes": [3, 2]}, "got 3.0 and then 2.0"),
        ({"minutes": [0]}, "above 0"),
        ({"sizes": [5, 5]}, "got 5 and then 5"),
        ({"sizes": [0, 5]}, "above 0, got 0"),
        ({"fractions": [0.2, 0.1]}, "got 0.2 and then 0.1"),
        ({"fractions": [0.5, 20]}, "at most 1, got 20"),
        ({"fractions": [float("nan")]}, "finite"),
        ({"shares": [0.1]}, "Extra inputs"),
    ],
)
def test_wrong_options_are_refused(options: dict[str, Any], message: str) -> None:
    with pytest.raises(ValidationError, match=message):
        BudgetOptions(**options)


@pytest.mark.parametrize(
    ("options", "n_train", "message"),
    [
        ({"sizes": [10, 30]}, 20, "ends at 30 labels but there are only 20"),
        ({}, 10, r"rounds 0 and 1 of the budget are 1 and 1 labels of 10"),
        ({}, 3, "starts with 0 labels of 3"),
    ],
)
def test_a_schedule_that_does_not_fit_names_both_numbers(options: dict[str, Any], n_train: int, message: str) -> None:
    with pytest.raises(OptionError, match=message):
        BudgetOptions(**options).schedule(n_train)


@given(st.integers(20, 100_000), st.lists(st.integers(1, 20), min_size=1, unique=True))
def test_a_schedule_increases_and_stays_inside(n_train: int, twentieths: list[int]) -> None:
    schedule = BudgetOptions(fractions=[part / 20 for part in sorted(twentieths)]).schedule(n_train)
    assert schedule == sorted(set(schedule))
    assert 1 <= schedule[0] <= schedule[-1] <= n_train
