"""Which utterances deserve a label next: strategies by name."""

from __future__ import annotations

from seral.selection.candidates import Strategy
from seral.selection.strategies.automatic import auto
from seral.selection.strategies.batch_bald import batch_bald
from seral.selection.strategies.clusters import alps, k_means
from seral.selection.strategies.farthest_first import k_center
from seral.selection.strategies.informative_diverse import after, cluster_margin
from seral.selection.strategies.spread import badge, k_means_plus_plus
from seral.selection.strategies.typical import prob_cover, typiclust
from seral.selection.strategies.uncertainty import bald, density, entropy, least_confidence, margin
from seral.selection.strategies.uniform import uniform

STRATEGIES: dict[str, Strategy] = {
    "auto": auto,
    "random": uniform,
    "entropy": entropy,
    "margin": margin,
    "least_confidence": least_confidence,
    "bald": bald,
    "batch_bald": batch_bald,
    "density": density,
    "k_center": k_center,
    "k_means": k_means,
    "alps": alps,
    "k_means_plus_plus": k_means_plus_plus,
    "typiclust": typiclust,
    "prob_cover": prob_cover,
    "badge": badge,
    "cluster_margin": cluster_margin,
    "after": after,
}
"""A new strategy is one function and one line here; the contract tests run over this table."""

NEEDS: dict[str, frozenset[str]] = {
    "auto": frozenset({"embedding_ND"}),  # and the probabilities where there are any
    "random": frozenset(),
    "entropy": frozenset({"probability_NC"}),
    "margin": frozenset({"probability_NC"}),
    "least_confidence": frozenset({"probability_NC"}),
    "bald": frozenset({"dropout_RNC"}),
    "batch_bald": frozenset({"dropout_RNC"}),
    "density": frozenset({"embedding_ND"}),
    "k_center": frozenset({"embedding_ND"}),
    "k_means": frozenset({"embedding_ND"}),
    "alps": frozenset({"surprisal_NQ"}),
    "k_means_plus_plus": frozenset({"embedding_ND"}),
    "typiclust": frozenset({"embedding_ND"}),
    "prob_cover": frozenset({"embedding_ND"}),
    "badge": frozenset({"probability_NC", "embedding_ND"}),
    "cluster_margin": frozenset({"probability_NC", "embedding_ND"}),
    "after": frozenset(),
    "shortlist": frozenset(),
    "quota": frozenset(),
    "distinct": frozenset({"embedding_ND"}),
    "quality": frozenset(),
    "usable": frozenset({"embedding_ND"}),
    "relabel": frozenset({"labelled_doubt_M"}),
}
"""What each strategy and wrapper reads of the candidates, beside what its options name: see selection.needs."""
