"""Selection past one machine: every part of a pool stays where it was read, and the picks are those of one machine.

What crosses between machines is small: scores of the best rows, a shortlist, offered rows and new centres (k-center,
see strategies.farthest_first), drawn rows and bounds (k-means++ and BADGE, see draws). Strategies that
cluster the whole pool are merged instead: every part picks k, and k of all those are picked again.
"""

# N candidates · M labelled · B rows of a block · D features
from __future__ import annotations

import heapq
import itertools
import math
from collections import Counter
from collections.abc import Callable, Sequence
from types import TracebackType
from typing import Any, NamedTuple, Self

import numpy as np
import ray
from ray.util.placement_group import placement_group, remove_placement_group
from ray.util.scheduling_strategies import PlacementGroupSchedulingStrategy

from seral.active.candidates import Candidates, Floats, Rows, Stored, concatenate
from seral.active.draws import distant_draws
from seral.active.part import Kind, PoolPart
from seral.active.points import Block, Points
from seral.active.selection import NamedOptions, StrategyOptions, WrapperOptions, check_picks, default_options, select
from seral.active.source import SourceOptions
from seral.active.strategies.automatic import recommended
from seral.active.strategies.farthest_first import traverse
from seral.active.strategies.informative_diverse import shortlisted
from seral.active.strategies.uncertainty import UNCERTAINTIES
from seral.active.strategies.wrappers import rejection
from seral.errors import SelectionError
from seral.progress import say

WAIT_S = 30.0
"""Seconds between two lines that say that parts wait for room."""
CPU_UNITS = 10_000
"""Parts of a CPU that Ray counts in."""
NAMED = 3
"""How many ids a message shows."""


class Picks(NamedTuple):
    """What was picked, and whether one machine would have picked the same."""

    ids: list[str]
    exact: bool
    distance: float | None = None
    """Where it would not, and there are features: the mean distance of a candidate to the nearest that is picked or
    labelled, in the features as given."""


class Parts:
    """All parts of a pool."""

    def __init__(self, parts: Sequence[PoolPart]) -> None:
        self._parts = parts

    def __len__(self) -> int:
        return len(self._parts)

    def each(self, method: str, *arguments: Any) -> list[Any]:
        """Call a method of every part with the same arguments; what they return, in order."""
        return self.respective(method, [arguments] * len(self))

    def respective(self, method: str, arguments: Sequence[tuple[Any, ...]]) -> list[Any]:
        """Call a method of every part with its own arguments."""
        return [getattr(part, method)(*own) for part, own in zip(self._parts, arguments, strict=True)]

    def count(self) -> int:
        """Candidates of all parts."""
        return sum(self.each("count"))

    def check_ids(self) -> None:
        """Raises SelectionError when an id is in two parts. Eight bytes a row come from the parts."""
        hash_N = np.sort(np.concatenate(self.each("id_hashes")))
        found = Counter(itertools.chain(*self.each("ids_of", hash_N[1:][hash_N[1:] == hash_N[:-1]])))
        if twice := sorted(name for name, times in found.items() if times > 1):
            raise SelectionError(f"{len(twice)} ids are in two parts, e.g. {', '.join(twice[:NAMED])}")


class RemoteParts(Parts):
    """Parts in actors, on as many machines as Ray has; they end with the block that they are made for by `with`.

    They wait until all of them have room, and say so.
    """

    def __init__(self, source: SourceOptions, names: Sequence[Sequence[str]]) -> None:
        cpus = _cpus_each(len(names))
        self._room = placement_group([{"CPU": cpus}] * len(names), strategy="SPREAD")
        while not self._room.wait(WAIT_S):
            has, free = (found.get("CPU", 0) for found in (ray.cluster_resources(), ray.available_resources()))
            say(
                f"{len(names)} parts wait for room: each takes {cpus:g} CPUs, the cluster has {has:g}, of which "
                f"{free:g} are free"
            )
        self._actors = [
            _RemotePart.options(
                num_cpus=cpus, scheduling_strategy=PlacementGroupSchedulingStrategy(self._room, place)
            ).remote(source, part)
            for place, part in enumerate(names)
        ]

    def __len__(self) -> int:
        return len(self._actors)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        remove_placement_group(self._room)  # ends the actors in it

    def each(self, method: str, *arguments: Any) -> list[Any]:
        """Arguments go into the store once, for all machines."""
        shared = [ray.put(value) if isinstance(value, Block | np.ndarray) else value for value in arguments]
        return self.respective(method, [tuple(shared)] * len(self))

    def respective(self, method: str, arguments: Sequence[tuple[Any, ...]]) -> list[Any]:
        calls = [getattr(actor, method).remote(*own) for actor, own in zip(self._actors, arguments, strict=True)]
        found: list[Any] = ray.get(calls)
        return found


_RemotePart = ray.remote(PoolPart)


def _cpus_each(parts: int) -> float:
    """CPUs that each part asks for: one, or the most of which so many fit an idle cluster, node by node.

    One too where no node has any yet, for a cluster that grows.
    """
    nodes = [node["Resources"].get("CPU", 0.0) for node in ray.nodes() if node["Alive"]]
    share: float = heapq.nlargest(parts, (cpus / count for cpus in nodes for count in range(1, parts + 1)))[-1]
    return min(1.0, math.floor(share * CPU_UNITS) / CPU_UNITS) or 1.0


class PartedPoints(Points):
    """Rows of all parts in the order of their ids, wherever they are kept."""

    def __init__(self, parts: Parts, kind: Kind) -> None:
        self._parts, self._centre_D = parts, None
        if kind == "features":
            count, total_D = (sum(values) for values in zip(*parts.each("farthest", "total"), strict=True))
            self._centre_D = total_D / count
        self._widths: list[int] = parts.each("points", kind, self._centre_D)[0]
        ids = parts.each("ids")
        self.ids = np.concatenate(ids)
        part_N = np.repeat(np.arange(len(ids), dtype=np.int32), [len(part) for part in ids])
        row_N = np.concatenate([np.arange(len(part)) for part in ids])
        order = np.argsort(self.ids, kind="stable")
        self.ids, self._part_N, self._row_N = self.ids[order], part_N[order], row_N[order]

    def __len__(self) -> int:
        return len(self.ids)

    @property
    def widths(self) -> list[int]:
        return self._widths

    def labelled(self, embedding_MD: Stored) -> Points | None:
        """The labelled rows beside these."""
        return None if self._centre_D is None else Points(embedding_MD, centre_D=self._centre_D)

    def upper_bounds(self, centres: Block) -> Floats:
        bound_N = np.empty(len(self), dtype=np.float32)
        for part, found in enumerate(self._parts.each("upper_bounds", centres)):
            mine = np.flatnonzero(self._part_N == part)
            bound_N[mine] = found[self._row_N[mine]]
        return bound_N

    def largest(self) -> int:
        best = min(self._parts.each("largest"), key=lambda found: (-found[0], found[1]))
        return int(np.searchsorted(self.ids, best[1]))

    def block(self, rows: Rows | slice, *, narrow: bool = False) -> Block:
        if narrow:
            return self.block(rows).narrow()
        wanted = np.arange(len(self))[rows]
        mine = [np.flatnonzero(self._part_N[wanted] == part) for part in range(len(self._parts))]
        found = self._parts.respective("block", [(self._row_N[wanted[places]],) for places in mine])
        factors = tuple(np.empty((len(wanted), width)) for width in self._widths)
        square_B = np.empty(len(wanted))
        for places, block in zip(mine, found, strict=True):
            square_B[places] = block.square_B
            for whole, factor in zip(factors, block.factors, strict=True):
                whole[places] = factor
        return Block(factors, square_B)


def select_in_parts(strategy: StrategyOptions, parts: Parts, k: int, rng: np.random.Generator) -> Picks:
    """The k picks of a strategy from a pool in parts, held to the same contract as those of `select`."""
    count = parts.count()
    if not 0 <= k <= count:
        raise SelectionError(f"asked {strategy.name} for {k} picks of {count} candidates")
    picks = _picks(strategy, parts, k, rng)
    check_picks(strategy.name, picks.ids, k, itertools.chain(*parts.each("here", picks.ids)))
    if picks.exact or not all(parts.each("has", "embedding_ND")):
        return picks
    held = [_known(parts).labelled_centres(), _gather(parts, picks.ids).need("embedding_ND")]
    return picks._replace(distance=sum(parts.each("total_distance", np.concatenate(held))) / count)


def _picks(strategy: StrategyOptions, parts: Parts, k: int, rng: np.random.Generator) -> Picks:
    """k picks of a strategy in its wrappers, k <= N."""
    if k == 0:
        return Picks([], exact=True)
    if len(parts) == 1:
        return Picks(parts.each("pick", strategy, k, rng)[0], exact=True)
    if strategy.wrappers:
        return _wrapped(strategy, parts, k, rng)
    if strategy.name == "auto":
        choice = recommended(model=all(parts.each("has", "probability_NC")))
        wrappers = [WrapperOptions(name=choice.wrapper)]
        return _picks(StrategyOptions(name=choice.name, wrappers=wrappers), parts, k, rng)
    if strategy.name in EXACT:
        return Picks(EXACT[strategy.name](parts, k, rng, **strategy.parameters), exact=True)
    seed = int(rng.integers(2**31))
    union = sorted(itertools.chain(*parts.each("pick", strategy, k, seed)))
    return Picks(select(strategy, _gather(parts, union), k, rng), exact=False)


def _wrapped(strategy: StrategyOptions, parts: Parts, k: int, rng: np.random.Generator) -> Picks:
    """A shortlist is gathered and goes on as on one machine; the quality floor is kept where the rows are."""
    outer, inner = strategy.wrappers[0], strategy.model_copy(update={"wrappers": strategy.wrappers[1:]})
    if outer.name in ("quality", "usable"):
        try:
            if outer.name == "quality":
                parts.each("keep_good", outer.parameters)
            else:
                parts.each("keep_usable", rejection(_known(parts), **outer.parameters))
            if (left := parts.count()) < k:
                raise SelectionError(f"only {left} candidates pass {outer.name}, for {k} picks: change its limits")
            return _picks(inner, parts, k, rng)
        finally:
            parts.each("keep_everyone")
    if outer.name == "shortlist":
        return Picks(select(inner, _shortlist(parts, *_looks_at(outer, k)), k, rng), exact=True)
    raise SelectionError(
        f"{outer.name} asks its strategy several times, which needs the candidates in one place: put a shortlist first"
    )


def _random(parts: Parts, k: int, rng: np.random.Generator, *, by: str | None = None) -> list[str]:
    if by is not None:
        raise SelectionError(f"random by {by} counts groups, which needs the candidates in one place: use one part")
    return _top(parts, k, "drawn_first", rng.bytes(8).hex(), k)


def _by_uncertainty(name: str) -> Callable[..., list[str]]:
    def top(parts: Parts, k: int, rng: np.random.Generator) -> list[str]:
        return _top(parts, k, "most_uncertain", name, k)

    return top


def _k_center(parts: Parts, k: int, rng: np.random.Generator) -> list[str]:
    def each(method: str, *arguments: Any) -> list[Any]:
        return parts.each("farthest", method, *arguments)

    return [str(name) for name in traverse(each, _known(parts).labelled_centres(), k)]


def _k_means_plus_plus(parts: Parts, k: int, rng: np.random.Generator) -> list[str]:
    points = PartedPoints(parts, "features")
    chosen: list[str] = points.ids[
        distant_draws(points, points.labelled(_known(parts).labelled_centres()), k, rng)
    ].tolist()
    return chosen


def _badge(parts: Parts, k: int, rng: np.random.Generator) -> list[str]:
    points = PartedPoints(parts, "gradients")
    chosen: list[str] = points.ids[distant_draws(points, None, k, rng, first=points.largest())].tolist()
    return chosen


def _density(
    parts: Parts, k: int, rng: np.random.Generator, *, uncertainty: str = "entropy", beta: float = 1.0
) -> list[str]:
    count, total_D = (sum(values) for values in zip(*parts.each("total_direction"), strict=True))
    return _top(parts, k, "most_dense", uncertainty, beta, total_D / count, k)


def _of_shortlist(name: str) -> Callable[..., list[str]]:
    """A strategy that looks at the most uncertain candidates only: they are gathered, and it runs on them."""

    def choose(parts: Parts, k: int, rng: np.random.Generator, **options: Any) -> list[str]:
        strategy = StrategyOptions(name=name, **options)
        return select(strategy, _shortlist(parts, *_looks_at(strategy, k)), k, rng)

    return choose


EXACT: dict[str, Callable[..., list[str]]] = {
    "random": _random,
    **{name: _by_uncertainty(name) for name in UNCERTAINTIES},
    "density": _density,
    "k_center": _k_center,
    "k_means_plus_plus": _k_means_plus_plus,
    "badge": _badge,
    **{name: _of_shortlist(name) for name in ("after", "cluster_margin", "batch_bald")},
}
"""Strategies whose picks do not depend on the parts; the others are merged."""


def _top(parts: Parts, k: int, method: str, *arguments: Any) -> list[str]:
    """The k best of what the parts hold for their best, ties by id."""
    found = parts.each(method, *arguments)
    score_N, id_N = (np.concatenate(values) for values in zip(*found, strict=True))
    chosen: list[str] = id_N[np.lexsort((id_N, -score_N))[:k]].tolist()
    return chosen


def _looks_at(options: NamedOptions, k: int) -> tuple[str, int]:
    """By which uncertainty a strategy or wrapper shortlists the candidates, and how many are on its list for k."""
    chosen = {**default_options(options.name), **options.parameters}
    if options.name == "batch_bald":
        return "bald", max(chosen["shortlist"], k)
    return chosen.get("uncertainty", "margin"), shortlisted(k, chosen["beta"])


def _shortlist(parts: Parts, uncertainty: str, count: int) -> Candidates:
    return _gather(parts, _top(parts, count, "most_uncertain", uncertainty, count))


def _gather(parts: Parts, ids: Sequence[str]) -> Candidates:
    return concatenate(parts.each("take", ids))


def _known(parts: Parts) -> Candidates:
    """What is labelled in all parts, without a candidate."""
    return concatenate(parts.each("known"))
