from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import TypeAdapter

from seral.sweep.space import Number, OneOf, check_space, draw, grid, point_of, random_points, with_point

ADAPTER = TypeAdapter(dict[str, OneOf | Number])


def space_of(values: dict[str, Any]) -> dict[str, OneOf | Number]:
    space = ADAPTER.validate_python(values)
    check_space(space)
    return space


SPACE = space_of(
    {
        "adapter": {"of": ["frozen", "lora", "gate"]},
        "rank": {"of": [2, 4], "when": {"adapter": ["lora"]}},
        "freeze": {"of": [[], ["lora_A"]], "when": {"rank": [4]}},
        "l2": {"low": 0.01, "high": 10.0, "log": True},
        "epochs": {"low": 1, "high": 9},
    }
)


def test_a_grid_holds_every_point_once() -> None:
    points = grid(space_of({path: SPACE[path].model_dump() for path in ("adapter", "rank", "freeze")}))
    assert points == [
        {"adapter": "frozen"},
        {"adapter": "lora", "rank": 2},
        {"adapter": "lora", "rank": 4, "freeze": "[]"},
        {"adapter": "lora", "rank": 4, "freeze": '["lora_A"]'},
        {"adapter": "gate"},
    ]
    assert grid(space_of({"x": {"low": 0.1, "high": 0.7, "step": 0.3}})) == [{"x": 0.1}, {"x": 0.4}, {"x": 0.7}]
    with pytest.raises(ValueError, match=r"a list of values, or a step, for l2"):
        grid(SPACE)


def test_random_points_keep_to_the_space() -> None:
    points = random_points(SPACE, 400, seed=3)
    assert points[:50] == random_points(SPACE, 50, seed=3)
    assert points != random_points(SPACE, 400, seed=4)
    for labels in points:
        point = point_of(SPACE, labels)
        assert ("rank" in point) == (point["adapter"] == "lora")
        assert ("freeze" in point) == (point.get("rank") == 4)
        assert point.get("freeze") in (None, [], ["lora_A"])
        assert 0.01 <= point["l2"] <= 10
        assert isinstance(point["epochs"], int)
    assert {labels["epochs"] for labels in points} == set(range(1, 10)), "both ends"
    share = np.mean([labels["l2"] < 0.1 for labels in points])
    assert 0.23 < share < 0.43, "a third of the decades"


@given(st.integers(0, 1000))
def test_what_is_drawn_lies_in_the_grid(seed: int) -> None:
    values = {
        "a": {"of": [True, 1, "1", None]},
        "b": {"low": -2, "high": 2, "step": 2, "when": {"a": [None, "1"]}},
        "c": {"of": [[1], {"x": 2}], "when": {"b": [0]}},
    }
    space = space_of({**values, "a": {"of": [True, "1", None]}})
    assert random_points(space, 1, seed)[0] in grid(space)


def test_conditions_name_what_comes_before_them() -> None:
    with pytest.raises(ValueError, match="b is tried only for some c, which must be in the space before it"):
        space_of({"b": {"of": [1], "when": {"c": [1]}}, "c": {"of": [1]}})
    with pytest.raises(ValueError, match=r"b is tried for a=3, which is not among \[1, 2\]"):
        space_of({"a": {"of": [1, 2]}, "b": {"of": [1], "when": {"a": [3]}}})


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"low": 2, "high": 1}, "needs low < high"),
        ({"low": 0, "high": 1, "log": True}, "both above 0 for a logarithm"),
        ({"low": 1, "high": 3, "log": True, "step": 1}, "log and step exclude one another"),
        ({"of": []}, "at least 1 item"),
        ({"of": ["a", "a"]}, "named twice"),
    ],
)
def test_ranges_that_cannot_be(values: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        space_of({"x": values})


def test_a_point_goes_into_its_places() -> None:
    base = {"finetune": {"adapter": "frozen", "head": {"l2": 1}}, "pool": "p"}
    merged = with_point(base, {"finetune.head.l2": 2, "finetune.settings.lora.rank": 4, "anchor": None})
    assert merged == {
        "finetune": {"adapter": "frozen", "head": {"l2": 2}, "settings": {"lora": {"rank": 4}}},
        "pool": "p",
        "anchor": None,
    }
    assert base["finetune"] == {"adapter": "frozen", "head": {"l2": 1}}, "the base stays as it is"


def test_values_of_all_kinds_come_back_from_their_labels() -> None:
    class Last:
        def one_of(self, path: str, labels: list[Any]) -> Any:
            return labels[-1]

        def number(self, path: str, of: Number) -> float:
            return of.high

    space = space_of({"a": {"of": [1, None]}, "b": {"of": ["x", {"y": [1]}]}, "c": {"low": 1, "high": 2.5}})
    labels = draw(space, Last())
    assert labels == {"a": None, "b": '{"y": [1]}', "c": 2.5}
    assert point_of(space, labels) == {"a": None, "b": {"y": [1]}, "c": 2.5}
