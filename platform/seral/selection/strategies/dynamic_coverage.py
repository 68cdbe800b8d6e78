"""Coverage first, then margin: the larger the share of the pool that labels cover, the more the margin counts."""

from __future__ import annotations

import math

import numpy as np
from numpy.typing import NDArray

from seral.errors import OptionError
from seral.selection.candidates import Candidates
from seral.selection.parts.local import Parts
from seral.selection.parts.part import PoolPart
from seral.selection.strategies import scores
from seral.selection.strategies.checks import at_least
from seral.selection.strategies.uniform import drawn
from seral.vectors.arrays import Doubles, Floats, Rows, Stored
from seral.vectors.distances import Block, Points, distances
from seral.vectors.neighbourhoods import pure_radius
from seral.vectors.view import View, unit_rows

# N candidates · M labelled · B rows of a block · D features

SAMPLE = 20_000
"""Candidates of a pool that are looked at, where it has more."""
BLOCK = 256
"""Rows whose distances to all others are worked out at a time."""
HALVINGS = 12
"""Steps of a bisection from the diameter of the sphere."""
FIRST_PURITY = 0.95
"""Share of pure balls by which the radius is chosen before there are labels, as in `prob_cover`."""


def dcom(
    candidates: Candidates,
    k: int,
    rng: np.random.Generator,
    *,
    centre: float = 0.8,
    steepness: float = 50.0,
    sample: int = SAMPLE,
) -> list[str]:
    """Each pick has the largest c·(1 - margin) + (1 - c)·(neighbours that are not covered yet), and c grows with the
    share that is covered. Mishal and Weinshall 2024, DCoM, arXiv 2407.01804.

    A labelled row covers the largest ball, by bisection, of which a share 0.4 + 0.2·coverage has its class. Others,
    picks among them, have the mean radius; without labels it is that of `prob_cover`, by predicted class. Margins are
    scaled to 0..1 and counts of neighbours by the largest. c = (1 + e^(-s(1 - a))) / (1 + e^(-s(coverage - a))), a the
    `centre` and s the `steepness`. `sample` as in max_herding.
    Differs from the paper: strategies see no label, so that a labelled row has the predicted class of the candidate
    nearest to it; radii are worked out anew at each selection, first for a coverage of 0, then for that which results.
    """
    parts = Parts([PoolPart(candidates)])
    return dcom_in_parts(parts, k, rng, centre=centre, steepness=steepness, sample=sample)


def dcom_in_parts(
    parts: Parts,
    k: int,
    rng: np.random.Generator,
    *,
    centre: float = 0.8,
    steepness: float = 50.0,
    sample: int = SAMPLE,
) -> list[str]:
    """The picks of `dcom`, made among what is drawn of all parts."""
    at_least(1, "dcom", sample=sample)
    at_least(0, "dcom", steepness=float(steepness))
    if not 0 <= centre <= 1:
        raise OptionError(f"dcom needs a centre in 0..1, got {centre}")
    pool, labelled = drawn(parts, max(sample, k), rng), parts.labelled_part()
    p_NC = pool.need("probability_NC")
    cover = _Cover(View(pool.need("embedding_ND"), unit=True), p_NC.argmax(axis=1))
    cover.take_in_labelled(labelled.labelled_embedding_MD)
    if labelled.picked is not None:
        cover.take_in(Points(unit_rows(labelled.picked.need("embedding_ND"))).block(slice(None)))
    unsure_N = scores.margin(p_NC)
    unsure_N = (unsure_N - unsure_N.min()) / max(float(np.ptp(unsure_N)), np.finfo(np.float64).tiny)
    free_N, picks = np.ones(len(pool), bool), list[int]()
    for _ in range(k):
        weight = competence(float(cover.covered_N.mean()), centre, steepness)
        density_N = cover.count_N() / max(1, cover.count_N().max())
        score_N = weight * unsure_N + (1 - weight) * density_N
        picks.append(int(np.where(free_N, score_N, -1).argmax()))
        free_N[picks[-1]] = False
        cover.take_in(cover.block.take(np.array(picks[-1:])))
    ids: list[str] = pool.ids[picks].tolist()
    return ids


def competence(coverage: float, centre: float, steepness: float) -> float:
    """Weight of the margin, 0 to 1 as coverage goes from 0 to 1: a logistic function."""
    return (1 + math.exp(-steepness * (1 - centre))) / (1 + math.exp(-steepness * (coverage - centre)))


class _Cover:
    """Rows that are covered, and how many others each row would cover."""

    def __init__(self, x: View, class_N: NDArray[np.int64]) -> None:
        self._x, self._class_N = x, class_N
        self.block = Points(x).block(slice(None))
        self.covered_N = np.zeros(len(x), bool)
        self._radius, self._near_N = 0.0, np.zeros(len(x), np.int64)

    def count_N(self) -> NDArray[np.int64]:
        """Rows within the radius of each row that are not covered yet, (N,)."""
        return self._near_N

    def take_in_labelled(self, labelled_MD: Stored | None) -> None:
        """Cover the ball of every labelled row, and count who is near whom by their mean radius."""
        if labelled_MD is None or not len(labelled_MD):
            self._radius = pure_radius(self._x, self._class_N, FIRST_PURITY, 1)
        else:
            labelled = Points(unit_rows(labelled_MD))
            for _ in range(2):
                radius_M = self._radii(labelled, 0.4 + 0.2 * self.covered_N.mean())
            self._radius = float(radius_M.mean())
        self._near_N = self._near(np.flatnonzero(~self.covered_N))

    def take_in(self, block: Block) -> None:
        """Cover what lies within the radius of some rows."""
        if self.covered_N.all():
            return
        near_N = (distances(block, self.block) <= np.float32(self._radius**2)).any(axis=0)
        new = np.flatnonzero(near_N & ~self.covered_N)
        self.covered_N[new] = True
        self._near_N -= self._near(new)

    def _near(self, rows: Rows) -> NDArray[np.int64]:
        """Number of some rows that lie within the radius of each row, (N,)."""
        count_N = np.zeros(len(self.covered_N), np.int64)
        for at in range(0, len(rows), BLOCK):
            square_BN = distances(self.block.take(rows[at : at + BLOCK]), self.block)
            count_N += (square_BN <= np.float32(self._radius**2)).sum(axis=0)
        return count_N

    def _radii(self, labelled: Points, purity: float) -> Doubles:
        """The radius of every labelled row, (M,), whose balls are covered from now on instead of those before."""
        self.covered_N[:] = False
        radii = []
        for at in range(0, len(labelled), BLOCK):
            square_BN = distances(labelled.block(slice(at, at + BLOCK)), self.block)
            radius_B = self._pure(square_BN, purity)
            self.covered_N |= (square_BN <= np.square(radius_B).astype(np.float32)[:, None]).any(axis=0)
            radii.append(radius_B)
        return np.concatenate(radii)

    def _pure(self, square_BN: Floats, purity: float) -> Doubles:
        """By bisection, the largest radius at which such a share of the ball has the class of the nearest row, (B,)."""
        same_BN = self._class_N == self._class_N[square_BN.argmin(axis=1), None]
        low_B, high_B = np.zeros(len(square_BN)), np.full(len(square_BN), 2.0)
        for _ in range(HALVINGS):
            middle_B = (low_B + high_B) / 2
            inside_BN = square_BN <= np.square(middle_B).astype(np.float32)[:, None]
            pure_B = (inside_BN & same_BN).sum(axis=1) >= purity * inside_BN.sum(axis=1)
            low_B, high_B = np.where(pure_B, middle_B, low_B), np.where(pure_B, high_B, middle_B)
        return low_B
