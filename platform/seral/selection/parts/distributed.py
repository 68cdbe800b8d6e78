"""Selection from a pool in parts: every part stays where it was read, and the picks are those of one machine.

What crosses between machines is small: scores of the best rows, a shortlist, sizes of groups, offered rows and new
centres (k-center, see strategies.farthest_first), drawn rows and bounds (k-means++ and BADGE, see vectors.seeding).
Strategies that cluster the whole pool are merged instead: every part picks k, and k of all those are picked again.
"""

from __future__ import annotations

import itertools
from functools import partial

import numpy as np

from seral.errors import SelectionError
from seral.selection.parts.local import Parts, Picks
from seral.selection.parts.part import PoolPart
from seral.selection.selection import (
    StrategyOptions,
    WrapperOptions,
    check_count,
    check_picks,
    default_options,
    select,
)
from seral.selection.strategies import STRATEGIES, WRAPPERS
from seral.selection.strategies.informative_diverse import gather_shortlist
from seral.selection.strategies.records import Exact, Merged, OfShortlist, Phases, StandsFor


def select_in_parts(strategy: StrategyOptions, parts: Parts, k: int, rng: np.random.Generator) -> Picks:
    """The k picks of a strategy from a pool in parts, held to the same contract as those of `select`."""
    check_count(strategy.name, k, parts.count())
    return checked(strategy, parts, ask(strategy, parts, k, rng), k)


def checked(strategy: StrategyOptions, parts: Parts, picks: Picks, k: int) -> Picks:
    """The picks, held to the contract of `select`, and with their distance where they are not exact."""
    labelled = parts.each(PoolPart.labelled_ids) if strategy.relabels else []
    allowed = itertools.chain(*parts.each(PoolPart.own, picks.ids), *labelled)
    check_picks(strategy.name, picks.ids, k, allowed)
    if picks.exact or not all(parts.each(PoolPart.has, "embedding_ND")):
        return picks
    centres = [parts.labelled_part().labelled_centres(), parts.gather(picks.ids).need("embedding_ND")]
    total = sum(parts.each(PoolPart.total_distance, np.concatenate(centres)))
    return picks._replace(distance=total / parts.count())


def ask(strategy: StrategyOptions, parts: Parts, k: int, rng: np.random.Generator) -> Picks:
    """k picks of a strategy in its wrappers, k <= N."""
    if k == 0:
        return Picks([], exact=True)
    in_parts = STRATEGIES[strategy.name].in_parts
    if isinstance(in_parts, StandsFor) and not strategy.wrappers:
        choice = resolved(strategy, parts, rng)
        return ask(choice, parts, k, rng)._replace(strategy=choice.name)
    if len(parts) == 1:
        return Picks(parts.each(pick_alone, strategy, k, rng)[0], exact=True)
    if strategy.wrappers:
        return _wrapped(strategy, parts, k, rng)
    if isinstance(in_parts, Exact):
        return Picks(in_parts.run(parts, k, rng, **strategy.parameters), exact=True)
    if isinstance(in_parts, OfShortlist):
        options = default_options(strategy.name) | strategy.parameters
        short = gather_shortlist(parts, *in_parts.looks_at(k, **options))
        return Picks(select(strategy, short, k, rng), exact=True)
    if isinstance(in_parts, Phases):
        return ask(resolved(strategy, parts, rng), parts, k, rng)
    return _merged(strategy, parts, k, rng)


def resolved(strategy: StrategyOptions, parts: Parts, rng: np.random.Generator) -> StrategyOptions:
    """The strategy that picks now: another one where it stands for others."""
    in_parts = STRATEGIES[strategy.name].in_parts
    if isinstance(in_parts, StandsFor):
        choice = in_parts.choose(parts, rng, **strategy.parameters)
        wrappers = [WrapperOptions.model_validate(wrapper) for wrapper in choice.wrapped_by]
        return StrategyOptions(name=choice.name, wrappers=wrappers)
    if isinstance(in_parts, Phases):
        return StrategyOptions(name=in_parts.stands_for(parts, **strategy.parameters))
    return strategy


def exact_in_parts(strategy: StrategyOptions) -> bool:
    """Whether the picks from a pool in parts are those of one machine."""
    in_parts = STRATEGIES[strategy.name].in_parts
    if isinstance(in_parts, StandsFor):
        return all(not isinstance(STRATEGIES[name].in_parts, Merged) for name in in_parts.among)
    return not isinstance(in_parts, Phases | Merged)


def pick_alone(part: PoolPart, strategy: StrategyOptions, k: int, rng: int | np.random.Generator) -> list[str]:
    """The picks of a strategy from the rows of one part alone, up to k."""
    return select(strategy, part.candidates, min(k, part.count()), np.random.default_rng(rng))


def _wrapped(strategy: StrategyOptions, parts: Parts, k: int, rng: np.random.Generator) -> Picks:
    """k picks by the outermost wrapper, which asks for those of the others."""
    outer, inner = strategy.wrappers[0], strategy.model_copy(update={"wrappers": strategy.wrappers[1:]})
    in_parts = WRAPPERS[outer.name].in_parts
    if in_parts is None:
        raise SelectionError(f"{outer.name} is not made for parts: use one part, or put a shortlist before it")
    picks = in_parts(partial(ask, inner), parts, k, rng, **(default_options(outer.name) | outer.parameters))
    return picks._replace(strategy=None)  # as on one machine, where wrappers see ids alone


def _merged(strategy: StrategyOptions, parts: Parts, k: int, rng: np.random.Generator) -> Picks:
    """k picks of what every part picks by itself."""
    seed = int(rng.integers(2**31))
    union = sorted(itertools.chain(*parts.each(pick_alone, strategy, k, seed)))
    return Picks(select(strategy, parts.gather(union), k, rng), exact=False)
