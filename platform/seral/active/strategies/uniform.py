"""The baseline every strategy has to beat."""

from __future__ import annotations

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from seral.active.candidates import Candidates, Strings
from seral.active.strategies.scores import turns

# N candidates · G groups


def uniform(candidates: Candidates, k: int, rng: np.random.Generator, *, by: str | None = None) -> list[str]:
    """k candidates at random, all equally likely; with `by`, every group gets its share of them.

    Groups: `predicted` class, `speaker`, `corpus` or `language`. Shares are rounded by the largest remainders.
    """
    order = np.argsort(lots(candidates.ids, rng.bytes(8).hex()), kind="stable")
    if by is None:
        chosen: list[str] = candidates.ids[order[:k]].tolist()
        return chosen
    _, group_N, size_G = np.unique(candidates.groups(by), return_inverse=True, return_counts=True)
    share_G = shares(size_G, k)
    # In random order, the first of each group up to its share.
    group_N = group_N[order]
    picked: list[str] = candidates.ids[order[turns(group_N) < share_G[group_N]]].tolist()
    return picked


def lots(ids: Strings, key: str) -> NDArray[np.float64]:
    """A random number of [0, 2^53) for every id, (N,), by a key of 16 characters.

    It does not depend on which others there are or where they are kept.
    """
    hash_N: NDArray[np.uint64] = pd.util.hash_array(ids.astype(object), hash_key=key, categorize=False)
    return (hash_N >> np.uint64(11)).astype(np.float64)


def shares(size_G: NDArray[np.int64], total: int) -> NDArray[np.int64]:
    """`total` divided among groups by their sizes, by the largest remainders; equal ones go to the first groups."""
    whole_G, left_G = np.divmod(size_G * total, size_G.sum())
    order_G = np.argsort(-left_G, kind="stable")
    whole_G[order_G[: total - int(whole_G.sum())]] += 1
    return whole_G
