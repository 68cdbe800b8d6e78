"""Records of strategies and wrappers: the function, what it reads, and how it runs where a pool is in parts."""

# N candidates
from __future__ import annotations

import functools
from collections.abc import Callable, Mapping, Sequence
from collections.abc import Set as AbstractSet
from dataclasses import dataclass, replace
from typing import Any, Protocol

import numpy as np

from ser_models.registry import with_options
from seral.selection.candidates import Candidates
from seral.selection.parts.local import Parts, Picks, best_of
from seral.selection.parts.part import PoolPart
from seral.selection.strategies import scores
from seral.vectors.arrays import Doubles, Strings

Pick = Callable[[Candidates, int, np.random.Generator], list[str]]
"""(candidates, k, rng) -> k ids in order of preference, 1 <= k <= N. Options are keyword-only, with defaults."""

Wrap = Callable[[Pick, Candidates, int, np.random.Generator], list[str]]
"""(pick, candidates, k, rng) -> k ids in order. Options are keyword-only, with defaults."""

Score = Callable[..., scores.Scores]
"""(candidates, **options) -> (N,), larger = sooner; a candidate's score does not depend on the others."""

PickOfParts = Callable[[Parts, int, np.random.Generator], Picks]
"""(parts, k, rng) -> k picks of a pool in parts, k <= N."""


@dataclass(frozen=True)
class Exact:
    """In parts: an exchange with the parts that ends in the picks of one machine."""

    run: Callable[..., list[str]]
    """(parts, k, rng, **options) -> ids."""


@dataclass(frozen=True)
class OfShortlist:
    """In parts: only the most uncertain candidates are gathered, and the strategy runs on them; exact."""

    looks_at: Callable[..., tuple[str, int]]
    """(k, **options) -> by which uncertainty it shortlists, and how many candidates."""


class Chosen(Protocol):
    """A strategy in wrappers that stands for another one."""

    @property
    def name(self) -> str:
        """The strategy's name."""

    @property
    def wrapped_by(self) -> Sequence[Mapping[str, Any]]:
        """Name and options of every wrapper, the outermost first."""


@dataclass(frozen=True)
class StandsFor:
    """In parts: whatever the strategy that it stands for does."""

    choose: Callable[..., Chosen]
    """(parts, rng, **options) -> the strategy in its wrappers."""
    among: AbstractSet[str]
    """Names of all strategies that may be chosen."""


@dataclass(frozen=True)
class Phases:
    """In parts: whatever the strategy does that is due by the labels of all parts."""

    stands_for: Callable[..., str]
    """(parts, **options) -> the strategy's name."""


@dataclass(frozen=True)
class Merged:
    """In parts: every part picks k by itself, and k of all those are picked again; not the picks of one machine."""


@dataclass(frozen=True)
class Strategy:
    """A strategy: what picks, what it reads beside what its options name, and how it runs in parts."""

    function: Pick
    reads: AbstractSet[str] = frozenset()
    """Fields of Candidates."""
    in_parts: Exact | OfShortlist | StandsFor | Phases | Merged = Merged()
    goes_by: tuple[str, ...] = ()
    """Measures of seral.loop.reasons that say why it picks what it picks, or the option that names one."""
    score: Score | None = None
    """The score whose largest it picks, where it is one."""

    @property
    def exact(self) -> bool:
        """Whether its picks never depend on the parts."""
        return isinstance(self.in_parts, Exact | OfShortlist)


@dataclass(frozen=True)
class Wrapper:
    """A wrapper: its function, what it reads beside what its options name, and how it runs in parts."""

    function: Wrap
    reads: AbstractSet[str] = frozenset()
    """Fields of Candidates."""
    in_parts: Callable[..., Picks] | None = None
    """(pick, parts, k, rng, **options) -> picks, with `pick` a PickOfParts; None = it cannot run in parts."""
    relabels: bool = False
    """Whether its picks may be labelled already: then it is the outermost."""
    limits_groups: bool = False
    """Whether it limits the `share` of every group `by` which it divides the candidates."""
    filters: bool = False
    """Whether it leaves out candidates by how they were recorded or whom they repeat, which needs no label."""


def as_strategy(part: Any) -> Strategy:
    """A strategy of somebody else's: a record, or a function, which reads the embedding if it has no set `reads`."""
    if isinstance(part, Strategy):
        return replace(part, function=with_options(part.function))
    reads = frozenset(getattr(part, "reads", {"embedding_ND"}))
    return Strategy(with_options(part), reads, goes_by=tuple(getattr(part, "goes_by", ())))


def by_score(score: Score, reads: AbstractSet[str]) -> Strategy:
    """The strategy that picks the k largest scores, ties by id; in parts, each part sends its k best."""

    def pick(candidates: Candidates, k: int, rng: np.random.Generator, **options: Any) -> list[str]:
        return best_of([_best(candidates, score(candidates, **options), k)], k)

    def run(parts: Parts, k: int, rng: np.random.Generator, **options: Any) -> list[str]:
        return best_of(parts.each(best_by, score, k, **options), k)

    functools.update_wrapper(pick, score)
    return Strategy(pick, reads, Exact(run), score=score)


def best_by(part: PoolPart, score: Score, k: int, *arguments: Any, **options: Any) -> tuple[Doubles, Strings]:
    """The k largest scores of a part's candidates, and their ids."""
    return _best(part.candidates, score(part.candidates, *arguments, **options), k)


def _best(candidates: Candidates, score_N: scores.Scores, k: int) -> tuple[Doubles, Strings]:
    rows = scores.top_rows(score_N, k)
    return score_N[rows], candidates.ids[rows]
