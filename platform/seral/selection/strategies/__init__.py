"""Strategies and wrappers by name, with everything that is known of each: which utterances deserve a label next."""

from __future__ import annotations

from ser_models.registry import Registry
from seral.selection.strategies import bayesian, herding, wrappers, wrappers_in_parts
from seral.selection.strategies.automatic import ALL_RECOMMENDED, auto, recommended
from seral.selection.strategies.batch_bald import batch_bald, batch_bald_looks_at
from seral.selection.strategies.clusters import alps, k_means
from seral.selection.strategies.dropout_query import dropquery, dropquery_in_parts
from seral.selection.strategies.dynamic_coverage import dcom, dcom_in_parts
from seral.selection.strategies.farthest_first import k_center, k_center_in_parts
from seral.selection.strategies.greedy_sampling import gsy, gsy_in_parts, igs, igs_in_parts
from seral.selection.strategies.informative_diverse import (
    DIVERSITIES,
    after,
    after_looks_at,
    cluster_margin,
    cluster_margin_looks_at,
)
from seral.selection.strategies.largest_cluster import lcmd, lcmd_in_parts
from seral.selection.strategies.phases import tcm, tcm_stands_for
from seral.selection.strategies.records import (
    Exact,
    OfShortlist,
    Phases,
    StandsFor,
    Strategy,
    Wrapper,
    as_strategy,
    by_score,
)
from seral.selection.strategies.spread import badge, badge_in_parts, k_means_plus_plus, k_means_plus_plus_in_parts
from seral.selection.strategies.typical import prob_cover, typiclust
from seral.selection.strategies.uncertainty import (
    UNCERTAINTIES,
    bald,
    density,
    density_in_parts,
    emcm,
    entropy,
    least_confidence,
    margin,
)
from seral.selection.strategies.uniform import uniform, uniform_in_parts

__all__ = ["DIVERSITIES", "STRATEGIES", "UNCERTAINTIES", "WRAPPERS"]

FEATURES, PROBABILITIES, PASSES, VALUES = {"embedding_ND"}, {"probability_NC"}, {"dropout_RNC"}, {"value_NK"}
"""Fields of Candidates that most strategies read."""

OWN: dict[str, Strategy] = {
    # auto, uncertainty_herding and tcm read the probabilities as well where there are any.
    "auto": Strategy(auto, FEATURES, StandsFor(recommended, ALL_RECOMMENDED)),
    "random": Strategy(uniform, in_parts=Exact(uniform_in_parts)),
    "entropy": by_score(entropy, PROBABILITIES),
    "margin": by_score(margin, PROBABILITIES),
    "least_confidence": by_score(least_confidence, PROBABILITIES),
    "bald": by_score(bald, PASSES),
    "batch_bald": Strategy(batch_bald, PASSES, OfShortlist(batch_bald_looks_at), goes_by=("bald",)),
    "density": Strategy(density, FEATURES, Exact(density_in_parts), goes_by=("density",)),
    "k_center": Strategy(k_center, FEATURES, Exact(k_center_in_parts), goes_by=("distance",)),
    "k_means": Strategy(k_means, FEATURES, goes_by=("typicality",)),
    "alps": Strategy(alps, {"surprisal_NQ"}),
    "k_means_plus_plus": Strategy(
        k_means_plus_plus, FEATURES, Exact(k_means_plus_plus_in_parts), goes_by=("distance",)
    ),
    "typiclust": Strategy(typiclust, FEATURES, goes_by=("typicality",)),
    "prob_cover": Strategy(prob_cover, FEATURES, goes_by=("typicality",)),
    "max_herding": Strategy(herding.max_herding, FEATURES, Exact(herding.max_herding_in_parts), goes_by=("coverage",)),
    "uncertainty_herding": Strategy(
        herding.uncertainty_herding,
        FEATURES,
        Exact(herding.uncertainty_herding_in_parts),
        goes_by=("coverage", "margin"),
    ),
    "tcm": Strategy(tcm, FEATURES, Phases(tcm_stands_for)),
    "dcom": Strategy(dcom, PROBABILITIES | FEATURES, Exact(dcom_in_parts), goes_by=("margin", "typicality")),
    "dropquery": Strategy(
        dropquery, PROBABILITIES | PASSES | FEATURES, Exact(dropquery_in_parts), goes_by=("disagreement",)
    ),
    "badge": Strategy(badge, PROBABILITIES | FEATURES, Exact(badge_in_parts), goes_by=("gradient",)),
    "cluster_margin": Strategy(
        cluster_margin, PROBABILITIES | FEATURES, OfShortlist(cluster_margin_looks_at), goes_by=("margin",)
    ),
    "gsy": Strategy(gsy, VALUES | {"labelled_value_MK"}, Exact(gsy_in_parts), goes_by=("rating distance",)),
    "igs": Strategy(
        igs, VALUES | FEATURES | {"labelled_value_MK"}, Exact(igs_in_parts), goes_by=("rating distance", "distance")
    ),
    "emcm": by_score(emcm, {"member_RNK"} | FEATURES),
    "predictive_variance": Strategy(
        bayesian.predictive_variance, FEATURES, Exact(bayesian.predictive_variance_in_parts), goes_by=("variance",)
    ),
    "max_det": Strategy(bayesian.max_det, FEATURES, Exact(bayesian.max_det_in_parts), goes_by=("variance",)),
    "lcmd": Strategy(lcmd, FEATURES, Exact(lcmd_in_parts), goes_by=("distance",)),
    "after": Strategy(after, in_parts=OfShortlist(after_looks_at), goes_by=("uncertainty",)),
}
STRATEGIES = Registry(OWN, "seral.strategies", as_strategy)
"""A new strategy is one function and one line here; the contract tests run over this table.

A score is `by_score(function, reads)` and exact in parts; any other strategy is merged there unless its record says how
it gets the picks of one machine.
"""

WRAPPERS: dict[str, Wrapper] = {
    "shortlist": Wrapper(wrappers.shortlist, in_parts=wrappers_in_parts.shortlist_in_parts),
    "quota": Wrapper(wrappers.quota, in_parts=wrappers_in_parts.quota_in_parts, limits_groups=True),
    "distinct": Wrapper(wrappers.distinct, FEATURES, wrappers_in_parts.distinct_in_parts, filters=True),
    "quality": Wrapper(wrappers.quality, in_parts=wrappers_in_parts.quality_in_parts, filters=True),
    "usable": Wrapper(wrappers.usable, FEATURES, wrappers_in_parts.usable_in_parts),
    "epsilon_greedy": Wrapper(wrappers.epsilon_greedy, in_parts=wrappers_in_parts.epsilon_greedy_in_parts),
    "relabel": Wrapper(wrappers.relabel, {"labelled_doubt_M"}, wrappers_in_parts.relabel_in_parts, relabels=True),
}
"""A new wrapper is one function and one line here; the contract tests run over this table too."""
