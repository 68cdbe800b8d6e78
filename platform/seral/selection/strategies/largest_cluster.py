"""Largest cluster, maximum distance: the batch strategy for regression that takes density into account.

Every candidate belongs to the nearest clip that is labelled or picked. The cluster whose squared distances sum up to
most gives its farthest member, around which the next cluster forms. Sums are taken in whole numbers, so that they do
not depend on the parts.
"""

# N candidates · M labelled · P new picks · D features
from __future__ import annotations

import itertools
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from seral.selection.candidates import Candidates
from seral.selection.parts.local import Parts, mean_of
from seral.selection.parts.part import PoolPart
from seral.selection.strategies.farthest_first import BoundedRows
from seral.vectors.arrays import Doubles, Stored
from seral.vectors.distances import COMPARED, SLAB, Block, Points, distances

BITS = 38
"""Of the whole number that the largest squared distance becomes: the sum over 30 million rows fits in 63."""


class Farthest(NamedTuple):
    """The candidate of a part that is farthest from the centre of its cluster."""

    distance: float
    id: str
    x_D: Stored


def lcmd(candidates: Candidates, k: int, rng: np.random.Generator) -> list[str]:
    """Each pick is the farthest member of the cluster with the largest sum of squared distances, where candidates
    belong to the nearest labelled or picked clip. Holzmüller et al. 2023, LCMD, arXiv 2203.09410.

    Without a label it begins at the most central clip. Differs from the paper: distances are taken in the model's
    embedding, the kernel of its last layer.
    """
    return lcmd_in_parts(Parts([PoolPart(candidates)]), k, rng)


def lcmd_in_parts(parts: Parts, k: int, rng: np.random.Generator) -> list[str]:
    """The picks of `lcmd`: parts send the sums of their clusters, and the farthest member of the largest."""
    if k == 0:
        return []
    picks, centre_MD = list[str](), parts.labelled_part().labelled_centres()
    mean_D = mean_of(parts.each(_total))
    if not len(centre_MD):
        replies = [reply for reply in parts.each(_most_central, mean_D) if reply[1] is not None]
        _, first, x_D = min(replies, key=lambda reply: reply[:2])
        picks, centre_MD = [str(first)], x_D[None]
    largest = max(parts.each(_begin, mean_D, centre_MD, k))
    sum_P = np.sum(parts.each(_sums, largest), axis=0)
    while len(picks) < k and sum_P.any():
        farthest = [far for far in parts.each(_farthest, int(sum_P.argmax())) if far is not None]
        best = min(farthest, key=lambda far: (-far.distance, far.id))
        picks.append(best.id)
        sum_P = np.sum(parts.each(_add, best.x_D), axis=0)
    if len(picks) < k:  # only copies are left
        left = sorted(itertools.chain(*parts.each(_untaken, picks, k - len(picks))))
        picks += left[: k - len(picks)]
    return picks


class Clusters:
    """The candidates of a part by their nearest centre."""

    def __init__(self, candidates: Candidates, mean_D: Doubles, centre_MD: Stored, k: int) -> None:
        self.x_ND, self.mean_D = candidates.need("embedding_ND"), mean_D
        self.points, self.scale = Points(self.x_ND, centre_D=mean_D), 0.0
        self.count, self.limit = len(centre_MD), len(centre_MD) + k
        self.centre_N = np.zeros(len(self.x_ND), np.int64)
        self.distance_N = np.full(len(self.x_ND), np.inf, np.float32)
        for at in range(0, len(centre_MD), SLAB):
            self._approach(self._block(centre_MD[at : at + SLAB]), at)

    def scaled(self) -> NDArray[np.int64]:
        """Squared distances as whole numbers, (N,)."""
        return np.rint(self.distance_N.astype(np.float64) * self.scale).astype(np.int64)

    def sums(self) -> NDArray[np.int64]:
        """Sum of the squared distances of each cluster, in whole numbers."""
        sum_P = np.zeros(self.limit, np.int64)
        np.add.at(sum_P, self.centre_N, self.scaled())
        return sum_P

    def add(self, x_D: Stored) -> None:
        """Take in a centre."""
        self._approach(self._block(x_D[None]), self.count)
        self.count += 1

    def _block(self, centre_MD: Stored) -> Block:
        return Points(centre_MD, centre_D=self.mean_D).block(slice(None))

    def _approach(self, centres: Block, first: int) -> None:
        for at in range(0, len(self.x_ND), COMPARED):
            rows = slice(at, at + COMPARED)
            distance_BM = distances(self.points.block(rows), centres)
            nearest_B = distance_BM.argmin(axis=1)
            nearest_distance_B = distance_BM[np.arange(len(distance_BM)), nearest_B]
            nearer_B = nearest_distance_B < self.distance_N[rows]
            self.centre_N[rows] = np.where(nearer_B, first + nearest_B, self.centre_N[rows])
            self.distance_N[rows] = np.where(nearer_B, nearest_distance_B, self.distance_N[rows])


def _total(part: PoolPart) -> tuple[int, Doubles]:
    return BoundedRows(part.candidates.ids, part.candidates.need("embedding_ND")).total()


def _most_central(part: PoolPart, mean_D: Doubles) -> tuple[float, str | None, Stored]:
    return BoundedRows(part.candidates.ids, part.candidates.need("embedding_ND")).most_central(mean_D)


def _begin(part: PoolPart, mean_D: Doubles, centre_MD: Stored, k: int) -> float:
    """Find the nearest centre of every candidate; the largest squared distance."""
    part.work = Clusters(part.candidates, mean_D, centre_MD, k)
    return float(part.work.distance_N.max(initial=0))


def _sums(part: PoolPart, largest: float) -> NDArray[np.int64]:
    """Sums of the clusters, in shares of the largest distance of all parts; by a power of two, so that sums that are
    equal stay equal."""
    part.work.scale = 2.0 ** (BITS - int(np.ceil(np.log2(largest)))) if largest > 0 else 0.0
    sum_P: NDArray[np.int64] = part.work.sums()
    return sum_P


def _farthest(part: PoolPart, cluster: int) -> Farthest | None:
    """The farthest candidate of a cluster, the lower id of equals; None where the part has none of it."""
    own_N = part.work.centre_N == cluster
    if not own_N.any():
        return None
    at = int(np.where(own_N, part.work.distance_N, -1).argmax())
    return Farthest(float(part.work.distance_N[at]), str(part.candidates.ids[at]), part.work.x_ND[at])


def _add(part: PoolPart, x_D: Stored) -> NDArray[np.int64]:
    """Take in a pick; the sums of the clusters after it."""
    part.work.add(x_D)
    sum_P: NDArray[np.int64] = part.work.sums()
    return sum_P


def _untaken(part: PoolPart, picks: list[str], count: int) -> list[str]:
    """The first ids that are not picked."""
    free: list[str] = np.setdiff1d(part.candidates.ids, np.asarray(picks, np.str_))[:count].tolist()
    return free
