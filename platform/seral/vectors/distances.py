"""Squared distances between rows: of features, or of gradient embeddings that are never built.

The gradient of the likeliest class's loss by the last layer is (p - e) ⊗ u, C·D numbers a row. Its inner products are
products of inner products, (a·a')(u·u'), so rows are kept as factors: one for features, two for gradients.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from seral.errors import SelectionError
from seral.vectors.arrays import Doubles, Floats, Rows, Stored
from seral.vectors.view import Features

# N rows · B rows of a block · M centres · D features · C classes


SLAB = 2_048
"""Rows or centres taken at a time where all of them are visited."""
COMPARED = 512
"""Rows compared with a slab of centres at a time in double precision."""
NO_DISTANCE = 1e-12
"""Squared distances below this share of the squared norms are rounding: the rows are equal in single precision."""


@dataclass(frozen=True)
class Block:
    """Some rows ready for distances, in double precision, or in single precision for upper bounds."""

    factors: tuple[NDArray[Any], ...]
    """(B, D) each."""
    square_B: NDArray[Any]
    """Squared norms."""

    def __len__(self) -> int:
        return len(self.square_B)

    def take(self, rows: Rows | slice) -> Block:
        """The block of these rows."""
        return Block(tuple(factor[rows] for factor in self.factors), self.square_B[rows])

    def narrow(self) -> Block:
        """The rows in single precision."""
        return Block(tuple(factor.astype(np.float32) for factor in self.factors), self.square_B.astype(np.float32))


class Points:
    """N rows between which squared distances can be taken; stored as they came, in single or half precision."""

    def __init__(self, *factors: Features, centre_D: Doubles | None = None) -> None:
        self.factors, self.centre_D = factors, centre_D

    def __len__(self) -> int:
        return len(self.factors[0])

    @property
    def widths(self) -> list[int]:
        """Columns of each factor."""
        return [factor.shape[1] for factor in self.factors]

    def block(self, rows: Rows | slice, *, narrow: bool = False) -> Block:
        """The named rows in double precision, or in single precision."""
        kind: type[np.float32] | type[np.float64] = np.float32 if narrow else np.float64
        factors: list[NDArray[Any]] = [factor[rows].astype(kind) for factor in self.factors]
        if self.centre_D is not None:
            factors[0] -= self.centre_D.astype(kind)
        squares = [np.einsum("bd,bd->b", factor, factor) for factor in factors]
        return Block(tuple(factors), np.prod(squares, axis=0, dtype=kind))

    def upper_bounds(self, centres: Block) -> Floats:
        """Upper bounds of the squared distance of every row to the nearest of some centres, (N,)."""
        slabs, single = [slice(at, at + SLAB) for at in range(0, len(self), SLAB)], centres.narrow()
        bounds = [upper_bounds(self.block(slab, narrow=True), [single]) for slab in slabs]
        return np.concatenate([*bounds, np.empty(0, np.float32)])

    def largest(self) -> int:
        """The row of the largest norm, the lower of equals."""
        slabs = range(0, len(self), SLAB)
        square_N = np.concatenate([self.block(slice(at, at + SLAB)).square_B for at in slabs])
        return int(square_N.astype(np.float32).argmax())


def feature_points(x_ND: Stored, centre_D: Doubles | None = None) -> Points:
    """Features, centred: far from the origin, |x|² + |y|² - 2x·y loses its digits."""
    return Points(x_ND, centre_D=x_ND.mean(axis=0, dtype=np.float64) if centre_D is None else centre_D)


def gradient_points(p_NC: Floats, u_ND: Stored) -> Points:
    """Gradient embeddings (p - e) ⊗ u, e the likeliest class. Ash et al. 2020, BADGE, arXiv 1906.03671."""
    error_NC = p_NC.copy()
    error_NC[np.arange(len(p_NC)), p_NC.argmax(axis=1)] -= 1
    return Points(error_NC, u_ND)


class Centres:
    """Up to `limit` rows that others are compared with, in the order in which they came, in both precisions."""

    def __init__(self, widths: Sequence[int], limit: int) -> None:
        self._double = Block(tuple(np.zeros((limit, width)) for width in widths), np.zeros(limit))
        self._single, self._count = self._double.narrow(), 0

    def __len__(self) -> int:
        return self._count

    def add(self, block: Block) -> None:
        """Take in these rows."""
        to = slice(self._count, self._count + len(block))
        for mine, new in ((self._double, block), (self._single, block.narrow())):
            for own, factor in zip(mine.factors, new.factors, strict=True):
                own[to] = factor
            mine.square_B[to] = new.square_B
        self._count += len(block)

    def add_all(self, points: Points) -> None:
        """Take in all rows of some points."""
        for at in range(0, len(points), SLAB):
            self.add(points.block(slice(at, at + SLAB)))

    def since(self, start: int, *, narrow: bool = False) -> Iterator[Block]:
        """The centres from `start` on, a slab at a time."""
        for at in range(start, self._count, SLAB):
            yield (self._single if narrow else self._double).take(slice(at, min(at + SLAB, self._count)))


def join(blocks: Sequence[Block]) -> Block:
    """Several blocks as one."""
    factors = tuple(np.concatenate(parts) for parts in zip(*(block.factors for block in blocks), strict=True))
    return Block(factors, np.concatenate([block.square_B for block in blocks]))


def distances(of: Block, to: Block) -> Floats:
    """Squared distances (B, M), rounded to single precision, so that equal distances stay equal; equal rows at 0."""
    inner_BM = _inner(of, to)
    scale_BM = of.square_B[:, None] + to.square_B
    inner_BM *= -2
    inner_BM += scale_BM
    scale_BM *= NO_DISTANCE
    return np.where(inner_BM > scale_BM, inner_BM, 0).astype(np.float32)


def nearest_distance(of: Block, centres: Centres) -> Floats:
    """Squared distance of each row to the nearest centre, (B,); infinite when there is none."""
    nearest_B = np.full(len(of), np.inf, dtype=np.float32)
    for slab in centres.since(0):
        for at in range(0, len(of), COMPARED):
            part = slice(at, at + COMPARED)
            nearest_B[part] = np.minimum(nearest_B[part], distances(of.take(part), slab).min(axis=1))
    return nearest_B


def upper_bounds(of: Block, centres: Iterable[Block]) -> Floats:
    """Upper bounds of the squared distance to the nearest of some centres, (B,); all blocks in single precision.

    Half the time of distances, and nobody's pick depends on how a product was rounded: the largest error that rounding
    can make, a share of the squared norms that grows with the width, is added.
    """
    bound_B = np.full(len(of), np.inf, dtype=np.float32)
    share = np.float32(rounding(sum(factor.shape[1] for factor in of.factors)))
    for slab in centres:
        inner_BM = _inner(of, slab)
        inner_BM *= -2
        inner_BM += slab.square_B
        error_B = share * (of.square_B + slab.square_B.max())
        np.minimum(bound_B, inner_BM.min(axis=1) + of.square_B + error_B, out=bound_B)
    return bound_B


def rounding(width: int) -> float:
    """The largest error of a squared distance in single precision, as a share of the two squared norms."""
    return 2.0**-23 * (width + 16)


def _inner(of: Block, to: Block) -> NDArray[Any]:
    """Inner products (B, M). Raises SelectionError when one of them is not a number."""
    # Not by the flags of the processor: "invalid" was once raised for rows and products that are all finite.
    with np.errstate(invalid="ignore", over="ignore"):
        inner_BM: NDArray[Any] = of.factors[0] @ to.factors[0].T
        for one, other in zip(of.factors[1:], to.factors[1:], strict=True):
            inner_BM *= one @ other.T
        total = inner_BM.sum()
    if not np.isfinite(total):
        raise SelectionError("features are too large to take distances between them: scale them down")
    return inner_BM
