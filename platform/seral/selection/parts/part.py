"""One part of a pool: rows that stay where they were read, and what is asked of them."""

# N candidates · M labelled · B rows of a block · D features
from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import replace
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from seral.selection.budget import PaceOptions
from seral.selection.candidates import Candidates
from seral.selection.selection import StrategyOptions, select
from seral.selection.source import SourceOptions, read_candidates
from seral.selection.strategies import scores
from seral.selection.strategies.farthest_first import Part
from seral.selection.strategies.uncertainty import density_scores, total_direction, uncertainty_of
from seral.selection.strategies.uniform import first_of_groups
from seral.selection.strategies.wrappers import Rejection, is_good, is_usable, near
from seral.vectors.arrays import Doubles, Floats, Rows, Stored, Strings
from seral.vectors.distances import Block, Points, feature_points, gradient_points
from seral.vectors.index import nearest
from seral.vectors.stable_keys import hash_keys

Kind = Literal["features", "gradients"]

HASH_KEY = "seral.active.ids"
"""16 characters, by which ids are hashed."""
SEARCHED = 4_096
"""Rows whose nearest pick is looked up at a time."""


class PoolPart:
    """Some of the candidates, in this process or in an actor."""

    def __init__(self, source: SourceOptions | Candidates, names: Sequence[str] = ()) -> None:
        self.candidates = source if isinstance(source, Candidates) else read_candidates(source, names)
        self._before = list[Candidates]()

    def remember(self) -> None:
        """Keep the candidates of now, to come back to."""
        self._before.append(self.candidates)

    def come_back(self) -> None:
        """Return to the candidates that were remembered last."""
        self.candidates = self._before.pop()

    def count_as_picked(self, ids: Sequence[str]) -> None:
        """Candidates of these ids are picked, and no candidates any more."""
        self.candidates = self.candidates.but(self.here(ids))

    def keep_good(self, limits: dict[str, float]) -> None:
        """Leave out recordings below the quality limits (wrappers.quality)."""
        self._keep(is_good(self.candidates, **limits))

    def keep_usable(self, told: Rejection | None) -> None:
        """Leave out what sounds like what was rejected (wrappers.usable); None = nothing was."""
        self._keep(is_usable(self.candidates, told))

    def leave_out_near(self, others_MD: Stored, options: dict[str, Any]) -> None:
        """Leave out what is like any of the others (wrappers.distinct)."""
        self.candidates = self.candidates.without(near(self.candidates, others_MD, **options))

    def leave_out_groups(self, by: str, names: Sequence[str]) -> None:
        """Leave out these groups."""
        if names:
            self._keep(~np.isin(self.candidates.groups(by), names))

    def afford(self, pace: PaceOptions, limit_s: float) -> tuple[int, float]:
        """Leave out what costs more; returns how many are left, and the seconds that all of them cost."""
        cost_N = pace.seconds(self.candidates.need("duration_s"))
        self._keep(cost_N <= limit_s)
        return len(self.candidates), float(cost_N[cost_N <= limit_s].sum())

    def cheapest(self, pace: PaceOptions) -> list[tuple[float, str]]:
        """What costs least, if anything is there: seconds and id."""
        cost_N = pace.seconds(self.candidates.need("duration_s"))
        return [(float(cost_N[row]), str(self.candidates.ids[row])) for row in [cost_N.argmin()]] if len(cost_N) else []

    def costs(self, ids: Sequence[str], pace: PaceOptions) -> list[tuple[str, float]]:
        """Seconds that those of the ids cost that are here."""
        mine = self.take(ids)
        return list(zip(mine.ids.tolist(), pace.seconds(mine.need("duration_s")).tolist(), strict=True))

    def sizes(self, by: str) -> tuple[Counter[str], Counter[str]]:
        """How many candidates there are of every group, and how many of it are picked."""
        return self.candidates.group_sizes(by), self.candidates.picked_sizes(by)

    def groups(self, by: str, ids: Sequence[str]) -> list[tuple[str, str]]:
        """The groups of those of the ids that are here."""
        rows = self._rows(ids)
        return list(zip(self.candidates.ids[rows].tolist(), self.candidates.groups(by)[rows].tolist(), strict=True))

    def count(self) -> int:
        """How many there are."""
        return len(self.candidates)

    def has(self, field: str) -> bool:
        """Whether this field of Candidates is there."""
        return getattr(self.candidates, field) is not None

    def id_hashes(self) -> Doubles:
        """A number for every id, labelled ones included; different ids seldom have the same."""
        return hash_keys(self._all_ids(), HASH_KEY)

    def ids_of(self, hashes: Doubles) -> list[str]:
        """All ids with one of these numbers."""
        found: list[str] = self._all_ids()[np.isin(self.id_hashes(), hashes)].tolist()
        return found

    def ids(self) -> Strings:
        """Ids in order."""
        return self.candidates.ids

    def labelled_ids(self) -> list[str]:
        """Ids of what is labelled."""
        known = self.candidates.labelled_ids
        return [] if known is None else known.tolist()

    def known(self) -> Candidates:
        """What is labelled or picked among its rows, without a candidate."""
        nobody, labelled = self.candidates.take(np.empty(0, dtype=np.intp)), len(self.labelled_ids())
        told: dict[str, Any] = {}
        if nobody.rejected_M is None:
            told["rejected_M"] = np.zeros(labelled, bool)
        if not labelled:  # which does not say that other parts know less of what is
            told |= {"labelled_doubt_M": np.empty(0, np.float32), "labelled_embedding_MD": nobody.embedding_ND}
        return replace(nobody, **told)

    def here(self, ids: Sequence[str]) -> list[str]:
        """Those of the ids whose candidates are here, each once."""
        found: list[str] = self.candidates.ids[self._rows(ids)].tolist()
        return found

    def take(self, ids: Sequence[str]) -> Candidates:
        """The candidates of these ids that are here."""
        return self.candidates.take(self._rows(ids))

    def drawn_first(self, key: str, k: int) -> tuple[Doubles, Strings]:
        """The k smallest lots, as scores."""
        return self._best(-hash_keys(self.candidates.ids, key), k)

    def drawn_of_groups(self, by: str, share_of: dict[str, int], key: str) -> tuple[Strings, Strings]:
        """Ids and groups of the smallest lots of every group, as many as its share."""
        ids, group_N = self.candidates.ids, self.candidates.groups(by)
        rows = first_of_groups(ids, group_N, share_of, key)
        return ids[rows], group_N[rows]

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
        return np.concatenate([self.candidates.ids, np.array(self.labelled_ids(), dtype=np.str_)])

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
