"""Wrappers of any strategy: who may be picked, how often, and what is asked again."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from decimal import Decimal

import numpy as np
from numpy.typing import NDArray

from seral.errors import OptionError
from seral.selection.candidates import Candidates
from seral.selection.strategies import informative_diverse, scores
from seral.selection.strategies.checks import at_least
from seral.selection.strategies.records import Pick
from seral.selection.strategies.uniform import uniform
from seral.vectors.arrays import Rows, Stored
from seral.vectors.index import nearest
from seral.vectors.view import View, unit_rows

# N candidates · M labelled · G groups · D features

SLAB = 4096
"""Rows that `usable` judges at a time."""


class ByChance(str):
    """The id of a pick that was drawn by chance, as other wrappers hand it on; for the reasons of picks."""


def shortlist(
    inner: Pick,
    candidates: Candidates,
    k: int,
    rng: np.random.Generator,
    *,
    beta: float = 5.0,
    uncertainty: str = "margin",
) -> list[str]:
    """Only the ⌈beta·k⌉ most uncertain candidates are put to the strategy."""
    return inner(informative_diverse.shortlist(candidates, k, beta, uncertainty), k, rng)


def quota(
    inner: Pick,
    candidates: Candidates,
    k: int,
    rng: np.random.Generator,
    *,
    by: str = "speaker",
    share: float = 0.2,
) -> list[str]:
    """At most ⌈share·n⌉ of n picks of any `speaker`, `corpus`, `language` or `predicted` class.

    The n are those asked for and those that this selection has picked before. A share that leaves too few candidates is
    raised to the smallest that does not.
    """
    room = quota_room(candidates.group_sizes(by), candidates.picked_sizes(by), k, share)

    def full(left: Candidates) -> Rows:
        return np.flatnonzero(np.isin(left.groups(by), full_groups(room)))

    def accept(asked: list[str], left: Candidates) -> tuple[list[str], Rows]:
        return admitted(asked, left.groups(by)[left.rows(asked)].tolist(), room), full(left)

    allowed = candidates if all(room.values()) else candidates.without(full(candidates))
    return _until_accepted(inner, allowed, k, rng, accept)


def quota_room(size_of: Counter[str], picked_of: Counter[str], k: int, share: float) -> dict[str, int]:
    """Number of the next k picks that a quota leaves to each group, when so many are there and so many were picked."""
    if not 0 < share <= 1:
        raise OptionError(f"quota needs a share in (0, 1], got {share}")
    size_G = np.array(list(size_of.values()), dtype=np.int64)
    picked_G = np.array([picked_of[group] for group in size_of], dtype=np.int64)
    limit = math.ceil(_part(share, picked_of.total() + k))
    while np.minimum(size_G, np.maximum(limit - picked_G, 0)).sum() < k:
        limit += 1
    return dict(zip(size_of, np.maximum(limit - picked_G, 0).tolist(), strict=True))


def full_groups(room: Mapping[str, int]) -> list[str]:
    """Groups of which no more may be picked."""
    return [group for group, free in room.items() if not free]


def admitted(asked: Sequence[str], groups: Sequence[str], room: dict[str, int]) -> list[str]:
    """The asked who find room in their group, and take it."""
    taken = []
    for pick, group in zip(asked, groups, strict=True):
        if room[group]:
            room[group] -= 1
            taken.append(pick)
    return taken


def distinct(
    inner: Pick,
    candidates: Candidates,
    k: int,
    rng: np.random.Generator,
    *,
    distance: float = 0.01,
    threads: int = 1,
) -> list[str]:
    """No pick within a cosine distance of `distance` (0..2) of another or of what is labelled.

    Near copies are picked only when nothing else is left.
    """
    copies = near(candidates, candidates.labelled_centres(), distance, threads=threads)

    def accept(asked: list[str], left: Candidates) -> tuple[list[str], Rows]:
        x_BD = left.need("embedding_ND")[left.rows(asked)]
        rows_B = apart(x_BD, distance)
        return [asked[row] for row in rows_B], near(left, x_BD[rows_B], distance, threads=threads)

    picks = _until_accepted(inner, candidates, k, rng, accept, copies)
    if len(picks) == k:
        return picks
    return picks + inner(candidates.but(picks), k - len(picks), rng)


def apart(x_BD: Stored, distance: float) -> list[int]:
    """Rows, in order, that are not within a cosine distance of one taken before them."""
    unit_BD, taken = unit_rows(x_BD), list[int]()
    for row in range(len(unit_BD)):
        if not taken or (unit_BD[taken] @ unit_BD[row]).max() < 1 - distance:
            taken.append(row)
    return taken


def near(candidates: Candidates, others_MD: Stored, distance: float, *, threads: int = 1) -> Rows:
    """Rows of the candidates within a cosine distance of any of the others."""
    if not 0 <= distance <= 2:
        raise OptionError(f"distinct needs a cosine distance of 0 to 2, got {distance}")
    at_least(1, "distinct", threads=threads)
    if not len(others_MD):
        return np.empty(0, dtype=np.intp)
    unit, others = View(candidates.need("embedding_ND"), unit=True), View(others_MD, unit=True)
    neighbours = nearest(unit, others, 1, threads=threads)
    return np.flatnonzero(neighbours.distance_QK[:, 0] <= 2 * distance)


def quality(
    inner: Pick,
    candidates: Candidates,
    k: int,
    rng: np.random.Generator,
    *,
    snr_db: float = 0.0,
    clipping: float = 0.05,
    speech_ratio: float = 0.1,
) -> list[str]:
    """Only candidates with at least this signal-to-noise ratio and share of speech, and at most this share of clipping.

    What was not measured passes. The others are picked only when no good ones are left.
    """
    return _preferring(
        is_good(candidates, snr_db=snr_db, clipping=clipping, speech_ratio=speech_ratio), inner, candidates, k, rng
    )


def is_good(
    candidates: Candidates, *, snr_db: float = 0.0, clipping: float = 0.05, speech_ratio: float = 0.1
) -> NDArray[np.bool_]:
    """Tell which candidates are within these limits as far as they were measured, (N,)."""
    limits = {"snr_db": snr_db, "clipping": clipping, "speech_ratio": speech_ratio}
    if wrong := {name: limit for name, limit in limits.items() if math.isnan(limit)}:
        raise OptionError(f"quality needs limits that are numbers, got {wrong}")
    bad_N = np.zeros(len(candidates), dtype=bool)
    for value_N, limit, sign in (
        (candidates.snr_db, snr_db, 1),
        (candidates.speech_ratio, speech_ratio, 1),
        (candidates.clipping, clipping, -1),
    ):
        if value_N is not None:
            bad_N |= sign * value_N < sign * limit  # false for NaN
    return ~bad_N


def usable(inner: Pick, candidates: Candidates, k: int, rng: np.random.Generator, *, limit: float = 0.5) -> list[str]:
    """Only candidates that sound less like what annotators found unusable than like what they labelled.

    A logistic regression on the features of both, classes weighed alike, tells what is unusable with a probability of
    `limit` or more; that is picked only when nothing else is left. Without a rejected utterance, or with nothing but
    such, everyone passes.
    """
    return _preferring(is_usable(candidates, rejection(candidates, limit=limit)), inner, candidates, k, rng)


@dataclass(frozen=True, kw_only=True)
class Rejection:
    """A plane between what annotators labelled and what they rejected: rejected is where w·x + b >= 0."""

    weight_D: NDArray[np.float64]
    bias: float


def rejection(candidates: Candidates, *, limit: float = 0.5) -> Rejection | None:
    """The plane that tells the rejected from the labelled; None without both. Picks without an answer say nothing."""
    if not 0 < limit < 1:
        raise OptionError(f"usable needs a limit in (0, 1), got {limit}")
    rejected_M = candidates.rejected_M
    if rejected_M is None or rejected_M.all() or not rejected_M.any():
        return None
    from sklearn.linear_model import LogisticRegression
    from sklearn.preprocessing import StandardScaler

    scale = StandardScaler()
    x_MD = scale.fit_transform(candidates.need("labelled_embedding_MD").astype(np.float64))
    model = LogisticRegression(max_iter=500, class_weight="balanced").fit(x_MD, rejected_M)
    weight_D = model.coef_[0] / scale.scale_
    bias = model.intercept_[0] - weight_D @ scale.mean_ - math.log(limit / (1 - limit))
    return Rejection(weight_D=weight_D, bias=float(bias))


def is_usable(candidates: Candidates, plane: Rejection | None) -> NDArray[np.bool_]:
    """Tell which candidates lie on the side of the labelled, (N,)."""
    if plane is None:
        return np.ones(len(candidates), dtype=bool)
    x_ND = candidates.need("embedding_ND")
    # Row by row, so that a row's sum does not depend on which rows stand beside it.
    slabs = [(x_ND[at : at + SLAB] * plane.weight_D).sum(axis=1) for at in range(0, len(x_ND), SLAB)]
    return np.concatenate([*slabs, np.empty(0)]) + plane.bias < 0


def epsilon_greedy(
    inner: Pick, candidates: Candidates, k: int, rng: np.random.Generator, *, epsilon: float = 0.1
) -> list[str]:
    """A share of `epsilon` of the picks is by chance, and comes first; the strategy picks the others.

    What a strategy overlooks is looked at all the same: with n labels the model knows at least what it would know of
    epsilon * n labels picked by chance. Shares are rounded to the nearest whole, halves upwards.
    """
    chance = by_chance(k, epsilon)
    picks: list[str] = [ByChance(name) for name in uniform(candidates, chance, rng)] if chance else []
    return picks + (inner(candidates.but(picks), k - chance, rng) if chance < k else [])


def by_chance(k: int, epsilon: float) -> int:
    """The number of k picks that are a share of `epsilon`."""
    if not 0 <= epsilon <= 1:
        raise OptionError(f"epsilon_greedy needs an epsilon in [0, 1], got {epsilon}")
    return math.floor(_part(epsilon, k) + Decimal("0.5"))


def relabel(
    inner: Pick,
    candidates: Candidates,
    k: int,
    rng: np.random.Generator,
    *,
    share: float = 0.1,
    doubt: float = 0.5,
) -> list[str]:
    """Up to ⌊share·k⌋ of the budget goes to labelled utterances of the largest doubt, if it is at least `doubt`."""
    if not 0 <= share <= 1:
        raise OptionError(f"relabel needs a share in [0, 1], got {share}")
    if not 0 <= doubt <= 1:
        raise OptionError(f"relabel needs a doubt in [0, 1], got {doubt}")
    doubt_M, ids = candidates.need("labelled_doubt_M"), candidates.labelled_ids
    assert ids is not None
    order = scores.top_rows(doubt_M.astype(np.float64), math.floor(_part(share, k)))
    again: list[str] = ids[order[doubt_M[order] >= doubt]].tolist()
    return (inner(candidates, k - len(again), rng) if k > len(again) else []) + again


def _preferring(
    good_N: NDArray[np.bool_], inner: Pick, candidates: Candidates, k: int, rng: np.random.Generator
) -> list[str]:
    """Picks of the good ones, and of the others when there are too few of these."""
    if good_N.all():
        return inner(candidates, k, rng)  # without a copy of the features
    good = candidates.take(np.flatnonzero(good_N))
    picks = inner(good, min(k, len(good)), rng) if len(good) else []
    if len(picks) == k:
        return picks
    return picks + inner(candidates.but(picks), k - len(picks), rng)


def _until_accepted(
    inner: Pick,
    candidates: Candidates,
    k: int,
    rng: np.random.Generator,
    accept: Callable[[list[str], Candidates], tuple[list[str], Rows]],
    barred: Rows | None = None,
) -> list[str]:
    """Ask for what is missing until k are accepted or nobody is left.

    `accept(asked, left)` returns whom it takes, at least one, and the rows of `left` that may not be picked any more,
    beside those that were `barred` from the start. What was taken counts as picked from then on: a diverse strategy
    keeps away from it, a quota counts it. There is never more than one copy of who is left.
    """
    picks = list[str]()
    barred_N = np.zeros(len(candidates), dtype=bool)
    barred_N[[] if barred is None else barred] = True

    def turn() -> None:
        left = candidates.but(picks, np.flatnonzero(barred_N))
        taken, more = accept(inner(left, min(k - len(picks), len(left)), rng), left)
        picks.extend(taken)
        barred_N[candidates.rows([*left.ids[more].tolist(), *taken])] = True

    while len(picks) < k and not barred_N.all():
        turn()
    return picks


def _part(share: float, count: int) -> Decimal:
    """A share of a count, in decimal: 0.07 of 100 is 7, though the binary product is above."""
    return Decimal(str(share)) * count
