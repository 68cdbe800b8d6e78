"""The space of a sweep: options of a training by path, each one of several values or a number from a range.

    finetune.adapter: [lora, gate]                        one of these
    finetune.head.l2: {low: 0.003, high: 3, log: true}    a number; whole where both ends are
    finetune.settings.lora.rank: {of: [2, 4, 8], when: {finetune.adapter: [lora]}}    only where another has this value

A point of the space maps paths to values; paths whose condition does not hold are left out of it.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from typing import Any, Protocol

import numpy as np
from pydantic import Field, model_validator

from seral.errors import OptionError
from seral.options import Options, deep_copy, put

Point = dict[str, Any]
Plain = str | int | float | bool | None


class Dimension(Options):
    """One option of a space."""

    when: dict[str, list[Any]] = Field(default={})
    """Only where these options, named before, have one of these values."""

    def applies(self, point: Mapping[str, Any]) -> bool:
        """Whether the conditions hold."""
        return all(path in point and point[path] in values for path, values in self.when.items())


class OneOf(Dimension):
    """One of several values."""

    of: list[Any] = Field(min_length=1)

    @model_validator(mode="after")
    def _check_values(self) -> OneOf:
        names = [label(value) for value in self.of]
        if len(set(map(repr, names))) < len(names):
            raise ValueError(f"a value is named twice in {names}")
        return self


class Number(Dimension):
    """A number from a range, both ends included; whole where both ends are."""

    low: int | float
    high: int | float
    log: bool = False
    """Even in the logarithm: for rates and penalties."""
    step: int | float | None = Field(default=None, gt=0)
    """Only low, low + step, ...; a grid needs it."""

    @model_validator(mode="after")
    def _check_range(self) -> Number:
        if not self.low < self.high or (self.log and self.low <= 0):
            raise ValueError(f"needs low < high, both above 0 for a logarithm; got {self.low} and {self.high}")
        if self.log and self.step is not None:
            raise ValueError("log and step exclude one another")
        return self

    @property
    def whole(self) -> bool:
        """Whether it is a whole number."""
        return isinstance(self.low, int) and isinstance(self.high, int)


class Chooser(Protocol):
    """Choice of the values of a point: random numbers, or Optuna."""

    def one_of(self, path: str, labels: list[Plain]) -> Plain:
        """One of the labels."""

    def number(self, path: str, of: Number) -> int | float:
        """A number from a range."""


Space = Mapping[str, OneOf | Number]


def check_space(space: Space) -> None:
    """Raise ValueError for a condition on an option that is not named before it, or on a value that it never has."""
    for position, (path, dimension) in enumerate(space.items()):
        for other, values in dimension.when.items():
            if other not in list(space)[:position]:
                raise ValueError(f"{path} is tried only for some {other}, which must be in the space before it")
            condition = space[other]
            if isinstance(condition, OneOf) and (never := [value for value in values if value not in condition.of]):
                raise ValueError(f"{path} is tried for {other}={never[0]!r}, which is not among {condition.of}")


def draw(space: Space, chooser: Chooser) -> dict[str, Plain]:
    """A point with labels for values, as searchers and logs want them; `point_of` gives the values."""
    point, labels = Point(), dict[str, Plain]()
    for path, dimension in space.items():
        if not dimension.applies(point):
            continue
        if isinstance(dimension, OneOf):
            labels[path] = chooser.one_of(path, [label(value) for value in dimension.of])
            point[path] = _value(dimension, labels[path])
        else:
            point[path] = labels[path] = chooser.number(path, dimension)
    return labels


def leading_to(space: Space, labels: Mapping[str, Plain]) -> dict[str, Plain]:
    """The point with these labels, what their conditions ask for, and first values for the rest."""
    wanted, left = dict(labels), list(labels)
    while left:
        for other, values in space[left.pop()].when.items():
            if other not in wanted:
                wanted[other] = label(values[0])
                left.append(other)
    return draw(space, _First(wanted))


def point_of(space: Space, labels: Mapping[str, Plain]) -> Point:
    """The values that labels stand for."""
    dimensions = {path: space[path] for path in labels}
    return {path: _value(d, labels[path]) if isinstance(d, OneOf) else labels[path] for path, d in dimensions.items()}


def random_points(space: Space, count: int, seed: int) -> list[dict[str, Plain]]:
    """Points drawn at random, the first of them the same however many are drawn."""
    return [draw(space, _Random(np.random.default_rng([seed, number]))) for number in range(count)]


def grid(space: Space) -> list[dict[str, Plain]]:
    """Every point once. Raises ValueError for a range without step."""
    for path, dimension in space.items():
        if isinstance(dimension, Number) and dimension.step is None:
            raise ValueError(f"a grid needs a list of values, or a step, for {path}")
    return list(_grid(space, list(space), Point()))


def _grid(space: Space, left: list[str], point: Point) -> Iterator[dict[str, Plain]]:
    if not left:
        yield {path: label(value) for path, value in point.items()}
        return
    path, *further = left
    dimension = space[path]
    if not dimension.applies(point):
        yield from _grid(space, further, point)
        return
    for value in dimension.of if isinstance(dimension, OneOf) else _steps(dimension):
        yield from _grid(space, further, {**point, path: value})


def _steps(of: Number) -> list[int | float]:
    count = int((of.high - of.low) / (of.step or 1) + 1e-9) + 1
    return [round(of.low + number * (of.step or 1), 12) for number in range(count)]


def with_point(values: Mapping[str, Any], point: Mapping[str, Any]) -> dict[str, Any]:
    """Plain options with those of a point in their places."""
    merged = deep_copy(values)
    for path, value in point.items():
        put(merged, path, value)
    return merged


def label(value: Any) -> Plain:
    """A value as searchers, logs and tables can hold it."""
    return value if isinstance(value, Plain) else json.dumps(value, ensure_ascii=False)


def _value(dimension: OneOf, name: Plain) -> Any:
    for value in dimension.of:
        if label(value) == name and isinstance(label(value), bool) == isinstance(name, bool):
            return value
    raise OptionError(f"no value {name!r} among {dimension.of}")


class _First:
    """The values asked for, and the first of every other option."""

    def __init__(self, wanted: Mapping[str, Plain]) -> None:
        self._wanted = wanted

    def one_of(self, path: str, labels: list[Plain]) -> Plain:
        return self._wanted.get(path, labels[0])

    def number(self, path: str, of: Number) -> int | float:
        value = self._wanted.get(path, of.low)
        return value if isinstance(value, int | float) else of.low


class _Random:
    """Independent even draws."""

    def __init__(self, rng: np.random.Generator) -> None:
        self._rng = rng

    def one_of(self, path: str, labels: list[Plain]) -> Plain:
        return labels[int(self._rng.integers(len(labels)))]

    def number(self, path: str, of: Number) -> int | float:
        if of.step is not None:
            steps = _steps(of)
            return steps[int(self._rng.integers(len(steps)))]
        if of.whole and not of.log:
            return int(self._rng.integers(int(of.low), int(of.high), endpoint=True))
        low, high = np.log((of.low, of.high)) if of.log else (of.low, of.high)
        value = float(self._rng.uniform(low, high))
        value = float(np.exp(value)) if of.log else value
        return round(value) if of.whole else value
