"""Herding: each pick adds most to how near the pool lies to what is labelled or picked, by a kernel.

A candidate's gain is a sum over all rows and only falls as picks are made, so what it was is an upper bound of what it
is (lazy greedy, Minoux 1978): few gains are brought up to date for a pick, and of each only the terms of rows that
picks have changed since. Kernels and weights are whole numbers of steps so small that their sums are exact in double
precision: gains depend neither on the order of rows nor on blocks or threads, and copies tie.
"""

from __future__ import annotations

import math

import numpy as np

from seral.errors import OptionError
from seral.selection.candidates import Candidates
from seral.selection.parts.local import Parts
from seral.selection.parts.part import PoolPart
from seral.selection.strategies import scores
from seral.selection.strategies.checks import at_least
from seral.selection.strategies.uniform import drawn
from seral.vectors.arrays import Doubles, Floats, Rows, Stored
from seral.vectors.distances import SLAB, Points, distances, rounding
from seral.vectors.view import View, unit_rows

# N candidates · M labelled · B rows of a block · C classes · D features

SAMPLE = 20_000
"""Candidates of a pool that are looked at, where it has more."""
KERNEL_BITS, SUM_BITS = 24, 53
"""Binary digits of a kernel, and of a number that double precision holds exactly."""
STEPS = 2.0**KERNEL_BITS
"""Steps of a kernel of 1."""
BLOCK, TILE = 256, 1_024
"""Rows whose kernels with others are worked out at a time, and how many others: few enough for a processor's cache."""
REFRESHED, COMPARED = 256, 32
"""Bounds that are brought up to date at a time, and candidates that picks are made among at a time."""
ANEW = 0.6
"""Share of the rows that came nearer above which a bound is made anew."""
CHUNK = 64
"""Bounds of about one age that are brought up to date at a time."""
LATELY = 256
"""Candidates that were compared before, whose kernels are still there."""
SHADE = 1 + 1e-4
"""Makes a sum in single precision an upper bound."""
TAKEN = -1.0
"""Bound of a row that is picked."""


def max_herding(
    candidates: Candidates, k: int, rng: np.random.Generator, *, width: float = 1.0, sample: int = SAMPLE
) -> list[str]:
    """Each pick adds most to Σ_n max_l exp(-|x_n - x_l|² / width²), l labelled or picked, x on the unit sphere.
    Bae et al. 2024, Generalized coverage for more robust low-budget active learning, ECCV.

    In a pool of more than `sample` candidates, or k, as many are drawn by chance, and both sums and picks are theirs.
    """
    return max_herding_in_parts(_alone(candidates), k, rng, width=width, sample=sample)


def max_herding_in_parts(
    parts: Parts, k: int, rng: np.random.Generator, *, width: float = 1.0, sample: int = SAMPLE
) -> list[str]:
    """The picks of `max_herding`, made among what is drawn of all parts."""
    at_least(1, "max_herding", sample=sample)
    _positive("max_herding", width=width)
    pool, centre_MD = drawn(parts, max(sample, k), rng), parts.labelled_part().labelled_centres()
    return _herd(pool, centre_MD, np.ones(len(pool)), width, k)


def uncertainty_herding(
    candidates: Candidates, k: int, rng: np.random.Generator, *, temperature: float = 1.0, sample: int = SAMPLE
) -> list[str]:
    """max_herding where a row counts by its uncertainty, 1 - (p₁ - p₂), and the kernel is as wide as labelled rows lie
    apart: their least distance that is not 0. Bae et al. 2025, Uncertainty herding, arXiv 2412.20644.

    Before there is a model all rows count alike; with fewer than two different labelled rows the width is 1. With a
    `temperature` probabilities are softmax(log p / temperature). `sample` as in max_herding.
    Differs from the paper: the temperature is given, not fitted to labels that are set aside.
    """
    return uncertainty_herding_in_parts(_alone(candidates), k, rng, temperature=temperature, sample=sample)


def uncertainty_herding_in_parts(
    parts: Parts, k: int, rng: np.random.Generator, *, temperature: float = 1.0, sample: int = SAMPLE
) -> list[str]:
    """The picks of `uncertainty_herding`, made among what is drawn of all parts."""
    at_least(1, "uncertainty_herding", sample=sample)
    _positive("uncertainty_herding", temperature=temperature)
    pool, labelled = drawn(parts, max(sample, k), rng), parts.labelled_part()
    width = least_distance(labelled.labelled_embedding_MD)
    return _herd(pool, labelled.labelled_centres(), pool_weights(pool, temperature), width, k)


def pool_weights(pool: Candidates, temperature: float) -> Doubles:
    """Weights of the rows in uncertainty_herding, (N,)."""
    p_NC = pool.probability_NC
    return np.ones(len(pool)) if p_NC is None else 1 + scores.margin(tempered(p_NC, temperature))


def tempered(p_NC: Floats, temperature: float) -> Doubles:
    """softmax(log p / temperature), (N, C) -> (N, C). Guo et al. 2017, arXiv 1706.04599."""
    with np.errstate(divide="ignore"):
        log_NC = np.log(p_NC.astype(np.float64)) / temperature
    power_NC = np.exp(log_NC - log_NC.max(axis=1, keepdims=True))
    tempered_NC: Doubles = power_NC / power_NC.sum(axis=1, keepdims=True)
    return tempered_NC


def least_distance(x_MD: Stored | None) -> float:
    """The least distance of two rows on the unit sphere that is not 0; 1 where all are equal or fewer than two."""
    least = np.inf
    points = Points(unit_rows(np.empty((0, 1), np.float32) if x_MD is None else x_MD))
    for at in range(0, len(points), SLAB):
        block = points.block(slice(at, at + SLAB))
        for other in range(at, len(points), SLAB):
            square_BM = distances(block, points.block(slice(other, other + SLAB)))
            least = min(least, square_BM.min(initial=np.inf, where=square_BM > 0))
    return math.sqrt(least) if math.isfinite(least) else 1.0


def _alone(candidates: Candidates) -> Parts:
    return Parts([PoolPart(candidates)])


def _positive(strategy: str, **options: float) -> None:
    for option, value in options.items():
        if not (math.isfinite(value) and value > 0):
            raise OptionError(f"{strategy} needs a finite {option} > 0, got {value}")


def _herd(pool: Candidates, centre_MD: Stored, weight_N: Doubles, width: float, k: int) -> list[str]:
    herd = _Herd(View(pool.need("embedding_ND"), unit=True), weight_N, width)
    herd.take_in(unit_rows(centre_MD))
    ids: list[str] = pool.ids[herd.pick(k)].tolist()
    return ids


class _Herd:
    """Rows, how near each lies to what is labelled or picked, and how much each would add at most."""

    def __init__(self, x: View, weight_N: Doubles, width: float) -> None:
        self._count, self._steep = len(x), 1 / width**2
        self._x_ND = self._right_factors(x[:])
        self._narrow_ND = self._x_ND.astype(np.float32)
        # The logarithm of a kernel may be wrong by so much in single precision.
        self._slack = -4 * rounding(x.shape[1]) * float(self._x_ND[:, -1].min(initial=0))
        self._weight_N = np.rint(weight_N * 2.0 ** (SUM_BITS - KERNEL_BITS - len(x).bit_length()))
        self._near_N = np.zeros(len(x))
        self._changed_N, self._changes = np.zeros(len(x), np.intp), list[tuple[Rows, Doubles]]()
        self._columns, self._free_N = dict[int, Doubles](), np.ones(len(x), dtype=bool)

    def take_in(self, centre_MD: Floats) -> None:
        """Count these rows as labelled."""
        for at in range(0, len(centre_MD), BLOCK):
            left_BD = self._left_factors(self._right_factors(centre_MD[at : at + BLOCK]))
            np.maximum(self._near_N, _kernel(left_BD, self._x_ND).max(axis=0), out=self._near_N)

    def pick(self, k: int) -> list[int]:
        """The k rows that add most, each to those before it, the lower of equals."""
        self._bound_N, self._date_N = self._first_bounds(), np.zeros(self._count, np.intp)
        picks: list[int] = []
        while len(picks) < k:
            rows, rival = self._best()
            picks += self._pick_some(rows, rival, k - len(picks))
            if self._bound_N.max() <= 0:
                picks += np.flatnonzero(self._free_N)[: k - len(picks)].tolist()
        return picks

    def _pick_some(self, rows: Rows, rival: tuple[float, int], k: int) -> list[int]:
        """Up to k picks of these rows, while the best is better than all others may be; bound and row of their best."""
        kernel_BN, before_N, picks = self._columns_of(rows), self._near_N.copy(), list[int]()
        gain_B = np.maximum(kernel_BN - self._near_N, 0) @ self._weight_N
        # Kernels of another block may be a step larger, by which a row would add to itself.
        gain_B[~self._free_N[rows]] = TAKEN
        while len(picks) < k:
            best = int(gain_B.argmax())
            if gain_B[best] <= 0 or (-gain_B[best], rows[best]) > rival:
                break
            picks.append(int(rows[best]))
            self._free_N[rows[best]] = False
            nearer = np.flatnonzero(kernel_BN[best] > self._near_N)
            after_B = kernel_BN[best, nearer]
            gain_B -= _lost(kernel_BN[:, nearer], self._near_N[nearer], after_B) @ self._weight_N[nearer]
            gain_B[best], self._near_N[nearer] = TAKEN, after_B
        if picks:
            changed = np.flatnonzero(before_N != self._near_N)
            self._changes.append((changed, before_N[changed]))
            self._changed_N[changed] = len(self._changes)
        self._bound_N[rows], self._date_N[rows] = gain_B, len(self._changes)
        return picks

    def _columns_of(self, rows: Rows) -> Doubles:
        """Kernels of some rows with all others, (B, N); those of rows that were compared lately are still there."""
        new = np.array([row for row in rows.tolist() if row not in self._columns], np.intp)
        kernel_BN = _kernel(self._left_factors(self._x_ND[new]), self._x_ND)
        self._columns |= dict(zip(new.tolist(), kernel_BN, strict=True))
        columns = {row: self._columns.pop(row) for row in rows.tolist()}
        self._columns = dict(list(self._columns.items())[-LATELY:]) | columns
        return np.stack(list(columns.values()))

    def _best(self) -> tuple[Rows, tuple[float, int]]:
        """Rows of the largest bounds, up to date and in order, and bound and row of the best of all others."""
        stale_N, now = self._bound_N.copy(), len(self._changes)
        stale_N[self._date_N == now] = TAKEN
        while stale_N.max() > 0 and stale_N.max() >= self._bound_N[stale_N <= TAKEN].max(initial=TAKEN):
            rows = _largest(stale_N, REFRESHED)
            rows = rows[stale_N[rows] > 0]
            self._refresh(rows)
            stale_N[rows] = TAKEN
        compared = min(COMPARED, self._count)
        rows = np.flatnonzero(self._bound_N >= np.partition(self._bound_N, -compared)[-compared])
        rows = np.sort(rows[np.lexsort((rows, -self._bound_N[rows]))[:compared]])
        others_N = self._bound_N.copy()
        others_N[rows] = TAKEN
        rival = int(others_N.argmax())
        return rows, (-others_N[rival], rival)

    def _refresh(self, rows: Rows) -> None:
        """Bring the bounds of these rows up to date, by the terms of rows that came nearer since they were."""
        order_N = np.argsort(-self._changed_N, kind="stable")  # those that did since any date come first
        rows = rows[np.argsort(-self._date_N[rows], kind="stable")]
        count_B = np.searchsorted(-self._changed_N[order_N], -self._date_N[rows], side="left")
        anew_B = count_B > ANEW * self._count
        if (anew := rows[anew_B]).size:
            self._bound_N[anew] = np.minimum(self._bound_N[anew], self._bounds(anew))
        rows, count_B = rows[~anew_B], count_B[~anew_B]
        if len(rows):
            order_N = order_N[: count_B[-1]]
            self._reduce(rows, count_B, order_N, self._narrow_ND[order_N])
        self._date_N[rows] = self._date_N[anew] = len(self._changes)

    def _reduce(self, rows: Rows, count_B: Rows, order_N: Rows, x_ND: Floats) -> None:
        """Take from the bounds of rows what they have lost, for each by the first rows of `order_N`."""
        before_N, date = self._near_N.copy(), len(self._changes)
        for at in range(0, len(rows), CHUNK):
            part = rows[at : at + CHUNK]
            left_BD = self._narrow_factors(part, -self._slack)
            kernel_BN = _narrow_kernel(left_BD, x_ND[: count_B[at : at + CHUNK][-1]])
            kernel_BN -= np.float32(0.5 / STEPS)  # to whole steps
            for wanted in np.unique(self._date_N[part])[::-1]:
                for changed, near_B in self._changes[wanted:date][::-1]:
                    before_N[changed] = near_B
                date, mine = int(wanted), np.flatnonzero(self._date_N[part] == wanted)
                nearer = order_N[: count_B[at + mine[0]]]
                own_BN = kernel_BN[mine[0] : mine[-1] + 1, : len(nearer)]
                lost_BN = _lost(own_BN, before_N[nearer], self._near_N[nearer])
                self._bound_N[part[mine]] -= lost_BN @ self._weight_N[nearer]

    def _first_bounds(self) -> Doubles:
        """Upper bounds of what every row would add, (N,); a kernel serves both of its rows."""
        bound_N = np.zeros(self._count)
        near_N, weight_N = self._near_N.astype(np.float32), self._weight_N.astype(np.float32)
        for at in range(0, self._count, TILE):
            one = slice(at, at + TILE)
            left_BD = self._narrow_factors(one, self._slack)
            for other in range(at, self._count, TILE):
                two = slice(other, other + TILE)
                kernel_BN = _narrow_kernel(left_BD, self._narrow_ND[two])
                bound_N[one] += np.maximum(kernel_BN - near_N[two], 0) @ weight_N[two]
                if other > at:
                    bound_N[two] += weight_N[one] @ np.maximum(kernel_BN - near_N[one, None], 0)
        return bound_N * SHADE + float(self._weight_N.sum()) / (2 * STEPS)

    def _bounds(self, rows: Rows) -> Doubles:
        """Upper bounds of what some rows would add, (B,)."""
        bound_B, near_N, weight_N = (
            np.zeros(len(rows)),
            self._near_N.astype(np.float32),
            self._weight_N.astype(np.float32),
        )
        left_BD = self._narrow_factors(rows, self._slack)
        for at in range(0, self._count, TILE):
            tile = slice(at, at + TILE)
            kernel_BN = _narrow_kernel(left_BD, self._narrow_ND[tile])
            kernel_BN -= near_N[tile]
            bound_B += np.maximum(kernel_BN, 0, out=kernel_BN) @ weight_N[tile]
        return bound_B * SHADE + float(self._weight_N.sum()) / (2 * STEPS)

    def _narrow_factors(self, rows: Rows | slice, slack: float) -> Floats:
        """Left factors of some rows for kernels that are never too small, or never too large, (B, D)."""
        left_BD = self._left_factors(self._x_ND[rows])
        left_BD[:, -2] += slack
        return left_BD.astype(np.float32)

    def _right_factors(self, x_ND: Floats) -> Doubles:
        """Rows beside 1 and -|x|² / width²."""
        wide_ND = np.empty((len(x_ND), x_ND.shape[1] + 2))
        wide_ND[:, :-2], wide_ND[:, -2] = x_ND, 1
        wide_ND[:, -1] = -np.einsum("nd,nd->n", wide_ND[:, :-2], wide_ND[:, :-2]) * self._steep
        return wide_ND

    def _left_factors(self, right_BD: Doubles) -> Doubles:
        """Rows whose products with right factors are the logarithms of kernels, (B, D)."""
        left_BD = right_BD * (2 * self._steep)
        left_BD[:, -2], left_BD[:, -1] = right_BD[:, -1], 1
        return left_BD


def _kernel(left_BD: Doubles, right_ND: Doubles) -> Doubles:
    """exp(-|x - y|² / width²) in whole steps, (B, N)."""
    kernel_BN = np.empty((len(left_BD), len(right_ND)))
    for at in range(0, len(right_ND), TILE):
        tile_BN = left_BD @ right_ND[at : at + TILE].T
        np.exp(tile_BN, out=tile_BN)
        tile_BN *= STEPS
        np.multiply(np.rint(tile_BN, out=tile_BN), 1 / STEPS, out=kernel_BN[:, at : at + TILE])
    return kernel_BN


def _narrow_kernel(left_BD: Floats, right_ND: Floats) -> Floats:
    """Kernels before they are whole steps, in single precision, (B, N)."""
    kernel_BN: Floats = left_BD @ right_ND.T
    np.minimum(kernel_BN, 0, out=kernel_BN)
    return np.exp(kernel_BN, out=kernel_BN)


def _lost(kernel_BN: Floats | Doubles, before_N: Doubles, after_N: Doubles) -> Doubles:
    """max(kernel - before, 0) - max(kernel - after, 0) where some rows came nearer, (B, N)."""
    lost_BN: Doubles = np.clip(kernel_BN, before_N, after_N)
    lost_BN -= before_N
    return lost_BN


def _largest(bound_N: Doubles, size: int) -> Rows:
    """Rows of the `size` largest bounds."""
    return np.arange(len(bound_N)) if size >= len(bound_N) else np.argpartition(-bound_N, size)[:size]
