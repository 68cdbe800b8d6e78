"""Squared distances between rows: of features, or of gradient embeddings that are never built.

The gradient of the likeliest class's loss by the last layer is (p - e) ⊗ u, C·D numbers a row. Its inner products are
products of inner products, (a·a')(u·u'), so rows are kept as factors: one for features, two for gradients.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

# N rows · B rows of a block · M centres · D features · C classes

Floats = NDArray[np.float32]
Doubles = NDArray[np.float64]
Rows = NDArray[np.intp]
Stored = NDArray[np.float16] | NDArray[np.float32]

SLAB = 2_048
"""Rows or centres taken at a time where all of them are visited."""
NO_DISTANCE = 1e-12
"""Squared distances below this share of the squared norms are rounding: the rows are equal in single precision."""


@dataclass(frozen=True)
class Block:
    """Some rows in double precision, ready for distances."""

    factors: tuple[Doubles, ...]
    """(B, D) each."""
    square_B: Doubles
    """Squared norms."""

    def __len__(self) -> int:
        return len(self.square_B)

    def take(self, rows: Rows | slice) -> Block:
        """Some of them."""
        return Block(tuple(factor[rows] for factor in self.factors), self.square_B[rows])


class Points:
    """N rows between which squared distances can be taken; stored as they came, in single or half precision."""

    def __init__(self, *factors: Stored, centre_D: Doubles | None = None) -> None:
        self.factors, self.centre_D = factors, centre_D

    def __len__(self) -> int:
        return len(self.factors[0])

    @property
    def widths(self) -> list[int]:
        """Columns of each factor."""
        return [factor.shape[1] for factor in self.factors]

    def nearest(self, centres: Block) -> Floats:
        """Squared distance of every row to the nearest of some centres, (N,)."""
        slabs = [slice(at, at + SLAB) for at in range(0, len(self), SLAB)]
        return np.concatenate([_nearest(self.block(slab), centres) for slab in slabs])

    def largest(self) -> int:
        """The row of the largest norm, the lower of equals."""
        slabs = range(0, len(self), SLAB)
        square_N = np.concatenate([self.block(slice(at, at + SLAB)).square_B for at in slabs])
        return int(square_N.astype(np.float32).argmax())

    def block(self, rows: Rows | slice) -> Block:
        """These rows in double precision."""
        wide = [factor[rows].astype(np.float64) for factor in self.factors]
        if self.centre_D is not None:
            wide[0] -= self.centre_D
        squares = [np.einsum("bd,bd->b", factor, factor) for factor in wide]
        return Block(tuple(wide), np.prod(squares, axis=0))


def feature_points(x_ND: Stored, centre_D: Doubles | None = None) -> Points:
    """Features, centred: far from the origin, |x|² + |y|² - 2x·y loses its digits."""
    return Points(x_ND, centre_D=x_ND.mean(axis=0, dtype=np.float64) if centre_D is None else centre_D)


def gradient_points(p_NC: Floats, u_ND: Stored) -> Points:
    """Gradient embeddings (p - e) ⊗ u, e the likeliest class. Ash et al. 2020, BADGE, arXiv 1906.03671."""
    error_NC = p_NC.copy()
    error_NC[np.arange(len(p_NC)), p_NC.argmax(axis=1)] -= 1
    return Points(error_NC, u_ND)


class Centres:
    """Up to `limit` rows that others are compared with, in the order in which they came."""

    def __init__(self, widths: Sequence[int], limit: int) -> None:
        self._block = Block(tuple(np.empty((limit, width)) for width in widths), np.empty(limit))
        self._count = 0

    def __len__(self) -> int:
        return self._count

    def add(self, block: Block) -> None:
        """Take in these rows."""
        to = slice(self._count, self._count + len(block))
        for mine, new in zip(self._block.factors, block.factors, strict=True):
            mine[to] = new
        self._block.square_B[to] = block.square_B
        self._count += len(block)

    def since(self, start: int) -> Iterator[Block]:
        """Those from `start` on, a slab at a time."""
        for at in range(start, self._count, SLAB):
            yield self._block.take(slice(at, min(at + SLAB, self._count)))


def join(blocks: Sequence[Block]) -> Block:
    """Several blocks as one."""
    factors = tuple(np.concatenate(parts) for parts in zip(*(block.factors for block in blocks), strict=True))
    return Block(factors, np.concatenate([block.square_B for block in blocks]))


def distances(of: Block, to: Block) -> Floats:
    """Squared distances (B, M), rounded to single precision, so that equal distances stay equal; equal rows at 0."""
    inner_BM = of.factors[0] @ to.factors[0].T
    for one, other in zip(of.factors[1:], to.factors[1:], strict=True):
        inner_BM *= one @ other.T
    scale_BM = of.square_B[:, None] + to.square_B
    inner_BM *= -2
    inner_BM += scale_BM
    scale_BM *= NO_DISTANCE
    return np.where(inner_BM > scale_BM, inner_BM, 0).astype(np.float32)


def nearest_distance(of: Block, centres: Centres, start: int = 0) -> Floats:
    """Squared distance of each row to the nearest centre from `start` on, (B,); infinite when there is none."""
    nearest_B = np.full(len(of), np.inf, dtype=np.float32)
    for slab in centres.since(start):
        np.minimum(nearest_B, _nearest(of, slab), out=nearest_B)
    return nearest_B


def _nearest(of: Block, centres: Block) -> Floats:
    nearest_B: Floats = distances(of, centres).min(axis=1)
    return nearest_B
