"""The baseline every strategy has to beat."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
from numpy.typing import NDArray

from seral.selection.candidates import Candidates
from seral.selection.parts.local import Parts, best_of
from seral.selection.parts.part import PoolPart
from seral.selection.strategies.records import best_by
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
        rows = np.argsort(hash_keys(candidates.ids, key), kind="stable")[:k]
    else:
        share_of = shares_of(candidates.group_sizes(by), k)
        rows = first_of_groups(candidates.ids, candidates.groups(by), share_of, key)
    ids: list[str] = candidates.ids[rows].tolist()
    return ids


def uniform_in_parts(parts: Parts, k: int, rng: np.random.Generator, *, by: str | None = None) -> list[str]:
    """The picks of `uniform`: a candidate's key depends on its id alone, so each part sends its smallest."""
    key = rng.bytes(8).hex()
    if by is None:
        return best_of(parts.each(best_by, reversed_keys, k, key), k)
    share_of = shares_of(parts.sizes(by)[0], k)
    replies = zip(*parts.each(_first_of_groups, by, share_of, key), strict=True)
    id_N, group_N = (np.concatenate(values) for values in replies)
    order = np.argsort(id_N)
    id_N, group_N = id_N[order], group_N[order]
    ids: list[str] = id_N[first_of_groups(id_N, group_N, share_of, key)].tolist()
    return ids


def drawn(parts: Parts, count: int, rng: np.random.Generator) -> Candidates:
    """`count` candidates at random, all equally likely and whatever the parts, in this process; all of no more."""
    key = rng.bytes(8).hex()
    return parts.gather(best_of(parts.each(best_by, reversed_keys, count, key), count))


def reversed_keys(candidates: Candidates, key: str) -> NDArray[np.float64]:
    """The larger, the smaller the key, (N,)."""
    return -hash_keys(candidates.ids, key)


def _first_of_groups(part: PoolPart, by: str, share_of: Mapping[str, int], key: str) -> tuple[Strings, Strings]:
    """Ids and groups of the smallest keys of every group of a part, as many as its share."""
    id_N, group_N = part.candidates.ids, part.candidates.groups(by)
    rows = first_of_groups(id_N, group_N, share_of, key)
    return id_N[rows], group_N[rows]


def first_of_groups(ids: Strings, group_N: Strings, share_of: Mapping[str, int], key: str) -> NDArray[np.intp]:
    """Rows of the smallest keys of every group, as many as its share, in the order of their keys; ids in order."""
    order = np.argsort(hash_keys(ids, key), kind="stable")
    name_G, group_row_N = np.unique(group_N[order], return_inverse=True)
    share_G = np.array([share_of[name] for name in name_G.tolist()], dtype=np.int64)
    rows: NDArray[np.intp] = order[rank_in_group(group_row_N) < share_G[group_row_N]]
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
