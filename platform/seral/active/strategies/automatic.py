"""The recommended choice: what did best in the survey of docs/results/selection.md, by situation."""

from __future__ import annotations

import numpy as np

from seral.active.candidates import Candidates, Strategy
from seral.active.strategies.clusters import k_means
from seral.active.strategies.informative_diverse import cluster_margin
from seral.active.strategies.wrappers import usable

FIRST: tuple[str, Strategy] = ("k_means", k_means)
"""Before there is a model. A cold start."""
LATER: tuple[str, Strategy] = ("cluster_margin", cluster_margin)
"""With a model's probabilities."""


def auto(candidates: Candidates, k: int, rng: np.random.Generator) -> list[str]:
    """k_means before there is a model, cluster_margin afterwards, both without what sounds like what annotators called
    unusable: what did best on the pools of docs/results/selection.md.
    """
    _, strategy = LATER if candidates.probability_NC is not None else FIRST
    return usable(strategy, candidates, k, rng)
