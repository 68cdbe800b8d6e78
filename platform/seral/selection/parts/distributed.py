"""Selection from a pool in parts: every part stays where it was read, and the picks are those of one machine.

What crosses between machines is small: scores of the best rows, a shortlist, sizes of groups, offered rows and new
centres (k-center, see strategies.farthest_first), drawn rows and bounds (k-means++ and BADGE, see draws).
Strategies that cluster the whole pool are merged instead: every part picks k, and k of all those are picked again.
"""

# N candidates · M labelled · B rows of a block · D features
from __future__ import annotations

import itertools
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import numpy as np

from seral.errors import SelectionError
from seral.selection.candidates import Candidates, concatenate
from seral.selection.parts.actors import Parts
from seral.selection.parts.part import Kind
from seral.selection.selection import (
    NamedOptions,
    StrategyOptions,
    WrapperOptions,
    check_count,
    check_picks,
    default_options,
    select,
)
from seral.selection.strategies.automatic import recommended
from seral.selection.strategies.farthest_first import traverse
from seral.selection.strategies.informative_diverse import shortlisted
from seral.selection.strategies.uncertainty import UNCERTAINTIES
from seral.selection.strategies.uniform import first_of_groups, shares_of
from seral.selection.strategies.wrappers import admitted, apart, full_groups, quota_room, rejection, relabel
from seral.vectors.arrays import Floats, Rows, Stored
from seral.vectors.distances import Block, Points
from seral.vectors.seeding import seed_rows


class Picks(NamedTuple):
    """What was picked, and whether one machine would have picked the same."""

    ids: list[str]
    exact: bool
    distance: float | None = None
    """Where it would not, and there are features: the mean distance of a candidate to the nearest that is picked or
    labelled, in the features as given."""

    def then(self, more: Picks) -> Picks:
        """These, and others after them."""
        return Picks(self.ids + more.ids, self.exact and more.exact)


def select_in_parts(strategy: StrategyOptions, parts: Parts, k: int, rng: np.random.Generator) -> Picks:
    """The k picks of a strategy from a pool in parts, held to the same contract as those of `select`."""
    check_count(strategy.name, k, parts.count())
    return checked(strategy, parts, ask(strategy, parts, k, rng), k)


def checked(strategy: StrategyOptions, parts: Parts, picks: Picks, k: int) -> Picks:
    """The picks, held to the contract of `select`, and with their distance where they are not exact."""
    known = parts.each("labelled_ids") if strategy.relabels else []
    check_picks(strategy.name, picks.ids, k, itertools.chain(*parts.each("here", picks.ids), *known))
    if picks.exact or not all(parts.each("has", "embedding_ND")):
        return picks
    held = [_known(parts).labelled_centres(), _gather(parts, picks.ids).need("embedding_ND")]
    return picks._replace(distance=sum(parts.each("total_distance", np.concatenate(held))) / parts.count())


def ask(strategy: StrategyOptions, parts: Parts, k: int, rng: np.random.Generator) -> Picks:
    """k picks of a strategy in its wrappers, k <= N."""
    if k == 0:
        return Picks([], exact=True)
    if len(parts) == 1:
        return Picks(parts.each("pick", strategy, k, rng)[0], exact=True)
    if strategy.wrappers:
        outer, inner = strategy.wrappers[0], strategy.model_copy(update={"wrappers": strategy.wrappers[1:]})
        if outer.name not in WRAPPED:
            raise SelectionError(f"{outer.name} is not made for parts: use one part, or put a shortlist before it")
        return WRAPPED[outer.name](inner, parts, k, rng, **(default_options(outer.name) | outer.parameters))
    if strategy.name == "auto":
        choice = recommended(model=all(parts.each("has", "probability_NC")))
        wrappers = [WrapperOptions(name=choice.wrapper)]
        return ask(StrategyOptions(name=choice.name, wrappers=wrappers), parts, k, rng)
    if strategy.name in EXACT:
        return Picks(EXACT[strategy.name](parts, k, rng, **strategy.parameters), exact=True)
    seed = int(rng.integers(2**31))
    union = sorted(itertools.chain(*parts.each("pick", strategy, k, seed)))
    return Picks(select(strategy, _gather(parts, union), k, rng), exact=False)


def _shortlisted(inner: StrategyOptions, parts: Parts, k: int, rng: np.random.Generator, **options: Any) -> Picks:
    short = _shortlist(parts, *_looks_at(WrapperOptions(name="shortlist", **options), k))
    return Picks(select(inner, short, k, rng), exact=True)


def _quality(inner: StrategyOptions, parts: Parts, k: int, rng: np.random.Generator, **limits: float) -> Picks:
    def first() -> Picks:
        parts.each("keep_good", limits)
        return ask(inner, parts, min(k, parts.count()), rng)

    return _then_others(inner, parts, k, rng, first)


def _usable(inner: StrategyOptions, parts: Parts, k: int, rng: np.random.Generator, *, limit: float) -> Picks:
    def first() -> Picks:
        parts.each("keep_usable", rejection(_known(parts), limit=limit))
        return ask(inner, parts, min(k, parts.count()), rng)

    return _then_others(inner, parts, k, rng, first)


def _distinct(inner: StrategyOptions, parts: Parts, k: int, rng: np.random.Generator, **options: Any) -> Picks:
    def accept(asked: list[str]) -> list[str]:
        there = _gather(parts, asked)
        x_BD = there.need("embedding_ND")[there.rows(asked)]
        places = apart(x_BD, options["distance"])
        taken = [asked[place] for place in places]
        parts.each("count_as_picked", taken)
        parts.each("leave_out_near", x_BD[places], options)
        return taken

    def first() -> Picks:
        parts.each("leave_out_near", _known(parts).labelled_centres(), options)
        return _in_turns(inner, parts, k, rng, accept)

    return _then_others(inner, parts, k, rng, first)


def _quota(inner: StrategyOptions, parts: Parts, k: int, rng: np.random.Generator, *, by: str, share: float) -> Picks:
    room = quota_room(*parts.sizes(by), k, share)

    def accept(asked: list[str]) -> list[str]:
        group_of = dict(itertools.chain(*parts.each("groups", by, asked)))
        taken = admitted(asked, [group_of[name] for name in asked], room)
        parts.each("count_as_picked", taken)
        parts.each("leave_out_groups", by, full_groups(room))
        return taken

    with parts.aside():
        parts.each("leave_out_groups", by, full_groups(room))
        return _in_turns(inner, parts, k, rng, accept)


def _relabel(inner: StrategyOptions, parts: Parts, k: int, rng: np.random.Generator, **options: float) -> Picks:
    rest = Picks([], exact=True)

    def others(known: Candidates, count: int, rng: np.random.Generator) -> list[str]:
        nonlocal rest
        rest = ask(inner, parts, count, rng)
        return rest.ids

    return Picks(relabel(others, _known(parts), k, rng, **options), rest.exact)


WRAPPED: dict[str, Callable[..., Picks]] = {
    "shortlist": _shortlisted,
    "quality": _quality,
    "usable": _usable,
    "quota": _quota,
    "distinct": _distinct,
    "relabel": _relabel,
}
"""Wrappers where the rows are; what they pick is what strategies.wrappers pick, if that is true of their strategy."""


def _then_others(
    inner: StrategyOptions, parts: Parts, k: int, rng: np.random.Generator, first: Callable[[], Picks]
) -> Picks:
    """Picks of some, with whom `first` leaves the strategy alone, and of the others when there are too few of them."""
    with parts.aside():
        picks = first()
    if len(picks.ids) == k:
        return picks
    with parts.aside():
        parts.each("count_as_picked", picks.ids)
        return picks.then(ask(inner, parts, k - len(picks.ids), rng))


def _in_turns(
    inner: StrategyOptions, parts: Parts, k: int, rng: np.random.Generator, accept: Callable[[list[str]], list[str]]
) -> Picks:
    """Ask for what is missing until k are accepted or nobody is left.

    `accept(asked)` returns whom it takes, at least one, and leaves out who may not be picked any more.
    """
    picks = Picks([], exact=True)
    while len(picks.ids) < k and (left := parts.count()):
        asked = ask(inner, parts, min(k - len(picks.ids), left), rng)
        picks = picks.then(Picks(accept(asked.ids), asked.exact))
    return picks


def _random(parts: Parts, k: int, rng: np.random.Generator, *, by: str | None = None) -> list[str]:
    key = rng.bytes(8).hex()
    if by is None:
        return _top(parts, k, "drawn_first", key, k)
    share_of = shares_of(parts.sizes(by)[0], k)
    drawn = zip(*parts.each("drawn_of_groups", by, share_of, key), strict=True)
    ids, group_N = (np.concatenate(found) for found in drawn)
    order = np.argsort(ids)
    ids, group_N = ids[order], group_N[order]
    chosen: list[str] = ids[first_of_groups(ids, group_N, share_of, key)].tolist()
    return chosen


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
        seed_rows(points, points.labelled(_known(parts).labelled_centres()), k, rng)
    ].tolist()
    return chosen


def _badge(parts: Parts, k: int, rng: np.random.Generator) -> list[str]:
    points = PartedPoints(parts, "gradients")
    chosen: list[str] = points.ids[seed_rows(points, None, k, rng, first=points.largest())].tolist()
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
