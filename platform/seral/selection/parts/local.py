"""A pool in parts, all of them in this process; seral.selection.parts.actors spreads them over machines."""

from __future__ import annotations

import functools
import itertools
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any, Concatenate, NamedTuple, ParamSpec, Self, TypeVar

import numpy as np

from seral.errors import SelectionError
from seral.selection.candidates import Candidates, concatenate
from seral.selection.parts.part import PoolPart
from seral.vectors.arrays import Doubles, Strings

# N candidates · D features

NAMED = 3
"""Number of ids that a message shows."""

P = ParamSpec("P")
T = TypeVar("T")


class Picks(NamedTuple):
    """Picks of a pool in parts, and whether one machine would have picked the same."""

    ids: list[str]
    exact: bool
    distance: float | None = None
    """Mean distance of a candidate to the nearest utterance that is picked or labelled, in the features as given; None
    where one machine would have picked the same, or there are no features."""
    strategy: str | None = None
    """The strategy that was chosen, where one stands for others."""
    reasons: tuple[Any, ...] = ()
    """Reasons of picks (seral.loop.reasons), where they were asked for."""

    def then(self, more: Picks) -> Picks:
        """Picks of both, the other's last."""
        strategy, reasons = self.strategy or more.strategy, self.reasons + more.reasons
        return Picks(self.ids + more.ids, self.exact and more.exact, strategy=strategy, reasons=reasons)


class Parts:
    """All parts of a pool."""

    def __init__(self, parts: Sequence[PoolPart]) -> None:
        self._parts = parts

    def __len__(self) -> int:
        return len(self._parts)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *error: object) -> None:
        """Nothing ends with the block."""

    def each(
        self, function: Callable[Concatenate[PoolPart, P], T], /, *arguments: P.args, **options: P.kwargs
    ) -> list[T]:
        """Call a method of PoolPart, or a function of one, for every part with the same arguments; answers in order.

        Whatever is called must be a module's own function or method, so that an actor finds it by its name.
        """
        return self.respective(function, [arguments] * len(self), **options)

    def respective(
        self, function: Callable[Concatenate[PoolPart, ...], T], arguments: Sequence[tuple[Any, ...]], **options: Any
    ) -> list[T]:
        """Call a function of every part with arguments of its own."""
        return [part.call(function, *own, **options) for part, own in zip(self._parts, arguments, strict=True)]

    @contextmanager
    def aside(self) -> Iterator[None]:
        """Whoever is picked or left out within the block is a candidate again after it."""
        self.each(PoolPart.remember)
        try:
            yield
        finally:
            self.each(PoolPart.come_back)

    def sizes(self, by: str) -> tuple[Counter[str], Counter[str]]:
        """Number of candidates of every group, and number of its picks."""
        sizes, picked_sizes = zip(*self.each(PoolPart.sizes, by), strict=True)
        return sum(sizes, Counter()), sum(picked_sizes, Counter())

    def count(self) -> int:
        """Candidates of all parts."""
        return sum(self.each(PoolPart.count))

    def gather(self, ids: Sequence[str]) -> Candidates:
        """The candidates of these ids, in this process."""
        return concatenate(self.each(PoolPart.take, ids))

    def labelled_part(self) -> Candidates:
        """Labelled and picked rows of all parts, without a candidate."""
        return concatenate(self.each(PoolPart.labelled_part))

    def check_ids(self) -> None:
        """Raises SelectionError when an id is in two parts. Eight bytes a row come from the parts."""
        if len(self) == 1:
            return  # Candidates have looked at it
        hash_N = np.sort(np.concatenate(self.each(PoolPart.id_hashes)))
        times_of = Counter(itertools.chain(*self.each(PoolPart.ids_of, hash_N[1:][hash_N[1:] == hash_N[:-1]])))
        if twice := sorted(name for name, times in times_of.items() if times > 1):
            raise SelectionError(f"{len(twice)} ids are in two parts, e.g. {', '.join(twice[:NAMED])}")


def mean_of(totals: Sequence[tuple[int, Doubles]]) -> Doubles:
    """The mean row of all parts, (D,), by the rows and the sum of each."""
    total_D: Doubles = functools.reduce(np.add, [total_D for _, total_D in totals])
    return total_D / sum(count for count, _ in totals)


def best_of(replies: Sequence[tuple[Doubles, Strings]], k: int) -> list[str]:
    """Ids of the k largest scores among those that the parts sent for their best, ties by id."""
    score_N, id_N = (np.concatenate(values) for values in zip(*replies, strict=True))
    ids: list[str] = id_N[np.lexsort((id_N, -score_N))[:k]].tolist()
    return ids
