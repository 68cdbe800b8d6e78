"""Wrappers where a pool is in parts: what they pick is what `wrappers` pick, if that is true of their strategy."""

# B rows that were asked for · D features
from __future__ import annotations

import itertools
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np

from seral.selection.candidates import Candidates
from seral.selection.parts.local import Parts, Picks
from seral.selection.parts.part import PoolPart
from seral.selection.strategies.informative_diverse import gather_shortlist, shortlisted
from seral.selection.strategies.records import PickOfParts
from seral.selection.strategies.uniform import uniform_in_parts
from seral.selection.strategies.wrappers import (
    ByChance,
    Rejection,
    admitted,
    apart,
    by_chance,
    full_groups,
    is_good,
    is_usable,
    near,
    quota_room,
    rejection,
    relabel,
)
from seral.vectors.arrays import Stored


def shortlist_in_parts(
    inner: PickOfParts, parts: Parts, k: int, rng: np.random.Generator, *, beta: float, uncertainty: str
) -> Picks:
    """The picks of `wrappers.shortlist`: the most uncertain of all parts are gathered."""
    short = gather_shortlist(parts, uncertainty, shortlisted(k, beta))
    return inner(Parts([PoolPart(short)]), k, rng)


def quality_in_parts(inner: PickOfParts, parts: Parts, k: int, rng: np.random.Generator, **limits: float) -> Picks:
    """The picks of `wrappers.quality`: every part leaves out its bad recordings."""

    def first() -> Picks:
        parts.each(_keep_good, limits)
        return inner(parts, min(k, parts.count()), rng)

    return _then_others(inner, parts, k, rng, first)


def usable_in_parts(inner: PickOfParts, parts: Parts, k: int, rng: np.random.Generator, *, limit: float) -> Picks:
    """The picks of `wrappers.usable`: every part leaves out what lies beyond one plane."""

    def first() -> Picks:
        parts.each(_keep_usable, rejection(parts.labelled_part(), limit=limit))
        return inner(parts, min(k, parts.count()), rng)

    return _then_others(inner, parts, k, rng, first)


def distinct_in_parts(inner: PickOfParts, parts: Parts, k: int, rng: np.random.Generator, **options: Any) -> Picks:
    """The picks of `wrappers.distinct`: every part leaves out what is near to what was taken."""

    def accept(asked: list[str]) -> list[str]:
        candidates = parts.gather(asked)
        x_BD = candidates.need("embedding_ND")[candidates.rows(asked)]
        rows_B = apart(x_BD, options["distance"])
        taken = [asked[row] for row in rows_B]
        parts.each(PoolPart.count_as_picked, taken)
        parts.each(_leave_out_near, x_BD[rows_B], options)
        return taken

    def first() -> Picks:
        parts.each(_leave_out_near, parts.labelled_part().labelled_centres(), options)
        return _until_accepted(inner, parts, k, rng, accept)

    return _then_others(inner, parts, k, rng, first)


def quota_in_parts(
    inner: PickOfParts, parts: Parts, k: int, rng: np.random.Generator, *, by: str, share: float
) -> Picks:
    """The picks of `wrappers.quota`: sizes of groups are added up, and full groups left out by every part."""
    room = quota_room(*parts.sizes(by), k, share)

    def accept(asked: list[str]) -> list[str]:
        group_of = dict(itertools.chain(*parts.each(PoolPart.groups, by, asked)))
        taken = admitted(asked, [group_of[name] for name in asked], room)
        parts.each(PoolPart.count_as_picked, taken)
        parts.each(_leave_out_groups, by, full_groups(room))
        return taken

    with parts.aside():
        parts.each(_leave_out_groups, by, full_groups(room))
        return _until_accepted(inner, parts, k, rng, accept)


def epsilon_greedy_in_parts(
    inner: PickOfParts, parts: Parts, k: int, rng: np.random.Generator, *, epsilon: float
) -> Picks:
    """The picks of `wrappers.epsilon_greedy`: chance is that of `uniform`, which does not depend on parts."""
    chance = by_chance(k, epsilon)
    picks = Picks([ByChance(name) for name in uniform_in_parts(parts, chance, rng)] if chance else [], exact=True)
    if chance == k:
        return picks
    with parts.aside():
        parts.each(PoolPart.count_as_picked, picks.ids)
        return picks.then(inner(parts, k - chance, rng))


def relabel_in_parts(inner: PickOfParts, parts: Parts, k: int, rng: np.random.Generator, **options: float) -> Picks:
    """The picks of `wrappers.relabel`: what is labelled is brought together."""
    new = Picks([], exact=True)

    def others(_: Candidates, count: int, rng: np.random.Generator) -> list[str]:
        nonlocal new
        new = inner(parts, count, rng)
        return new.ids

    return Picks(relabel(others, parts.labelled_part(), k, rng, **options), new.exact)


def _then_others(
    inner: PickOfParts, parts: Parts, k: int, rng: np.random.Generator, first: Callable[[], Picks]
) -> Picks:
    """Picks of some, with whom `first` leaves the strategy alone, and of the others when there are too few of them."""
    with parts.aside():
        picks = first()
    if len(picks.ids) == k:
        return picks
    with parts.aside():
        parts.each(PoolPart.count_as_picked, picks.ids)
        return picks.then(inner(parts, k - len(picks.ids), rng))


def _until_accepted(
    inner: PickOfParts, parts: Parts, k: int, rng: np.random.Generator, accept: Callable[[list[str]], list[str]]
) -> Picks:
    """Ask for what is missing until k are accepted or nobody is left.

    `accept(asked)` returns whom it takes, at least one, and leaves out who may not be picked any more.
    """
    picks = Picks([], exact=True)
    while len(picks.ids) < k and (left := parts.count()):
        asked = inner(parts, min(k - len(picks.ids), left), rng)
        picks = picks.then(Picks(accept(asked.ids), asked.exact))
    return picks


def _keep_good(part: PoolPart, limits: Mapping[str, float]) -> None:
    """Leave out recordings of a part below the quality limits."""
    part.keep(is_good(part.candidates, **limits))


def _keep_usable(part: PoolPart, plane: Rejection | None) -> None:
    """Leave out what sounds like what was rejected; None = nothing was."""
    part.keep(is_usable(part.candidates, plane))


def _leave_out_near(part: PoolPart, others_MD: Stored, options: Mapping[str, Any]) -> None:
    """Leave out what is like any of the others."""
    part.candidates = part.candidates.without(near(part.candidates, others_MD, **options))


def _leave_out_groups(part: PoolPart, by: str, names: Sequence[str]) -> None:
    """Leave out these groups."""
    if names:
        part.keep(~np.isin(part.candidates.groups(by), names))
