"""Greedy sampling for regression: far from what is labelled by what a model predicts, or by that and by features.

Far by features alone, GSx, is `k_center`.
"""

# N candidates · M labelled · D features · K rated dimensions
from __future__ import annotations

from typing import NamedTuple

import numpy as np

from seral.selection.candidates import Candidates
from seral.selection.parts.local import Parts, mean_of
from seral.selection.parts.part import PoolPart
from seral.selection.strategies.farthest_first import farthest_first, farthest_first_in_parts
from seral.selection.strategies.one_by_one import one_by_one
from seral.vectors.arrays import Doubles, Floats, Stored
from seral.vectors.distances import COMPARED, SLAB, Block, Points, distances


def gsy(candidates: Candidates, k: int, rng: np.random.Generator) -> list[str]:
    """Greedy sampling in output space: farthest-first by predicted ratings. Wu, Lin and Huang 2019, GSy,
    arXiv 1808.04245.

    Differs from the paper: labelled clips lie where the model puts them, not at their labels, which no strategy sees.
    """
    rows = farthest_first(candidates.need("value_NK"), candidates.labelled_values(), k)
    ids: list[str] = candidates.ids[rows].tolist()
    return ids


def gsy_in_parts(parts: Parts, k: int, rng: np.random.Generator) -> list[str]:
    """The picks of `gsy`."""
    return farthest_first_in_parts(parts, "value_NK", parts.labelled_part().labelled_values(), k)


def igs(candidates: Candidates, k: int, rng: np.random.Generator) -> list[str]:
    """Improved greedy sampling: each pick has the largest smallest product of its distances by features and by
    predicted ratings to one that is labelled or picked. Wu, Lin and Huang 2019, iGS, arXiv 1808.04245.

    Without a label it begins at the most central clip. Differs from the paper: labelled clips lie where the model puts
    them, not at their labels, which no strategy sees.
    """
    candidates.need("labelled_value_MK")
    return igs_in_parts(Parts([PoolPart(candidates)]), k, rng)


def igs_in_parts(parts: Parts, k: int, rng: np.random.Generator) -> list[str]:
    """The picks of `igs`: of every pick, all parts hear features and predicted ratings."""
    if k == 0:
        return []
    labelled = parts.labelled_part()
    means = tuple(mean_of(totals) for totals in zip(*parts.each(_totals), strict=True))
    parts.each(_begin, means, labelled.labelled_centres(), labelled.labelled_values())
    return one_by_one(parts, k)


def _totals(part: PoolPart) -> tuple[tuple[int, Doubles], ...]:
    """Rows and their sum, of features and of predicted ratings."""
    columns = (part.candidates.need(name) for name in ("embedding_ND", "value_NK"))
    return tuple((len(x_ND), x_ND.sum(axis=0, dtype=np.float64)) for x_ND in columns)


def _begin(part: PoolPart, means: tuple[Doubles, ...], centre_MD: Stored, value_MK: Floats) -> None:
    part.work = Products(part.candidates, means, Centre(centre_MD, value_MK))


class Centre(NamedTuple):
    """Features and predicted ratings of some clips, (M, D) and (M, K)."""

    x_MD: Stored
    value_MK: Floats


class Products:
    """The smallest product of squared distances of each candidate of a part to one that is labelled or picked."""

    def __init__(self, candidates: Candidates, means: tuple[Doubles, ...], centres: Centre) -> None:
        self.columns = (candidates.need("embedding_ND"), candidates.need("value_NK"))
        self.points = [Points(x_ND, centre_D=mean_D) for x_ND, mean_D in zip(self.columns, means, strict=True)]
        self.means, self.begun = means, bool(len(centres.x_MD))
        self.worth_N = np.full(len(candidates), np.inf)
        if self.begun:
            self._approach(centres)
        else:
            blocks = [self.points[0].block(slice(at, at + SLAB)) for at in range(0, len(candidates), SLAB)]
            self.worth_N = -np.concatenate([*(block.square_B for block in blocks), np.empty(0)]).astype(np.float32)
            self.worth_N = self.worth_N.astype(np.float64)

    def row(self, at: int) -> Centre:
        """Features and predicted ratings of a candidate."""
        return Centre(*(x_ND[at : at + 1] for x_ND in self.columns))

    def add(self, news: Centre) -> None:
        """Take in a pick."""
        if not self.begun:
            taken_N = np.isneginf(self.worth_N)
            self.worth_N, self.begun = np.where(taken_N, -np.inf, np.inf), True
        self._approach(news)

    def _approach(self, centres: Centre) -> None:
        made = [
            Points(x_MD, centre_D=mean_D).block(slice(None)) for x_MD, mean_D in zip(centres, self.means, strict=True)
        ]
        for at in range(0, len(self.worth_N), COMPARED):
            rows = slice(at, at + COMPARED)
            blocks: list[Block] = [points.block(rows) for points in self.points]
            by_feature_BM, by_value_BM = (
                distances(block, centre).astype(np.float64) for block, centre in zip(blocks, made, strict=True)
            )
            self.worth_N[rows] = np.minimum(self.worth_N[rows], (by_feature_BM * by_value_BM).min(axis=1))
