"""The baseline every strategy has to beat."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
from numpy.typing import NDArray

from seral.selection.candidates import Candidates
from seral.selection.strategies.scores import rank_in_group
from seral.vectors.arrays import Strings
from seral.vectors.stable_keys import hash_keys

# N candidates · G groups


def uniform(candidates: Candidates, k: int, rng: np.random.Generator, *, by: str | None = None) -> list[str]:
    """k candidates at random, all equally likely; with `by`, every group gets its share of them.

    Groups: `predicted` class, `speaker`, `corpus` or `language`. Shares are rounded by the largest remainders.
    """
    key = rng.bytes(8).hex()
    if by is None:
        chosen: list[str] = candidates.ids[np.argsort(hash_keys(candidates.ids, key), kind="stable")[:k]].tolist()
        return chosen
    share_of = shares_of(candidates.group_sizes(by), k)
    picked: list[str] = candidates.ids[first_of_groups(candidates.ids, candidates.groups(by), share_of, key)].tolist()
    return picked


def first_of_groups(ids: Strings, group_N: Strings, share_of: Mapping[str, int], key: str) -> NDArray[np.intp]:
    """Rows of the smallest lots of every group, as many as its share, in the order of their lots; ids in order."""
    order = np.argsort(hash_keys(ids, key), kind="stable")
    name_G, place_N = np.unique(group_N[order], return_inverse=True)
    share_G = np.array([share_of[name] for name in name_G.tolist()], dtype=np.int64)
    rows: NDArray[np.intp] = order[rank_in_group(place_N) < share_G[place_N]]
    return rows


def shares_of(size_of: Mapping[str, int], total: int) -> dict[str, int]:
    """`total` divided among groups by their sizes, see `shares`; the first groups are the first by name."""
    names = sorted(size_of)
    share_G = shares(np.array([size_of[name] for name in names], dtype=np.int64), total)
    return dict(zip(names, share_G.tolist(), strict=True))


def shares(size_G: NDArray[np.int64], total: int) -> NDArray[np.int64]:
    """`total` divided among groups by their sizes, by the largest remainders; equal ones go to the first groups."""
    whole_G, left_G = np.divmod(size_G * total, size_G.sum())
    order_G = np.argsort(-left_G, kind="stable")
    whole_G[order_G[: total - int(whole_G.sum())]] += 1
    return whole_G
