"""k-means++ seeding: draws of rows, each with a probability proportional to its squared distance.

The textbook form updates all N distances for every draw. Here rows keep the distance to the centres they have seen, an
upper bound of their true one; rows are drawn by these bounds, in blocks, and a draw is kept with the probability
(true distance / bound). What is kept has the textbook's distribution (rejection sampling, von Neumann 1951), and most
rows are never looked at.
"""

from __future__ import annotations

import numpy as np

from seral.vectors.arrays import Rows
from seral.vectors.distances import Block, Centres, Points, distances, nearest_distance

# N rows · B rows of a block · M centres · D features

FIRST_BLOCK, LARGEST_BLOCK = 128, 4_096
STALE = 0.25
"""Draws since all bounds were brought up to date, as a share of the rows, after which that is done again."""


def seed_rows(
    points: Points, labelled: Points | None, k: int, rng: np.random.Generator, first: int | None = None
) -> Rows:
    """k different rows in the order of their draw, (k,); k <= N.

    The first is `first`, or drawn like the others when there are labelled rows, or any row with equal chances.
    """
    return _Seeding(points, labelled, k, rng, first).run() if k else np.empty(0, dtype=np.intp)


class _Seeding:
    """Bounds, centres and rows of one seeding."""

    def __init__(
        self, points: Points, labelled: Points | None, k: int, rng: np.random.Generator, first: int | None
    ) -> None:
        self.points, self.k, self.rng, self.picks = points, k, rng, list[int]()
        labelled_rows = 0 if labelled is None else len(labelled)
        self.centres = Centres(points.widths, labelled_rows + k)
        if labelled is not None:
            self.centres.add_all(labelled)
        self.bound_N = np.full(len(points), np.inf, dtype=np.float32)
        self.drawn = self.fresh = 0
        if not labelled_rows or first is not None:
            row = int(rng.integers(len(points))) if first is None else first
            self._pick(row, points.block(np.array([row])))
        self._refresh_all()

    def run(self) -> Rows:
        size = FIRST_BLOCK
        while len(self.picks) < self.k:
            if not self.bound_N.any():  # only copies of centres are left: in the order of ids
                taken_N = np.isin(np.arange(len(self.points)), self.picks)
                self.picks += np.flatnonzero(~taken_N)[: self.k - len(self.picks)].tolist()
                break
            accepted = self._draw(size)
            size = int(np.clip((self.k - len(self.picks)) * size / max(1, accepted), FIRST_BLOCK, LARGEST_BLOCK))
            if self.drawn > STALE * len(self.points):
                self._refresh_all()
        return np.array(self.picks, dtype=np.intp)

    def _draw(self, size: int) -> int:
        """Draw a block by the bounds and keep of it what the true distances allow; returns how many."""
        before, total_N = len(self.picks), np.cumsum(self.bound_N, dtype=np.float64)
        drawn_B = np.searchsorted(total_N, self.rng.random(size) * total_N[-1], side="right")
        np.minimum(drawn_B, len(total_N) - 1, out=drawn_B)  # a product may be rounded up to the total
        chance_B = self.rng.random(size)
        row_U, unit_B = np.unique(drawn_B, return_inverse=True)
        block, bound_U = self.points.block(row_U), self.bound_N[row_U]
        distance_U = nearest_distance(block, self.centres)
        for unit, chance in zip(unit_B.tolist(), chance_B.tolist(), strict=True):
            if chance * bound_U[unit] < distance_U[unit]:
                new = block.take(slice(unit, unit + 1))
                self._pick(int(row_U[unit]), new)
                np.minimum(distance_U, distances(block, new)[:, 0], out=distance_U)
                if len(self.picks) == self.k:
                    break
        self.bound_N[row_U] = distance_U
        self.drawn += size
        return len(self.picks) - before

    def _refresh_all(self) -> None:
        """Bring every bound up to date."""
        for slab in self.centres.since(self.fresh):
            np.minimum(self.bound_N, self.points.upper_bounds(slab), out=self.bound_N)
        self.fresh, self.drawn = len(self.centres), 0

    def _pick(self, row: int, centre: Block) -> None:
        self.picks.append(row)
        self.centres.add(centre)
