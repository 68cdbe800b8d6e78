"""Features read a slab at a time, so that a pool is never converted, scaled or joined as a whole."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
from numpy.typing import NDArray

from seral.vectors.arrays import Floats, Rows, Stored

# N rows · B rows of a slab · D features

NUMBERS = 1_048_576
"""Numbers of a slab: 4 MB in single precision."""


class View:
    """Rows of one or more arrays below one another, in single precision; they are made when they are read.

    With `unit` they are scaled to length 1; with `rows` they are only these, in this order.
    """

    def __init__(self, *arrays: Stored, unit: bool = False, rows: Rows | None = None) -> None:
        self._arrays, self._unit, self._rows = arrays, unit, rows

    def __len__(self) -> int:
        return sum(map(len, self._arrays)) if self._rows is None else len(self._rows)

    @property
    def shape(self) -> tuple[int, int]:
        """Rows and features."""
        return len(self), self._arrays[0].shape[1]

    def __getitem__(self, rows: Rows | slice) -> Floats:
        """A copy of these rows, (B, D); a slice goes up by one."""
        rows = rows if self._rows is None else self._rows[rows]
        rows_BD = _single(self._arrays[0][rows]) if len(self._arrays) == 1 else self._joined(rows)
        return _scale(rows_BD) if self._unit else rows_BD

    def only(self, rows: Rows) -> View:
        """A view of these rows."""
        return View(*self._arrays, unit=self._unit, rows=rows if self._rows is None else self._rows[rows])

    def slabs(self) -> Iterator[slice]:
        """All rows, as many at a time as may be read at once."""
        return slabs(*self.shape)

    def mean(self) -> NDArray[np.float64]:
        """The mean of all rows in double precision, (D,)."""
        total_D = np.zeros(self.shape[1])
        for part in self.slabs():
            total_D += self[part].sum(axis=0, dtype=np.float64)
        return total_D / len(self)

    def _joined(self, rows: Rows | slice) -> Floats:
        if isinstance(rows, slice):
            low, high, _ = rows.indices(sum(map(len, self._arrays)))
            pieces = []
            for array in self._arrays:
                pieces.append(_single(array[max(0, low) : max(0, high)]))
                low, high = low - len(array), high - len(array)
            return np.concatenate(pieces)
        rows_BD = np.empty((len(rows), self.shape[1]), np.float32)
        for array in self._arrays:
            mine = np.flatnonzero((rows >= 0) & (rows < len(array)))
            rows_BD[mine] = _single(array[rows[mine]])
            rows = rows - len(array)
        return rows_BD


Features = Stored | View
"""Rows as stored, or as they are to be read."""


def view(x_ND: Features) -> View:
    """Any features as a view."""
    return x_ND if isinstance(x_ND, View) else View(x_ND)


def slabs(count: int, width: int) -> Iterator[slice]:
    """`count` rows of `width` numbers, as many at a time as may be read at once."""
    step = max(1, NUMBERS // max(1, width))
    return (slice(at, min(at + step, count)) for at in range(0, count, step))


def unit_rows(x_ND: Stored) -> Floats:
    """Rows scaled to length 1, in single precision; a row of zeros stays zero."""
    return _scale(_single(x_ND))


def _single(x_ND: Stored) -> Floats:
    """A copy in single precision. Of half precision by torch: numpy widens it several times as slowly."""
    if x_ND.dtype != np.float16:
        return x_ND.astype(np.float32)
    import torch  # late, for strategies are also listed without it

    # Into memory of numpy's: torch's own would leave the heap in pieces.
    copy_ND = np.empty(x_ND.shape, np.float32)
    torch.from_numpy(copy_ND).copy_(torch.from_numpy(x_ND if x_ND.flags.writeable else x_ND.copy()))
    return copy_ND


def _scale(x_ND: Floats) -> Floats:
    """Scale the rows to length 1, in place."""
    length_N = np.sqrt(np.einsum("nd,nd->n", x_ND, x_ND))
    length_N[length_N == 0] = 1
    x_ND /= length_N[:, None]
    return x_ND
