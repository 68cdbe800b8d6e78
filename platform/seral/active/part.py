"""One part of a pool: rows that stay where they were read, and what is asked of them."""

# N candidates · M labelled · B rows of a block · D features
from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from seral.active.candidates import Candidates, Floats, Rows, Stored, Strings
from seral.active.index import nearest
from seral.active.points import Block, Doubles, Points, feature_points, gradient_points
from seral.active.selection import StrategyOptions, select
from seral.active.source import SourceOptions, read_candidates
from seral.active.strategies import scores
from seral.active.strategies.farthest_first import Part
from seral.active.strategies.uncertainty import density_scores, total_direction, uncertainty_of
from seral.active.strategies.uniform import lots
from seral.active.strategies.wrappers import Rejection, is_good, is_usable

Kind = Literal["features", "gradients"]

HASH_KEY = "seral.active.ids"
"""16 characters, by which ids are hashed."""
SEARCHED = 4_096
"""Rows whose nearest pick is looked up at a time."""


class PoolPart:
    """Some of the candidates, in this process or in an actor."""

    def __init__(self, source: SourceOptions | Candidates, names: Sequence[str] = ()) -> None:
        self._everyone = source if isinstance(source, Candidates) else read_candidates(source, names)
        self.candidates = self._everyone

    def keep_good(self, limits: dict[str, float]) -> None:
        """Leave out recordings below the quality limits (wrappers.quality)."""
        self._keep(is_good(self.candidates, **limits))

    def keep_usable(self, told: Rejection | None) -> None:
        """Leave out what sounds like what was rejected (wrappers.usable); None = nothing was."""
        self._keep(is_usable(self.candidates, told))

    def keep_everyone(self) -> None:
        """Take all in again."""
        self.candidates = self._everyone

    def count(self) -> int:
        """How many there are."""
        return len(self.candidates)

    def has(self, field: str) -> bool:
        """Whether this field of Candidates is there."""
        return getattr(self.candidates, field) is not None

    def id_hashes(self) -> Doubles:
        """A number for every id, labelled ones included; different ids seldom have the same."""
        return lots(self._all_ids(), HASH_KEY)

    def ids_of(self, hashes: Doubles) -> list[str]:
        """All ids with one of these numbers."""
        found: list[str] = self._all_ids()[np.isin(self.id_hashes(), hashes)].tolist()
        return found

    def ids(self) -> Strings:
        """Ids in order."""
        return self.candidates.ids

    def known(self) -> Candidates:
        """What is labelled among its rows, without a candidate."""
        nobody = self.candidates.take(np.empty(0, dtype=np.intp))
        rejected_M = np.zeros(len(nobody.labelled_centres()), bool) if nobody.rejected_M is None else nobody.rejected_M
        return replace(nobody, labelled_embedding_MD=nobody.labelled_centres(), rejected_M=rejected_M)

    def here(self, ids: Sequence[str]) -> list[str]:
        """Those of the ids whose candidates are here, each once."""
        found: list[str] = self.candidates.ids[self._rows(ids)].tolist()
        return found

    def take(self, ids: Sequence[str]) -> Candidates:
        """The candidates of these ids that are here."""
        return self.candidates.take(self._rows(ids))

    def drawn_first(self, key: str, k: int) -> tuple[Doubles, Strings]:
        """The k smallest lots, as scores."""
        return self._best(-lots(self.candidates.ids, key), k)

    def most_uncertain(self, name: str, k: int) -> tuple[Doubles, Strings]:
        """The k largest scores of uncertainty."""
        return self._best(uncertainty_of(self.candidates, name), k)

    def total_direction(self) -> tuple[int, Doubles]:
        """Rows, and the sum of their directions."""
        return len(self.candidates), total_direction(self.candidates.need("embedding_ND"))

    def most_dense(self, uncertainty: str, beta: float, direction_D: Doubles, k: int) -> tuple[Doubles, Strings]:
        """The k largest density-weighted scores."""
        return self._best(density_scores(self.candidates, uncertainty, beta, direction_D), k)

    def pick(self, strategy: StrategyOptions, k: int, rng: int | np.random.Generator) -> list[str]:
        """What the strategy picks of these rows alone, up to k."""
        return select(strategy, self.candidates, min(k, len(self.candidates)), np.random.default_rng(rng))

    def total_distance(self, held_XD: Stored) -> float:
        """Sum of the distances of all rows to the nearest of some, X > 0."""
        x_ND, wide_XD, total = self.candidates.need("embedding_ND"), held_XD.astype(np.float32), 0.0
        for at in range(0, len(x_ND), SEARCHED):
            found = nearest(x_ND[at : at + SEARCHED].astype(np.float32), wide_XD, 1)
            total += float(np.sqrt(found.distance_QK, dtype=np.float64).sum())
        return total

    def farthest(self, method: str, *arguments: Any) -> Any:
        """A method of farthest_first.Part."""
        if method == "total":  # the first thing that is asked
            self._part = Part(self.candidates.ids, self.candidates.need("embedding_ND"))
        return getattr(self._part, method)(*arguments)

    def points(self, kind: Kind, mean_D: Doubles | None) -> list[int]:
        """Make ready for distances; returns the widths of the factors."""
        x_ND = self.candidates.need("embedding_ND")
        self._points: Points = (
            feature_points(x_ND, mean_D)
            if kind == "features"
            else gradient_points(self.candidates.need("probability_NC"), x_ND)
        )
        return self._points.widths

    def block(self, rows: Rows) -> Block:
        """Some rows."""
        return self._points.block(rows)

    def upper_bounds(self, centres: Block) -> Floats:
        """Upper bounds of the distance of every row to the nearest of some centres."""
        return self._points.upper_bounds(centres)

    def largest(self) -> tuple[float, str]:
        """Squared norm and id of the largest row."""
        if not len(self._points):
            return -1.0, ""
        row = self._points.largest()
        return float(np.float32(self._points.block(np.array([row])).square_B[0])), str(self.candidates.ids[row])

    def _all_ids(self) -> Strings:
        known = self.candidates.labelled_ids
        return self.candidates.ids if known is None else np.concatenate([self.candidates.ids, known])

    def _rows(self, ids: Sequence[str]) -> Rows:
        """Rows of the candidates of these ids, in ascending order."""
        wanted = np.unique(np.asarray(ids, dtype=np.str_))
        rows = np.searchsorted(self.candidates.ids, wanted)
        there = rows < len(self.candidates)
        wanted, rows = wanted[there], rows[there]
        found: Rows = rows[self.candidates.ids[rows] == wanted]
        return found

    def _keep(self, wanted_N: NDArray[np.bool_]) -> None:
        if not wanted_N.all():  # without a copy of the features, else
            self.candidates = self.candidates.take(np.flatnonzero(wanted_N))

    def _best(self, score_N: Doubles, k: int) -> tuple[Doubles, Strings]:
        rows = scores.top_rows(score_N, k)
        return score_N[rows], self.candidates.ids[rows]
