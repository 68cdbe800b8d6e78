"""Candidates that passes with dropout call otherwise than the model does, one of each kind."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from seral.selection.candidates import Candidates
from seral.selection.parts.local import Parts, best_of
from seral.selection.parts.part import PoolPart
from seral.selection.strategies import scores
from seral.selection.strategies.checks import at_least
from seral.selection.strategies.clusters import k_means
from seral.selection.strategies.uniform import reversed_keys
from seral.vectors.arrays import Doubles, Strings

# N candidates · R repeats (dropout passes)

PASSES, SAMPLE = 3, 50_000


def dropquery(
    candidates: Candidates, k: int, rng: np.random.Generator, *, passes: int = PASSES, sample: int = SAMPLE
) -> list[str]:
    """k_means of the candidates whose class more than half of the passes with dropout change. Gupte et al. 2024,
    Revisiting active learning in the era of vision foundation models, arXiv 2401.14555.

    The first `passes` are read, or all of fewer. Of more such candidates than `sample`, or k, as many are drawn by
    chance; where they are fewer than k, the smallest margins of the others follow.
    Differs from the paper: passes are those that the model makes, with dropout in its own layers or as members of an
    ensemble, not of the features that a linear head gets; rows are scaled to length 1.
    """
    return dropquery_in_parts(Parts([PoolPart(candidates)]), k, rng, passes=passes, sample=sample)


def dropquery_in_parts(
    parts: Parts, k: int, rng: np.random.Generator, *, passes: int = PASSES, sample: int = SAMPLE
) -> list[str]:
    """The picks of `dropquery`: parts send keys of who changes class, and margins of others where these are too few."""
    at_least(1, "dropquery", passes=passes, sample=sample)
    key, count = rng.bytes(8).hex(), max(sample, k)
    changing = best_of(parts.each(_changing, passes, key, count), count)
    picks = k_means(parts.gather(changing), min(k, len(changing)), rng) if changing else []
    if len(picks) < k:
        picks += best_of(parts.each(_others, passes, k), k - len(picks))
    return picks


def changes_class(candidates: Candidates, passes: int) -> NDArray[np.bool_]:
    """Whether more than half of the first passes give another class than the model without dropout, (N,)."""
    changes_N: NDArray[np.bool_] = 2 * share_of_changes(candidates, passes) > 1
    return changes_N


def share_of_changes(candidates: Candidates, passes: int) -> Doubles:
    """Share of the first passes that give another class than the model without dropout, (N,)."""
    class_N = candidates.need("probability_NC").argmax(axis=1)
    class_RN = candidates.need("dropout_RNC")[:passes].argmax(axis=2)
    share_N: Doubles = (class_RN != class_N).mean(axis=0)
    return share_N


def _changing(part: PoolPart, passes: int, key: str, count: int) -> tuple[Doubles, Strings]:
    """Reversed keys and ids of candidates that change class, the smallest keys first."""
    rows = np.flatnonzero(changes_class(part.candidates, passes))
    return _top(reversed_keys(part.candidates, key)[rows], part.candidates.ids[rows], count)


def _others(part: PoolPart, passes: int, count: int) -> tuple[Doubles, Strings]:
    """Margins and ids of the other candidates, the smallest margins first."""
    rows = np.flatnonzero(~changes_class(part.candidates, passes))
    margin_N = scores.margin(part.candidates.need("probability_NC")[rows])
    return _top(margin_N, part.candidates.ids[rows], count)


def _top(score_N: Doubles, ids: Strings, count: int) -> tuple[Doubles, Strings]:
    rows = scores.top_rows(score_N, count)
    return score_N[rows], ids[rows]
