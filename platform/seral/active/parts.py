"""Selection past one machine: every part of a pool stays where it was read, and the picks are those of one machine.

What crosses between machines is small: scores of the best rows, a shortlist, offered rows and new centres (k-center,
see strategies.farthest_first), drawn rows and bounds (k-means++ and BADGE, see draws). Strategies that
cluster the whole pool are merged instead: every part picks k, and k of all those are picked again.
"""

# N candidates · M labelled · B rows of a block · D features
from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any, Literal, NamedTuple

import numpy as np
import ray
from numpy.typing import NDArray

from seral.active.candidates import Candidates, Floats, Rows, Stored, Strings, concatenate
from seral.active.draws import distant_draws
from seral.active.points import Block, Points, feature_points, gradient_points
from seral.active.selection import NamedOptions, StrategyOptions, WrapperOptions, default_options, select
from seral.active.source import SourceOptions, read_candidates
from seral.active.strategies import scores
from seral.active.strategies.automatic import recommended
from seral.active.strategies.farthest_first import Part, traverse
from seral.active.strategies.informative_diverse import shortlisted
from seral.active.strategies.uncertainty import UNCERTAINTIES, density_scores, total_direction, uncertainty_of
from seral.active.strategies.uniform import lots
from seral.active.strategies.wrappers import Rejection, is_good, is_usable, rejection
from seral.errors import SelectionError

Doubles = NDArray[np.float64]
Kind = Literal["features", "gradients"]


class Picks(NamedTuple):
    """What was picked, and whether one machine would have picked the same."""

    ids: list[str]
    exact: bool


class PoolPart:
    """Some of the candidates, in this process or in an actor."""

    def __init__(self, source: SourceOptions | Candidates, names: Sequence[str] = ()) -> None:
        self._everyone = source if isinstance(source, Candidates) else read_candidates(source, names)
        self.candidates = self._everyone

    def keep_good(self, limits: dict[str, float]) -> None:
        """Leave out recordings below the quality limits (wrappers.quality)."""
        self._keep(is_good(self.candidates, **limits))

    def keep_usable(self, told: Rejection | None) -> None:
        """Leave out what sounds like what was rejected (wrappers.usable); None = nothing was."""
        self._keep(is_usable(self.candidates, told))

    def keep_everyone(self) -> None:
        """Take all in again."""
        self.candidates = self._everyone

    def count(self) -> int:
        """How many there are."""
        return len(self.candidates)

    def has_model(self) -> bool:
        """Whether a model's probabilities are there."""
        return self.candidates.probability_NC is not None

    def ids(self) -> Strings:
        """Ids in order."""
        return self.candidates.ids

    def known(self) -> Candidates:
        """What is labelled among its rows, without a candidate."""
        nobody = self.candidates.take(np.empty(0, dtype=np.intp))
        rejected_M = np.zeros(len(nobody.labelled_centres()), bool) if nobody.rejected_M is None else nobody.rejected_M
        return replace(nobody, labelled_embedding_MD=nobody.labelled_centres(), rejected_M=rejected_M)

    def take(self, ids: Sequence[str]) -> Candidates:
        """Those of the ids that are here."""
        return self.candidates.take(np.flatnonzero(np.isin(self.candidates.ids, np.asarray(ids, dtype=np.str_))))

    def drawn_first(self, key: str, k: int) -> tuple[Doubles, Strings]:
        """The k smallest lots, as scores."""
        return self._best(-lots(self.candidates.ids, key), k)

    def most_uncertain(self, name: str, k: int) -> tuple[Doubles, Strings]:
        """The k largest scores of uncertainty."""
        return self._best(uncertainty_of(self.candidates, name), k)

    def total_direction(self) -> tuple[int, Doubles]:
        """Rows, and the sum of their directions."""
        return len(self.candidates), total_direction(self.candidates.need("embedding_ND"))

    def most_dense(self, uncertainty: str, beta: float, direction_D: Doubles, k: int) -> tuple[Doubles, Strings]:
        """The k largest density-weighted scores."""
        return self._best(density_scores(self.candidates, uncertainty, beta, direction_D), k)

    def pick(self, strategy: StrategyOptions, k: int, seed: int) -> list[str]:
        """What the strategy picks of these rows alone."""
        return select(strategy, self.candidates, min(k, len(self.candidates)), np.random.default_rng(seed))

    def farthest(self, method: str, *arguments: Any) -> Any:
        """A method of farthest_first.Part."""
        if method == "total":  # the first thing that is asked
            self._part = Part(self.candidates.ids, self.candidates.need("embedding_ND"))
        return getattr(self._part, method)(*arguments)

    def points(self, kind: Kind, mean_D: Doubles | None) -> list[int]:
        """Make ready for distances; returns the widths of the factors."""
        x_ND = self.candidates.need("embedding_ND")
        self._points: Points = (
            feature_points(x_ND, mean_D)
            if kind == "features"
            else gradient_points(self.candidates.need("probability_NC"), x_ND)
        )
        return self._points.widths

    def block(self, rows: Rows) -> Block:
        """Some rows."""
        return self._points.block(rows)

    def upper_bounds(self, centres: Block) -> Floats:
        """Upper bounds of the distance of every row to the nearest of some centres."""
        return self._points.upper_bounds(centres)

    def largest(self) -> tuple[float, str]:
        """Squared norm and id of the largest row."""
        if not len(self._points):
            return -1.0, ""
        row = self._points.largest()
        return float(np.float32(self._points.block(np.array([row])).square_B[0])), str(self.candidates.ids[row])

    def _keep(self, wanted_N: NDArray[np.bool_]) -> None:
        if not wanted_N.all():  # without a copy of the features, else
            self.candidates = self.candidates.take(np.flatnonzero(wanted_N))

    def _best(self, score_N: Doubles, k: int) -> tuple[Doubles, Strings]:
        rows = scores.top_rows(score_N, k)
        return score_N[rows], self.candidates.ids[rows]


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


class RemoteParts(Parts):
    """Parts in actors, on as many machines as Ray has."""

    def __init__(self, source: SourceOptions, names: Sequence[Sequence[str]]) -> None:
        self._actors = [_RemotePart.remote(source, part) for part in names]

    def __len__(self) -> int:
        return len(self._actors)

    def each(self, method: str, *arguments: Any) -> list[Any]:
        """Arguments go into the store once, for all machines."""
        shared = [ray.put(argument) if isinstance(argument, Block) else argument for argument in arguments]
        return self.respective(method, [tuple(shared)] * len(self))

    def respective(self, method: str, arguments: Sequence[tuple[Any, ...]]) -> list[Any]:
        calls = [getattr(actor, method).remote(*own) for actor, own in zip(self._actors, arguments, strict=True)]
        found: list[Any] = ray.get(calls)
        return found


_RemotePart = ray.remote(num_cpus=1)(PoolPart)


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
    """The k picks of a strategy from a pool in parts."""
    count = sum(parts.each("count"))
    if not 0 <= k <= count:
        raise SelectionError(f"asked {strategy.name} for {k} picks of {count} candidates")
    if k == 0:
        return Picks([], exact=True)
    if strategy.wrappers:
        return _wrapped(strategy, parts, k, rng)
    if strategy.name == "auto":
        choice = recommended(model=all(parts.each("has_model")))
        wrappers = [WrapperOptions(name=choice.wrapper)]
        return select_in_parts(StrategyOptions(name=choice.name, wrappers=wrappers), parts, k, rng)
    if strategy.name in EXACT:
        return Picks(EXACT[strategy.name](parts, k, rng, **strategy.parameters), exact=True)
    seed = int(rng.integers(2**31))
    union = sorted(name for picks in parts.each("pick", strategy, k, seed) for name in picks)
    return Picks(select(strategy, _gather(parts, union), k, rng), exact=len(parts) == 1)


def _wrapped(strategy: StrategyOptions, parts: Parts, k: int, rng: np.random.Generator) -> Picks:
    """A shortlist is gathered and goes on as on one machine; the quality floor is kept where the rows are."""
    outer, inner = strategy.wrappers[0], strategy.model_copy(update={"wrappers": strategy.wrappers[1:]})
    if outer.name in ("quality", "usable"):
        try:
            if outer.name == "quality":
                parts.each("keep_good", outer.parameters)
            else:
                parts.each("keep_usable", rejection(_known(parts), **outer.parameters))
            if (left := sum(parts.each("count"))) < k:
                raise SelectionError(f"only {left} candidates pass {outer.name}, for {k} picks: change its limits")
            return select_in_parts(inner, parts, k, rng)
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
