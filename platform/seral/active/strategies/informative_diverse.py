"""AFTER: what is informative, and different from one another."""

from __future__ import annotations

import math
from collections.abc import Callable

import numpy as np

from seral.active.candidates import Candidates, Strategy
from seral.active.strategies import scores
from seral.active.strategies.clusters import k_means
from seral.active.strategies.farthest_first import k_center
from seral.errors import OptionError, unknown_name

UNCERTAINTIES: dict[str, Callable[[scores.Probabilities], scores.Scores]] = {
    "margin": scores.margin,
    "entropy": scores.entropy,
    "least_confidence": scores.least_confidence,
}
DIVERSITIES: dict[str, Strategy] = {"k_means": k_means, "k_center": k_center}


def after(
    candidates: Candidates,
    k: int,
    rng: np.random.Generator,
    *,
    beta: float = 5.0,
    uncertainty: str = "margin",
    diversity: str = "k_means",
) -> list[str]:
    """The ⌈β·k⌉ most uncertain candidates, then k different ones of them. Li et al. 2023, AFTER, arXiv 2310.00283.

    Differs from the paper: it names the two steps but neither β nor the measures; these are options here.
    """
    if not (math.isfinite(beta) and beta >= 1):
        raise OptionError(f"after needs a finite beta >= 1 (the shortlist holds beta * k), got {beta}")
    if uncertainty not in UNCERTAINTIES:
        raise OptionError(unknown_name("uncertainty of after", uncertainty, UNCERTAINTIES))
    if diversity not in DIVERSITIES:
        raise OptionError(unknown_name("diversity of after", diversity, DIVERSITIES))
    score_N = UNCERTAINTIES[uncertainty](candidates.need("probability_NC"))
    shortlist = candidates.take(scores.top_rows(score_N, math.ceil(beta * k)))
    return DIVERSITIES[diversity](shortlist, k, rng)
