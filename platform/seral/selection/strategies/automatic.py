"""The recommended choice: a policy that goes by what can be seen without a label."""

# N candidates · C classes
from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import partial
from typing import Any, NamedTuple

import numpy as np

from seral.selection.candidates import Candidates
from seral.selection.parts.local import Parts
from seral.selection.parts.part import PoolPart
from seral.selection.strategies.clusters import k_means
from seral.selection.strategies.herding import uncertainty_herding
from seral.selection.strategies.informative_diverse import cluster_margin
from seral.selection.strategies.largest_cluster import lcmd
from seral.selection.strategies.records import Pick, Wrap
from seral.selection.strategies.uniform import drawn, uniform
from seral.selection.strategies.wrappers import epsilon_greedy, quality, usable
from seral.vectors.index import kmeans
from seral.vectors.view import View

AGREEMENT = 0.15
"""Agreement of clusters with predicted classes from which clusters are taken for what people feel."""
SAMPLE, CLUSTERS = 10_000, 2
"""Candidates by which agreement is judged, and clusters for every class."""


class Recommendation(NamedTuple):
    """A strategy by name, and what wraps it."""

    name: str
    strategy: Pick
    filter: Wrap
    epsilon: float

    @property
    def wrapped_by(self) -> Sequence[Mapping[str, Any]]:
        """Name and options of every wrapper, the outermost first."""
        return [{"name": self.filter.__name__}, {"name": "epsilon_greedy", "epsilon": self.epsilon}]

    @property
    def call(self) -> Pick:
        """The strategy in its wrappers."""
        return partial(self.filter, partial(epsilon_greedy, self.strategy, epsilon=self.epsilon))


def auto(
    candidates: Candidates,
    k: int,
    rng: np.random.Generator,
    *,
    source: bool = False,
    agreement: float = AGREEMENT,
    epsilon: float = 0.0,
) -> list[str]:
    """The best by situation on the corpora of docs/results/few-labels.md. Before there is a model k_means; by a model
    of this corpus' own labels cluster_margin, or lcmd where it predicts ratings and no classes. By one that has a
    `source` (labels of other corpora; the loop says so) uncertainty_herding, if the classes that it predicts agree with
    clusters of the features; if not, random before the first label and cluster_margin after it. A share of `epsilon` is
    picked by chance.

    Agreement is the mutual information of predicted classes and of twice as many k-means clusters, adjusted for chance:
    0 by chance, 1 for the same groups; from `agreement` on clusters are followed. A model of few labels agrees with
    clusters whatever people feel. Only what is recorded well enough (quality) is picked before there are labels,
    afterwards only what does not sound like what annotators called unusable (usable).
    """
    parts = Parts([PoolPart(candidates)])
    choice = recommended(parts, rng, source=source, agreement=agreement, epsilon=epsilon)
    return choice.call(candidates, k, rng)


def recommended(
    parts: Parts,
    rng: np.random.Generator,
    *,
    source: bool = False,
    agreement: float = AGREEMENT,
    epsilon: float = 0.0,
) -> Recommendation:
    """The strategy that `auto` stands for."""
    if not all(parts.each(PoolPart.has, "probability_NC")):
        if all(parts.each(PoolPart.has, "value_NK")):
            return Recommendation("lcmd", lcmd, usable, epsilon)
        return Recommendation("k_means", k_means, quality, epsilon)
    begun = any(parts.each(PoolPart.labelled_ids))
    filter_by = usable if begun else quality
    if source and agreement_of_clusters(drawn(parts, SAMPLE, rng), int(rng.integers(2**31))) >= agreement:
        return Recommendation("uncertainty_herding", uncertainty_herding, filter_by, epsilon)
    if source and not begun:
        return Recommendation("random", uniform, filter_by, epsilon)
    return Recommendation("cluster_margin", cluster_margin, filter_by, epsilon)


ALL_RECOMMENDED = {"k_means", "uncertainty_herding", "cluster_margin", "lcmd", "random"}


def agreement_of_clusters(candidates: Candidates, seed: int) -> float:
    """Mutual information of predicted classes and clusters of the features, adjusted for chance. Vinh et al. 2010."""
    from sklearn.metrics import adjusted_mutual_info_score  # sklearn takes a second to import

    p_NC, unit = candidates.need("probability_NC"), View(candidates.need("embedding_ND"), unit=True)
    cluster_N = kmeans(unit, min(CLUSTERS * p_NC.shape[1], len(unit)), seed, spherical=True).cluster_N
    return float(adjusted_mutual_info_score(p_NC.argmax(axis=1), cluster_N))
