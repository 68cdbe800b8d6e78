"""Picks one after the other, where every pick changes what the other candidates are worth, in all parts alike."""

# N candidates
from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple, Protocol

import numpy as np

from seral.selection.parts.local import Parts
from seral.selection.parts.part import PoolPart
from seral.vectors.arrays import Doubles


class Worth(Protocol):
    """Worth of the candidates of a part, which changes with every pick."""

    worth_N: Doubles
    """Larger = sooner; equal ones fall to the lower id."""

    def row(self, at: int) -> Any:
        """All that the other parts have to know of a candidate that is picked."""

    def add(self, news: Any) -> None:
        """Take in what a pick changes."""


class Offer(NamedTuple):
    """The best candidate of a part."""

    worth: float
    id: str
    row: Any


def one_by_one(parts: Parts, k: int, news_of: Callable[[Any], Any] = lambda row: row) -> list[str]:
    """The ids of k picks: the largest worth of all parts, of which every part hears before the next.

    `part.work` holds the Worth of each part. `news_of` makes of a picked row what parts are told of it.
    """
    picks, news = list[str](), None
    while len(picks) < k:
        offers = [offer for offer in parts.each(_offer, picks[-1:], news) if offer is not None]
        best = min(offers, key=lambda offer: (-offer.worth, offer.id))
        picks.append(best.id)
        news = news_of(best.row) if len(picks) < k else None
    return picks


def _offer(part: PoolPart, taken: list[str], news: Any) -> Offer | None:
    """Take in the last pick, and put forward the best of what is left; None where nothing is."""
    worth: Worth = part.work
    if taken:
        worth.add(news)
        worth.worth_N[part.candidates.rows(part.own(taken))] = -np.inf
    if not len(worth.worth_N) or np.isneginf(worth.worth_N).all():
        return None
    at = int(worth.worth_N.argmax())
    return Offer(float(worth.worth_N[at]), str(part.candidates.ids[at]), worth.row(at))
