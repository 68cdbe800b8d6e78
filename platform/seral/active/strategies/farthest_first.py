"""Exact k-center greedy: each pick is the candidate farthest from everything labelled or picked before it.

The textbook form updates all N distances for every pick. Here each row keeps its distance to the centres it has seen,
which is an upper bound of its true one. A pass refreshes only the rows of the largest bounds, then picks among them as
long as the best of them beats the largest bound outside; the picks are the textbook's. Distances are taken in double
precision on centred rows and compared in single precision, so that equal distances stay equal and fall to the lower id.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from seral.active.candidates import Candidates
from seral.active.index import nearest

# N candidates · M labelled · B rows of a block · D features

Floats = NDArray[np.float32]
Doubles = NDArray[np.float64]
Rows = NDArray[np.intp]

FIRST_BLOCK = 512
FEW, MANY = 4, 64
"""Picks of a pass below which the block doubles, and above which it halves."""
SLAB = 8_192
"""Rows or centres taken at a time where all of them are visited."""
NO_DISTANCE = 1e-12
"""Squared distances below this share of the squared norms are rounding: the rows are equal in single precision."""
SHADE = 1 + 1e-5
"""Makes a distance computed in single precision an upper bound of the true one."""


def k_center(candidates: Candidates, k: int, rng: np.random.Generator) -> list[str]:
    """Farthest-first from the labelled rows, or from the most central. Sener and Savarese 2018, arXiv 1708.00489."""
    rows = farthest_first(candidates.need("embedding_ND"), candidates.labelled_centres(), k)
    chosen: list[str] = candidates.ids[rows].tolist()
    return chosen


def farthest_first(x_ND: Floats, labelled_MD: Floats, k: int) -> Rows:
    """The k rows of farthest-first traversal in order, (N, D) and (M, D) -> (k,); k <= N."""
    return _Traversal(x_ND, labelled_MD, k).run() if k else np.empty(0, dtype=np.intp)


class _Traversal:
    """Bounds, centres and picks of one traversal."""

    def __init__(self, x_ND: Floats, labelled_MD: Floats, k: int) -> None:
        self.x_ND, self.k, self.picks = x_ND, k, list[int]()
        self.mean_D = x_ND.mean(axis=0, dtype=np.float64)
        self.centre_MD = np.empty((len(labelled_MD) + k, x_ND.shape[1]))
        self.centre_MD[: len(labelled_MD)] = labelled_MD - self.mean_D
        self.centres = len(labelled_MD)
        self.seen_N = np.zeros(len(x_ND), dtype=np.int64)
        if self.centres:
            self.bound_N = _first_bounds(x_ND, labelled_MD)
        else:
            first = _most_central(x_ND, self.mean_D)
            self.bound_N = _first_bounds(x_ND, x_ND[first : first + 1])
            self._pick(first, self._rows(np.array([first]))[0])

    def run(self) -> Rows:
        size = FIRST_BLOCK
        while len(self.picks) < self.k:
            block, before = _largest(self.bound_N, size), len(self.picks)
            if self.bound_N[block].max() == 0:  # only copies of centres are left: all tie
                left = np.flatnonzero(self.bound_N == 0)
                self.picks += left[: self.k - before].tolist()
                break
            self._pick_in(block)
            size = _next_size(size, len(self.picks) - before)
        return np.array(self.picks, dtype=np.intp)

    def _pick_in(self, block: Rows) -> None:
        """Pick in the block while its best beats every row outside, whose largest bound is the rival's."""
        outside_N = self.bound_N.copy()
        outside_N[block] = -np.inf
        rival = int(outside_N.argmax())
        x_BD = self._refresh(block)
        square_B, bound_B = _squares(x_BD), self.bound_N[block]
        while len(self.picks) < self.k:
            best = int(bound_B.argmax())
            row = int(block[best])
            if (bound_B[best], -row) < (outside_N[rival], -rival):
                break
            self._pick(row, x_BD[best])
            distance_B = _distances(x_BD, x_BD[best : best + 1], square_B, square_B[best : best + 1])[:, 0]
            np.minimum(bound_B, distance_B, out=bound_B)
            bound_B[best] = -np.inf
        self.bound_N[block] = bound_B
        self.seen_N[block] = self.centres

    def _refresh(self, block: Rows) -> Doubles:
        """Bring the block's bounds up to date with the centres each row has missed; returns its rows."""
        x_BD = self._rows(block)
        square_B = _squares(x_BD)
        for seen in np.unique(self.seen_N[block]):
            part = np.flatnonzero(self.seen_N[block] == seen)
            for start in range(int(seen), self.centres, SLAB):
                centre_SD = self.centre_MD[start : min(start + SLAB, self.centres)]
                distance_BS = _distances(x_BD[part], centre_SD, square_B[part], _squares(centre_SD))
                self.bound_N[block[part]] = np.minimum(self.bound_N[block[part]], distance_BS.min(axis=1))
        return x_BD

    def _pick(self, row: int, x_D: Doubles) -> None:
        self.centre_MD[self.centres] = x_D
        self.centres += 1
        self.picks.append(row)
        self.bound_N[row] = -np.inf

    def _rows(self, rows: Rows) -> Doubles:
        centred_BD: Doubles = self.x_ND[rows] - self.mean_D
        return centred_BD


def _squares(x_ND: Doubles) -> Doubles:
    squares_N: Doubles = np.einsum("nd,nd->n", x_ND, x_ND)
    return squares_N


def _distances(x_BD: Doubles, centre_MD: Doubles, square_B: Doubles, square_M: Doubles) -> Floats:
    """Squared distances (B, M), rounded to single precision; equal rows are at 0 exactly."""
    scale_BM = square_B[:, None] + square_M
    distance_BM = scale_BM - 2 * (x_BD @ centre_MD.T)
    return np.where(distance_BM > NO_DISTANCE * scale_BM, distance_BM, 0).astype(np.float32)


def _first_bounds(x_ND: Floats, centre_MD: Floats) -> Floats:
    """Upper bounds of the squared distance to the nearest centre, (N,): distances to the one that FAISS finds."""
    bound_N = np.empty(len(x_ND), dtype=np.float32)
    for start in range(0, len(x_ND), SLAB):
        part_BD = x_ND[start : start + SLAB]
        found_B = (
            nearest(part_BD, centre_MD, 1).row_QK[:, 0] if len(centre_MD) > 1 else np.zeros(len(part_BD), np.int64)
        )
        difference_BD = part_BD - centre_MD[found_B]
        bound_N[start : start + SLAB] = np.einsum("bd,bd->b", difference_BD, difference_BD) * SHADE
    return bound_N


def _most_central(x_ND: Floats, mean_D: Doubles) -> int:
    """The row nearest to the mean, the lower of equals."""
    slabs = range(0, len(x_ND), SLAB)
    return int(np.concatenate([_squares(x_ND[at : at + SLAB] - mean_D) for at in slabs]).astype(np.float32).argmin())


def _largest(bound_N: Floats, size: int) -> Rows:
    """Rows of the `size` largest bounds, in ascending order."""
    if size >= len(bound_N):
        return np.arange(len(bound_N))
    return np.sort(np.argpartition(bound_N, len(bound_N) - size)[-size:])


def _next_size(size: int, picked: int) -> int:
    """A larger block when few picks came out of this one, a smaller one when many did."""
    if picked < FEW:
        return size * 2
    return max(FIRST_BLOCK, size // 2) if picked > MANY else size
