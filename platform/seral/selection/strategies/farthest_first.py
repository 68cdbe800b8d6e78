"""Exact k-center greedy: each pick is the candidate farthest from everything labelled or picked before it.

The textbook form updates all N distances for every pick. Here each row keeps its distance to the centres it has seen,
which is an upper bound of its true one. A part of the pool offers the rows of its largest distances, brought up to
date, with the largest bound it holds back; picks are made among what all parts offer as long as the best beats every
bound held back, which makes them the textbook's, and every part hears of them. Where parts are several, each looks at
more rows before it offers, because a round costs more than they do. Distances are taken in double precision and
compared in single precision, so that equal distances stay equal and fall to the lower id, whatever the parts.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Sequence
from typing import Any, Concatenate, NamedTuple, ParamSpec, Protocol, TypeVar

import numpy as np
from numpy.typing import NDArray

from seral.selection.candidates import Candidates
from seral.selection.parts.local import Parts, mean_of
from seral.selection.parts.part import PoolPart
from seral.vectors.arrays import Doubles, Floats, Rows, Stored
from seral.vectors.distances import SLAB, Centres, Points, distances, nearest_distance, upper_bounds
from seral.vectors.index import nearest

# N candidates · M labelled · P new picks · B rows of a block · D features

Ids = NDArray[np.str_] | NDArray[np.int64]
P = ParamSpec("P")
T = TypeVar("T")

FIRST_OFFER = 512
"""Rows of the first offer of a part that is alone."""
FIRST_ROUND = 4_096
"""Rows of the first offers of all parts together, where they are several."""
FEW, MANY = 8, 64
"""Picks of a round below which parts offer twice as many rows, and above which half as many."""
REFRESHED = 512
"""Rows brought up to date at a time: few enough that they missed about the same centres, enough for one product."""
SHADE = 1 + 1e-5
"""Makes a distance computed in single precision an upper bound of the true one."""


class Offer(NamedTuple):
    """Candidates that a part puts forward."""

    id_B: Ids
    distance_B: Floats
    """Distances to the nearest centre, up to date."""
    x_BD: Stored
    """The rows as they are stored, a half or a quarter of what they are in double precision."""
    held_back: tuple[float, Any] | None
    """Bound and id of the best row that is not offered; None = all are."""


def k_center(candidates: Candidates, k: int, rng: np.random.Generator) -> list[str]:
    """Farthest-first from the labelled rows, or from the most central. Sener and Savarese 2018, arXiv 1708.00489.

    For ratings it is known as greedy sampling in feature space, GSx: Wu, Lin and Huang 2019, arXiv 1808.04245.
    """
    rows = farthest_first(candidates.need("embedding_ND"), candidates.labelled_centres(), k)
    ids: list[str] = candidates.ids[rows].tolist()
    return ids


def k_center_in_parts(parts: Parts, k: int, rng: np.random.Generator) -> list[str]:
    """The picks of `k_center`."""
    return farthest_first_in_parts(parts, "embedding_ND", parts.labelled_part().labelled_centres(), k)


def farthest_first_in_parts(parts: Parts, name: str, centre_MD: Stored, k: int) -> list[str]:
    """The ids of k rows of farthest-first traversal of a field of Candidates: every part keeps its bounds, and offers
    what may be next."""
    parts.each(_prepare, name)

    def each(method: Callable[Concatenate[BoundedRows, P], T], /, *arguments: P.args, **options: P.kwargs) -> list[T]:
        return parts.each(ask_rows, method, *arguments, **options)

    return [str(name) for name in traverse(each, centre_MD, k)]


def _prepare(part: PoolPart, name: str) -> None:
    part.work = BoundedRows(part.candidates.ids, part.candidates.need(name))


def ask_rows(
    part: PoolPart, method: Callable[Concatenate[BoundedRows, P], T], /, *arguments: P.args, **options: P.kwargs
) -> T:
    """Call a method of the BoundedRows of a part."""
    return method(part.work, *arguments, **options)


def farthest_first(x_ND: Stored, labelled_MD: Stored, k: int) -> Rows:
    """The k rows of farthest-first traversal in order, (N, D) and (M, D) -> (k,); k <= N."""
    rows = BoundedRows(np.arange(len(x_ND)), x_ND)

    def each(method: Callable[Concatenate[BoundedRows, P], T], /, *arguments: P.args, **options: P.kwargs) -> list[T]:
        return [method(rows, *arguments, **options)]

    return np.array(traverse(each, labelled_MD, k), dtype=np.intp)


class Each(Protocol):
    """Calls a method of the rows of every part, wherever they are; the answers in the order of the parts."""

    def __call__(
        self, method: Callable[Concatenate[BoundedRows, P], T], /, *arguments: P.args, **options: P.kwargs
    ) -> list[T]: ...


def traverse(each: Each, labelled_MD: Stored, k: int, *, first_offer: int | None = None) -> list[Any]:
    """Ids of k picks in order, of candidates in one or many parts.

    `first_offer` is the number of rows of a part's first offer.
    """
    if k == 0:
        return []
    totals = each(BoundedRows.total)
    mean_D = mean_of(totals)
    picks, centre_MD = list[Any](), labelled_MD
    if not len(labelled_MD):
        _, first, x_D = min(
            (reply for reply in each(BoundedRows.most_central, mean_D) if reply[1] is not None),
            key=lambda reply: reply[:2],
        )
        picks, centre_MD = [first], x_D[None]
    each(BoundedRows.start, mean_D, centre_MD, k)
    least = size = first_offer or (FIRST_OFFER if len(totals) == 1 else max(1, FIRST_ROUND // len(totals)))
    new_PD, fresh = centre_MD[:0], list(picks)
    while len(picks) < k:
        offers = each(BoundedRows.offer, size, 0 if len(totals) == 1 else (size + 1) // 2, new_PD, fresh)
        if not any(offer.distance_B.any() or (offer.held_back or (0,))[0] for offer in offers):  # only copies are left
            picks += sorted(itertools.chain(*each(BoundedRows.untaken, k - len(picks))))[: k - len(picks)]
            break
        fresh, new_PD = _pick(offers, mean_D, k - len(picks))
        picks += fresh
        size = _next_size(size, len(fresh), least)
    return picks


def _pick(offers: Sequence[Offer], mean_D: Doubles, k: int) -> tuple[list[Any], Stored]:
    """Up to k picks among the offers, while the best beats whatever is held back; their ids and rows."""
    id_B = np.concatenate([offer.id_B for offer in offers])
    order_B = np.argsort(id_B, kind="stable")
    id_B, x_BD = id_B[order_B], np.concatenate([offer.x_BD for offer in offers])[order_B]
    distance_B = np.concatenate([offer.distance_B for offer in offers])[order_B]
    best_first = [(-offer.held_back[0], offer.held_back[1]) for offer in offers if offer.held_back]
    rival = min(best_first, default=None)
    least_bound = 0 if rival is None else -rival[0]
    block, row_B = Points(x_BD, centre_D=mean_D).block(slice(None)), np.arange(len(id_B))
    chosen: list[Any] = []
    taken: list[int] = []
    while len(chosen) < k and len(row_B):
        best = int(distance_B.argmax())
        if rival is not None and (-distance_B[best], id_B[best]) > rival:
            break
        chosen.append(id_B[best].item())
        taken.append(int(row_B[best]))
        np.minimum(distance_B, distances(block, block.take(slice(best, best + 1)))[:, 0], out=distance_B)
        distance_B[best] = -np.inf
        left = np.flatnonzero(distance_B >= least_bound)
        if 2 * len(left) <= len(row_B):  # most rows cannot be next any more
            id_B, row_B, distance_B, block = id_B[left], row_B[left], distance_B[left], block.take(left)
    return chosen, x_BD[taken]


def _next_size(size: int, picked: int, least: int) -> int:
    """A larger offer when few picks came out of this one, a smaller one when many did."""
    if picked < FEW:
        return size * 2
    return max(least, size // 2) if picked > MANY else size


class BoundedRows:
    """Candidates of one part with their bounds, in this process or in another; ids in ascending order."""

    def __init__(self, id_N: Ids, x_ND: Stored) -> None:
        self.id_N, self.x_ND = id_N, x_ND

    def total(self) -> tuple[int, Doubles]:
        """Rows, and their sum (D,)."""
        return len(self.x_ND), self.x_ND.sum(axis=0, dtype=np.float64)

    def most_central(self, mean_D: Doubles) -> tuple[float, Any, Stored]:
        """The row nearest to the mean, the lower id of equals: its distance, its id and itself."""
        if not len(self.x_ND):
            return float("inf"), None, self.x_ND.sum(axis=0)
        points = Points(self.x_ND, centre_D=mean_D)
        slabs = range(0, len(points), SLAB)
        square_N = np.concatenate([points.block(slice(at, at + SLAB)).square_B for at in slabs]).astype(np.float32)
        row = int(square_N.argmin())
        return float(square_N[row]), self.id_N[row].item(), self.x_ND[row]

    def start(self, mean_D: Doubles, centre_MD: Stored, k: int) -> None:
        """Take in the first centres, and an upper bound of the distance to the nearest of them for every row."""
        self.points, centre = Points(self.x_ND, centre_D=mean_D), Points(centre_MD, centre_D=mean_D)
        self.centres = Centres(self.points.widths, len(centre_MD) + k)
        self.centres.add_all(centre)
        # An upper bound: the distance to the one that is the nearest in single precision.
        self.bound_N = nearest(self.x_ND, centre_MD, 1).distance_QK[:, 0] * np.float32(SHADE)
        self.compared_N = np.full(len(self.points), len(centre), dtype=np.int32)

    def offer(self, size: int, least: int, new_PD: Stored, taken: Sequence[Any]) -> Offer:
        """Hear of new centres and of the ids that were taken; offer the rows of the `size` largest distances.

        Rows are brought up to date, twice as many each time, until at least `least` are known to be farther than all
        that were not looked at.
        """
        if not len(self.id_N):
            return Offer(self.id_N, self.bound_N, self.x_ND, None)
        self.centres.add(Points(new_PD, centre_D=self.points.centre_D).block(slice(None)))
        self._leave_out(taken)
        rows = self._farthest(size, least)
        outside_N = self.bound_N.copy()
        outside_N[rows] = -np.inf
        rival = int(outside_N.argmax())
        least_bound = outside_N[rival]
        for at in range(0, len(rows), SLAB):
            part = rows[at : at + SLAB]
            self.bound_N[part] = nearest_distance(self.points.block(part), self.centres)
        rows = rows[self.bound_N[rows] >= least_bound]
        held_back = (float(least_bound), self.id_N[rival].item()) if least_bound >= 0 else None
        return Offer(self.id_N[rows], self.bound_N[rows], self.x_ND[rows], held_back)

    def untaken(self, count: int) -> list[Any]:
        """The first ids that were not taken."""
        free: list[Any] = self.id_N[np.flatnonzero(self.bound_N >= 0)[:count]].tolist()
        return free

    def _farthest(self, size: int, least: int) -> Rows:
        """Up to `size` rows with their bounds up to date that reach every bound outside of what was looked at."""
        looked_at = size
        while True:
            rows = _largest(self.bound_N, looked_at)
            least_bound = max(0, self.bound_N[rows].min()) if len(rows) < len(self.bound_N) else 0
            self._refresh(rows)
            rows = rows[self.bound_N[rows] >= least_bound]
            if len(rows) >= least or looked_at >= len(self.bound_N):
                return rows[_largest(self.bound_N[rows], size)]
            looked_at *= 2

    def _refresh(self, rows: Rows) -> None:
        """Bring the bounds of these rows up to date, by products in single precision."""
        rows = rows[self.compared_N[rows] < len(self.centres)]
        rows = rows[np.argsort(self.compared_N[rows], kind="stable")]
        for at in range(0, len(rows), REFRESHED):
            part = rows[at : at + REFRESHED]
            missed = self.centres.since(int(self.compared_N[part[0]]), narrow=True)
            missed_B = upper_bounds(self.points.block(part, narrow=True), missed)
            self.bound_N[part] = np.minimum(self.bound_N[part], missed_B)
        self.compared_N[rows] = len(self.centres)

    def _leave_out(self, taken: Sequence[Any]) -> None:
        """Rows of these ids are no candidates any more."""
        ids = np.asarray(taken, dtype=self.id_N.dtype)
        rows = np.minimum(np.searchsorted(self.id_N, ids), len(self.id_N) - 1)
        self.bound_N[rows[self.id_N[rows] == ids]] = -np.inf


def _largest(bound_N: Floats, size: int) -> Rows:
    """Rows of the `size` largest bounds, in ascending order."""
    if size >= len(bound_N):
        return np.arange(len(bound_N))
    return np.sort(np.argpartition(bound_N, len(bound_N) - size)[-size:])
