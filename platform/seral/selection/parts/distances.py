"""Distances between the rows of all parts of a pool, wherever they are kept."""

# N rows · M labelled · B rows of a block · D features
from __future__ import annotations

import numpy as np

from seral.selection.parts.local import Parts, mean_of
from seral.selection.parts.part import PoolPart
from seral.vectors.arrays import Doubles, Floats, Rows, Stored
from seral.vectors.distances import Block, Points, feature_points, gradient_points


class DistributedPoints(Points):
    """Rows of all parts in the order of their ids; the parts must be prepared for them."""

    def __init__(self, parts: Parts, widths: list[int], centre_D: Doubles | None = None) -> None:
        self._parts, self._widths, self._centre_D = parts, widths, centre_D
        ids = parts.each(PoolPart.ids)
        self.ids = np.concatenate(ids)
        part_N = np.repeat(np.arange(len(ids), dtype=np.int32), [len(part) for part in ids])
        row_N = np.concatenate([np.arange(len(part)) for part in ids])
        order = np.argsort(self.ids, kind="stable")
        self.ids, self._part_N, self._row_N = self.ids[order], part_N[order], row_N[order]

    @classmethod
    def of_features(cls, parts: Parts) -> DistributedPoints:
        """Features, centred on the mean of all parts."""
        centre_D = mean_of(parts.each(_total))
        return cls(parts, parts.each(_prepare_features, centre_D)[0], centre_D)

    @classmethod
    def of_gradients(cls, parts: Parts) -> DistributedPoints:
        """Gradient embeddings (BADGE)."""
        return cls(parts, parts.each(_prepare_gradients)[0])

    def __len__(self) -> int:
        return len(self.ids)

    @property
    def widths(self) -> list[int]:
        return self._widths

    def labelled(self, embedding_MD: Stored) -> Points:
        """Labelled rows beside these, centred alike."""
        return Points(embedding_MD, centre_D=self._centre_D)

    def upper_bounds(self, centres: Block) -> Floats:
        bound_N = np.empty(len(self), dtype=np.float32)
        for part, part_bound_N in enumerate(self._parts.each(_upper_bounds, centres)):
            mine = np.flatnonzero(self._part_N == part)
            bound_N[mine] = part_bound_N[self._row_N[mine]]
        return bound_N

    def largest(self) -> int:
        _, name = min(self._parts.each(_largest), key=lambda reply: (-reply[0], reply[1]))
        return int(np.searchsorted(self.ids, name))

    def block(self, rows: Rows | slice, *, narrow: bool = False) -> Block:
        if narrow:
            return self.block(rows).narrow()
        wanted = np.arange(len(self))[rows]
        mine = [np.flatnonzero(self._part_N[wanted] == part) for part in range(len(self._parts))]
        blocks = self._parts.respective(_block, [(self._row_N[wanted[rows_B]],) for rows_B in mine])
        factors = tuple(np.empty((len(wanted), width)) for width in self._widths)
        square_B = np.empty(len(wanted))
        for rows_B, block in zip(mine, blocks, strict=True):
            square_B[rows_B] = block.square_B
            for whole, factor in zip(factors, block.factors, strict=True):
                whole[rows_B] = factor
        return Block(factors, square_B)


def _total(part: PoolPart) -> tuple[int, Doubles]:
    """Rows, and their sum (D,)."""
    x_ND = part.candidates.need("embedding_ND")
    return len(x_ND), x_ND.sum(axis=0, dtype=np.float64)


def _prepare_features(part: PoolPart, mean_D: Doubles) -> list[int]:
    """Make ready for distances between features; returns the widths of the factors."""
    part.work = feature_points(part.candidates.need("embedding_ND"), mean_D)
    return _points(part).widths


def _prepare_gradients(part: PoolPart) -> list[int]:
    """Make ready for distances between gradients; returns the widths of the factors."""
    part.work = gradient_points(part.candidates.need("probability_NC"), part.candidates.need("embedding_ND"))
    return _points(part).widths


def _points(part: PoolPart) -> Points:
    """The rows that the part was prepared with."""
    points: Points = part.work
    return points


def _block(part: PoolPart, rows: Rows) -> Block:
    """Some rows of the part."""
    return _points(part).block(rows)


def _upper_bounds(part: PoolPart, centres: Block) -> Floats:
    """Upper bounds of the distance of every row to the nearest of some centres."""
    return _points(part).upper_bounds(centres)


def _largest(part: PoolPart) -> tuple[float, str]:
    """Squared norm and id of the largest row."""
    points = _points(part)
    if not len(points):
        return -1.0, ""
    row = points.largest()
    return float(np.float32(points.block(np.array([row])).square_B[0])), str(part.candidates.ids[row])
