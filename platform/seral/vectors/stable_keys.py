"""Stable hash keys of ids: random numbers that depend on neither the order nor the company in which ids come."""

from __future__ import annotations

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from seral.vectors.arrays import Strings

SLAB = 65_536
"""Ids that are hashed at a time."""


def hash_keys(ids: Strings, key: str) -> NDArray[np.float64]:
    """A random number of [0, 2^53) for every id, (N,), by a key of 16 characters.

    It does not depend on which others there are or where they are kept.
    """
    from pandas.util import hash_array  # a quarter of a second

    hash_N: NDArray[np.uint64] = hash_array(ids.astype(object), hash_key=key, categorize=False)
    return (hash_N >> np.uint64(11)).astype(np.float64)


def column_keys(ids: pa.ChunkedArray, key: str) -> NDArray[np.float64]:
    """Keys of `hash_keys` for a column of ids, (N,); few of them are words of Python's at a time."""
    slabs = (ids.slice(start, SLAB).to_numpy() for start in range(0, len(ids), SLAB))
    return np.concatenate([np.empty(0), *(hash_keys(slab, key) for slab in slabs)])
