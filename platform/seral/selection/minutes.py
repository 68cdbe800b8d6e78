"""Picks for minutes of an annotator instead of a number: a clip costs what it takes to listen to and to decide on."""

# P new picks
from __future__ import annotations

import itertools
from collections import Counter
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from seral.errors import SelectionError
from seral.selection.options import PaceOptions
from seral.selection.parts.distributed import ask, checked
from seral.selection.parts.local import Parts, Picks
from seral.selection.parts.part import PoolPart
from seral.selection.selection import StrategyOptions, check_count, default_options
from seral.selection.strategies import WRAPPERS
from seral.selection.strategies.wrappers import quota_room


def select_for_minutes(
    strategy: StrategyOptions, parts: Parts, minutes: float, rng: np.random.Generator, pace: PaceOptions
) -> Picks:
    """Ids in the strategy's order, as many as `minutes` of an annotator pay for; clips that do not fit are skipped.

    The strategy is asked for as many as would fit on average, for fewer until all of them fit, and so on with what is
    left, told of the picks so far. What is left at the end is not spent where a quota is full: a quota holds of all
    that is bought as it would of a number of picks. Raises SelectionError when no clip fits, or none is there.
    """
    if strategy.relabels:
        raise SelectionError("relabel divides a number of labels, not minutes: give the budget as sizes or fractions")
    check_count(strategy.name, 1, parts.count())
    cost_s, cheapest = min(itertools.chain(*parts.each(_cheapest, pace)))
    if cost_s > 60 * minutes:
        raise SelectionError(
            f"{minutes:g} minutes do not pay for a single clip: the cheapest, {cheapest}, takes {cost_s:.1f} s of an "
            "annotator"
        )
    picks, spent_s = Picks([], exact=True), list[float]()
    with parts.aside():
        while True:
            left_s = 60 * minutes - float(np.sum(spent_s))
            batch, batch_s = _paid_for(strategy, parts, left_s, int(rng.integers(2**31)), pace)
            if not batch.ids:
                break
            picks, spent_s = picks.then(batch), spent_s + batch_s
            parts.each(PoolPart.count_as_picked, batch.ids)
    return checked(strategy, parts, picks, len(picks.ids))


def _paid_for(
    strategy: StrategyOptions, parts: Parts, left_s: float, seed: int, pace: PaceOptions
) -> tuple[Picks, list[float]]:
    """Picks of the strategy when it is asked for no more than `left_s` seconds pay for, and the seconds of each pick.

    No picks when that is nothing.
    """
    limits = [
        default_options(outer.name) | outer.parameters
        for outer in strategy.wrappers
        if WRAPPERS[outer.name].limits_groups
    ]
    before = [parts.sizes(limit["by"]) for limit in limits]
    with parts.aside():
        counts, totals_s = zip(*parts.each(_afford, pace, left_s), strict=True)
        affordable = sum(counts)
        quotas = [
            _Quota(limit["share"], *sizes, parts.sizes(limit["by"])[0])
            for limit, sizes in zip(limits, before, strict=True)
        ]
        count = int(np.clip(left_s / (sum(totals_s) / affordable), 1, affordable)) if affordable else 0
        while count := _within(quotas, count):
            picks = ask(strategy, parts, count, np.random.default_rng(seed))
            cost_of: dict[str, float] = dict(itertools.chain(*parts.each(_costs, picks.ids, pace)))
            cost_P = np.array([cost_of[name] for name in picks.ids])
            if (spent_P := cost_P.cumsum())[-1] <= left_s:
                return picks, cost_P.tolist()
            count = int((spent_P <= left_s).sum())
    return Picks([], exact=True), []


def _afford(part: PoolPart, pace: PaceOptions, limit_s: float) -> tuple[int, float]:
    """Leave out of a part what costs more; returns how many are left, and the seconds that all of them cost."""
    cost_N = pace.seconds(part.candidates.need("duration_s"))
    part.keep(cost_N <= limit_s)
    return part.count(), float(cost_N[cost_N <= limit_s].sum())


def _cheapest(part: PoolPart, pace: PaceOptions) -> list[tuple[float, str]]:
    """Seconds and id of what costs least in a part, if anything is there."""
    cost_N = pace.seconds(part.candidates.need("duration_s"))
    return [(float(cost_N[row]), str(part.candidates.ids[row])) for row in [cost_N.argmin()]] if len(cost_N) else []


def _costs(part: PoolPart, ids: Sequence[str], pace: PaceOptions) -> list[tuple[str, float]]:
    """Ids and seconds of those of the ids that are in a part."""
    mine = part.take(ids)
    return list(zip(mine.ids.tolist(), pace.seconds(mine.need("duration_s")).tolist(), strict=True))


class _Quota(NamedTuple):
    """The counts by which a quota limits picks."""

    share: float
    size_of: Counter[str]
    """Candidates of every group."""
    picked_of: Counter[str]
    """Picks of every group so far."""
    left_of: Counter[str]
    """Candidates that can be paid for."""

    def holds(self, k: int) -> int:
        """Number of the next k picks that may be of those that can be paid for."""
        room = quota_room(self.size_of, self.picked_of, k, self.share)
        return sum(min(size, room[group]) for group, size in self.left_of.items())


def _within(quotas: Sequence[_Quota], count: int) -> int:
    """The largest number of picks, up to `count`, for which no quota is raised just because few can be paid for."""
    while (fewer := min([count, *(quota.holds(count) for quota in quotas)])) < count:
        count = fewer
    return count
