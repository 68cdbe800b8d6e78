"""Batches of a pretraining, planned ahead: which utterances of which shard, epoch by epoch."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass, replace
from itertools import islice

import numpy as np
from numpy.typing import NDArray

LENGTH_NOISE = 0.15
"""Clips are batched by their length with so much log-normal noise: little padding, other neighbours every epoch."""


@dataclass(frozen=True, kw_only=True)
class PlannedBatch:
    """The utterances of one step."""

    shard: str
    ids: list[str]
    epoch: int
    number: int
    """Place of the batch in its epoch, from 0."""


def planned_steps(
    plan: Iterable[PlannedBatch], start: int, stop: int, *, rank: int = 0, world: int = 1
) -> Iterator[tuple[int, PlannedBatch]]:
    """Number and batch of the steps from `start` to before `stop`, as worker `rank` of `world` has them.

    Workers share out a batch; where it has fewer clips than there are workers, some are given the first one too.
    """
    for step, batch in enumerate(islice(plan, start, stop), start=start):
        yield step, replace(batch, ids=batch.ids[rank::world] or batch.ids[:1])


def length_factors(count: int, rng: np.random.Generator) -> NDArray[np.float64]:
    """Random factors on the lengths of clips before they are sorted into batches."""
    factor_N: NDArray[np.float64] = np.exp(LENGTH_NOISE * rng.standard_normal(count))
    return factor_N
