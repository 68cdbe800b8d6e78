"""Ids of many utterances as a sequence in Arrow."""

# N utterances
from __future__ import annotations

from bisect import bisect_right
from collections.abc import Collection, Iterable, Iterator, Sequence
from typing import Any, overload

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

SLAB = 65_536
"""Ids that are Python's strings, or looked up, at a time."""


def positions(asked: pa.Array, among: pa.Array) -> NDArray[np.int64]:
    """Positions of ids among others; -1 for those that are not there, (N,).

    Arrow's own look-up makes a table of all of `among`, several times as large. Where they are sorted, as a pool's are,
    this one makes a table of SLAB ids at a time.
    """
    if not _sorted(among):
        return np.asarray(pc.index_in(asked, value_set=among).fill_null(-1)).astype(np.int64)
    order = None if _sorted(asked) else pc.sort_indices(asked)
    ascending = asked if order is None else asked.take(order)
    position_N, begin = np.full(len(asked), -1), 0
    for start in range(0, len(among), SLAB):
        slab = among.slice(start, SLAB)
        end = bisect_right(range(len(ascending)), slab[-1].as_py(), lo=begin, key=lambda at: ascending[at].as_py())
        if end > begin:
            row_N = pc.index_in(ascending.slice(begin, end - begin), value_set=slab)
            position_N[begin:end] = row_N.fill_null(-1 - start).to_numpy() + np.int64(start)
        begin = end
    if order is None:
        return position_N
    unsorted_N = np.empty_like(position_N)
    unsorted_N[order.to_numpy()] = position_N
    return unsorted_N


def one_array(column: pa.ChunkedArray) -> pa.Array:
    """A column as one array; without a copy where it is one, which `combine_chunks` always makes."""
    return column.chunk(0) if column.num_chunks == 1 else column.combine_chunks()


def _sorted(ids: pa.Array) -> bool:
    return bool(pc.all(pc.less_equal(ids[:-1], ids[1:]), min_count=0).as_py())


class Ids(Sequence[str]):
    """Ids in a fixed order: some 25 bytes each, where a tuple of strings takes 80."""

    __slots__ = ("_names",)

    def __init__(self, names: Iterable[str] | pa.Array | pa.ChunkedArray = ()) -> None:
        if isinstance(names, Ids):
            names = names._names
        elif isinstance(names, pa.ChunkedArray):
            names = one_array(names)
        elif not isinstance(names, pa.Array):
            names = pa.array(list(names), pa.string())
        self._names: pa.StringArray = names

    def __len__(self) -> int:
        return len(self._names)

    @overload
    def __getitem__(self, at: int) -> str: ...

    @overload
    def __getitem__(self, at: slice) -> Ids: ...

    def __getitem__(self, at: int | slice) -> str | Ids:
        if isinstance(at, slice):
            return Ids(self._names[at])
        name: str = self._names[at].as_py()
        return name

    def __iter__(self) -> Iterator[str]:
        for start in range(0, len(self), SLAB):
            yield from self._names.slice(start, SLAB).to_pylist()

    def __contains__(self, name: object) -> bool:
        return isinstance(name, str) and bool(pc.index(self._names, name).as_py() >= 0)

    def __eq__(self, other: object) -> bool:
        if isinstance(other, Ids):
            return bool(self._names.equals(other._names))
        return isinstance(other, list | tuple) and [*self] == [*other]

    def __hash__(self) -> int:
        return hash(tuple(self))

    def __add__(self, others: Iterable[str]) -> Ids:
        return Ids(pa.concat_arrays([self._names, Ids(others)._names]))

    def __repr__(self) -> str:
        return f"Ids({[*self[:3]]}{'' if len(self) <= 3 else f' and {len(self) - 3} more'})"

    def __arrow_array__(self, type: pa.DataType | None = None) -> pa.Array:
        return self._names if type is None else self._names.cast(type)

    def __array__(self, dtype: Any = None, copy: bool | None = None) -> NDArray[Any]:
        return np.array(self._names.to_pylist(), dtype=np.str_ if dtype is None else dtype)

    def without(self, names: Collection[str]) -> Ids:
        """The ids that are not among some names, in their order."""
        return Ids(self._names.filter(pc.invert(pc.is_in(self._names, Ids(names)._names)))) if names else self

    def take(self, rows: NDArray[np.integer]) -> Ids:
        """The ids at some positions."""
        return Ids(self._names.take(pa.array(rows)))
