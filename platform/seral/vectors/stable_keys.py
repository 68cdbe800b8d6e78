"""Stable hash keys of ids: random numbers that depend on neither the order nor the company in which ids come."""

from __future__ import annotations

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from seral.vectors.arrays import Strings


def hash_keys(ids: Strings, key: str) -> NDArray[np.float64]:
    """A random number of [0, 2^53) for every id, (N,), by a key of 16 characters.

    It does not depend on which others there are or where they are kept.
    """
    hash_N: NDArray[np.uint64] = pd.util.hash_array(ids.astype(object), hash_key=key, categorize=False)
    return (hash_N >> np.uint64(11)).astype(np.float64)
