"""The recommended choice: what did best in the survey of docs/results/selection.md, by situation."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from seral.selection.candidates import Candidates
from seral.selection.strategies.clusters import k_means
from seral.selection.strategies.informative_diverse import cluster_margin
from seral.selection.strategies.records import Pick, Wrap
from seral.selection.strategies.wrappers import quality, usable


class Recommendation(NamedTuple):
    """A strategy and its wrapper, whose functions are called as they are named."""

    strategy: Pick
    wrapper: Wrap

    @property
    def name(self) -> str:
        """The strategy's name."""
        return self.strategy.__name__

    @property
    def wrapper_name(self) -> str:
        """The wrapper's name."""
        return self.wrapper.__name__


FIRST, LATER = Recommendation(k_means, quality), Recommendation(cluster_margin, usable)
"""Before there is a model, and with one."""


def auto(candidates: Candidates, k: int, rng: np.random.Generator) -> list[str]:
    """k_means of what is recorded well enough (quality) before there is a model; with one, cluster_margin of what does
    not sound like what annotators called unusable (usable). What did best on the pools of docs/results/selection.md.
    """
    choice = recommended(candidates.probability_NC is not None)
    return choice.wrapper(choice.strategy, candidates, k, rng)


def recommended(model: bool) -> Recommendation:
    """The strategy that `auto` stands for, with or without a model's probabilities."""
    return LATER if model else FIRST
