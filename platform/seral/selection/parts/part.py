"""One part of a pool: rows that stay where they were read, and what every strategy may ask of them."""

# N candidates · D features
from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any, Concatenate, ParamSpec, TypeVar

import numpy as np
from numpy.typing import NDArray

from seral.selection.candidates import Candidates
from seral.selection.source_options import SourceOptions
from seral.vectors.arrays import Doubles, Rows, Stored, Strings
from seral.vectors.index import nearest
from seral.vectors.stable_keys import hash_keys

HASH_KEY = "seral.select.ids"
"""16 characters, by which ids are hashed."""
SEARCHED = 4_096
"""Rows whose nearest pick is looked up at a time."""

P = ParamSpec("P")
T = TypeVar("T")


class PoolPart:
    """One part of the candidates, in this process or in an actor.

    Whatever takes a part as its first argument can be asked of all parts at once, a method or a function of a strategy:
    see `Parts.each`.
    """

    work: Any = None
    """State of the strategy that runs from one call to the next, such as its bounds of distances."""

    def __init__(self, source: SourceOptions | Candidates, names: Sequence[str] = ()) -> None:
        if not isinstance(source, Candidates):
            from seral.selection.source import read_candidates  # late: options of strategies are listed without it

            source = read_candidates(source, names)
        self.candidates = source
        self._earlier = list[Candidates]()

    def call(self, function: Callable[Concatenate[PoolPart, P], T], /, *arguments: P.args, **options: P.kwargs) -> T:
        """Call a function of this part where the part is; the only thing that an actor is asked by name."""
        return function(self, *arguments, **options)

    def remember(self) -> None:
        """Keep the candidates of now, to come back to."""
        self._earlier.append(self.candidates)

    def come_back(self) -> None:
        """Return to the candidates that were remembered last."""
        self.candidates = self._earlier.pop()

    def count_as_picked(self, ids: Sequence[str]) -> None:
        """Candidates of these ids are picked, and no candidates any more."""
        self.candidates = self.candidates.but(self.own(ids))

    def keep(self, wanted_N: NDArray[np.bool_]) -> None:
        """Leave out all other candidates, for now."""
        if not wanted_N.all():  # without a copy of the features, else
            self.candidates = self.candidates.take(np.flatnonzero(wanted_N))

    def sizes(self, by: str) -> tuple[Counter[str], Counter[str]]:
        """Number of candidates of every group, and number of its picks."""
        return self.candidates.group_sizes(by), self.candidates.picked_sizes(by)

    def groups(self, by: str, ids: Sequence[str]) -> list[tuple[str, str]]:
        """Ids and groups of those of the ids that are in this part."""
        rows = self._rows(ids)
        return list(zip(self.candidates.ids[rows].tolist(), self.candidates.groups(by)[rows].tolist(), strict=True))

    def count(self) -> int:
        """Number of candidates."""
        return len(self.candidates)

    def has(self, name: str) -> bool:
        """Whether this field of Candidates is there."""
        return getattr(self.candidates, name) is not None

    def id_hashes(self) -> Doubles:
        """A number for every id, labelled ones included; different ids seldom have the same."""
        return hash_keys(self._all_ids(), HASH_KEY)

    def ids_of(self, hashes: Doubles) -> list[str]:
        """All ids with one of these numbers."""
        ids: list[str] = self._all_ids()[np.isin(self.id_hashes(), hashes)].tolist()
        return ids

    def ids(self) -> Strings:
        """Ids in order."""
        return self.candidates.ids

    def labelled_ids(self) -> list[str]:
        """Ids of what is labelled."""
        ids = self.candidates.labelled_ids
        return [] if ids is None else ids.tolist()

    def labelled_part(self) -> Candidates:
        """Labelled and picked rows of this part, without a candidate."""
        nobody, labelled = self.candidates.take(np.empty(0, dtype=np.intp)), len(self.labelled_ids())
        columns: dict[str, Any] = {}
        if nobody.rejected_M is None:
            columns["rejected_M"] = np.zeros(labelled, bool)
        if not labelled:  # which does not say that other parts know less of what is
            columns |= {"labelled_doubt_M": np.empty(0, np.float32), "labelled_embedding_MD": nobody.embedding_ND}
            columns["labelled_value_MK"] = nobody.value_NK
        return replace(nobody, **columns)

    def own(self, ids: Sequence[str]) -> list[str]:
        """Ids whose candidates are in this part, each once."""
        own_ids: list[str] = self.candidates.ids[self._rows(ids)].tolist()
        return own_ids

    def take(self, ids: Sequence[str]) -> Candidates:
        """The candidates of these ids that are in this part."""
        return self.candidates.take(self._rows(ids))

    def total_distance(self, centre_MD: Stored) -> float:
        """Sum of the distances of all rows to the nearest of some centres, M > 0."""
        x_ND, wide_MD, total = self.candidates.need("embedding_ND"), centre_MD.astype(np.float32), 0.0
        for at in range(0, len(x_ND), SEARCHED):
            neighbours = nearest(x_ND[at : at + SEARCHED].astype(np.float32), wide_MD, 1)
            total += float(np.sqrt(neighbours.distance_QK, dtype=np.float64).sum())
        return total

    def _all_ids(self) -> Strings:
        return np.concatenate([self.candidates.ids, np.array(self.labelled_ids(), dtype=np.str_)])

    def _rows(self, ids: Sequence[str]) -> Rows:
        """Rows of the candidates of these ids, in ascending order."""
        wanted = np.unique(np.asarray(ids, dtype=np.str_))
        rows = np.searchsorted(self.candidates.ids, wanted)
        inside = rows < len(self.candidates)
        wanted, rows = wanted[inside], rows[inside]
        own_rows: Rows = rows[self.candidates.ids[rows] == wanted]
        return own_rows
