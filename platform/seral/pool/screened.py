"""Tables of near-duplicates that a pool has, and the offer to make one."""

from __future__ import annotations

import numpy as np

from seral import storage
from seral.pool.shards import open_pool

FOLDER = "screen"
"""Folder of a pool with a table of seral.features.screen for every encoder."""
SPEED = 110
"""Seconds of speech that `seral-tiny` encodes in a second of one CPU, which is nearly all of a screening's time."""


def screen_tables(pool: str) -> tuple[str, ...]:
    """Addresses of the tables of near-duplicates that a pool has."""
    folder = storage.join(pool, FOLDER)
    return tuple(storage.join(folder, name) for name in storage.list_names(folder, ".parquet"))


def screen_offer(pool: str, *, new: int) -> str | None:
    """A sentence that offers to look for near-duplicates, with what that costs; None where an import of so many new
    utterances leaves a pool that was screened as it was.
    """
    if not new and screen_tables(pool):
        return None
    hours = float(np.asarray(open_pool(pool).column("duration_s"), np.float64).sum()) / 3600
    cost = f"about {max(1, round(60 * hours / SPEED))} min of one CPU for {hours:.1f} h of speech"
    return f"near-duplicates, such as one recording under two speakers: seral pool screen {pool} ({cost})"
