"""Strategies for candidates that are informative and differ: uncertainty first, then diversity among the uncertain."""

from __future__ import annotations

import math
import sys

import numpy as np

from seral.errors import OptionError, unknown_name
from seral.selection.candidates import Candidates
from seral.selection.parts.local import Parts, best_of
from seral.selection.strategies import scores
from seral.selection.strategies.checks import at_least
from seral.selection.strategies.clusters import k_means
from seral.selection.strategies.farthest_first import k_center
from seral.selection.strategies.records import Pick, best_by
from seral.selection.strategies.spread import badge, k_means_plus_plus
from seral.selection.strategies.typical import prob_cover, typiclust
from seral.selection.strategies.uncertainty import uncertainty_of
from seral.vectors.index import kmeans
from seral.vectors.neighbourhoods import linked
from seral.vectors.view import View

# N candidates · K clusters · D features

DIVERSITIES: dict[str, Pick] = {
    "k_means": k_means,
    "k_center": k_center,
    "k_means_plus_plus": k_means_plus_plus,
    "badge": badge,
    "typiclust": typiclust,
    "prob_cover": prob_cover,
}
"""Values of the option `diversity` of `after`: strategies that run on its shortlist."""


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
    if diversity not in DIVERSITIES:
        raise OptionError(unknown_name("diversity of after", diversity, DIVERSITIES))
    return DIVERSITIES[diversity](shortlist(candidates, k, beta, uncertainty), k, rng)


def after_looks_at(k: int, *, beta: float, uncertainty: str, diversity: str) -> tuple[str, int]:
    """The uncertainty by which `after` shortlists, and how many."""
    return uncertainty, shortlisted(k, beta)


def cluster_margin(
    candidates: Candidates,
    k: int,
    rng: np.random.Generator,
    *,
    beta: float = 10.0,
    clusters: int | None = None,
    rows_per_cluster: int | None = None,
    threads: int = 1,
) -> list[str]:
    """The ⌈β·k⌉ smallest margins, taken from their clusters in turn, the smallest cluster first and in it the smallest
    margin. Citovsky et al. 2021, Cluster-Margin, arXiv 2107.14263.

    Differs from the paper: k-means of the shortlist, into k clusters by default, so that it is the smallest margin of
    each cluster. With `rows_per_cluster`, 10 in the paper, it is the paper's: all candidates are clustered, by average
    linkage, so many to a cluster in the mean, and any of a cluster's shortlisted rows is taken, by chance.
    """
    at_least(1, "cluster_margin", clusters=clusters, rows_per_cluster=rows_per_cluster, threads=threads)
    seed = int(rng.integers(2**31))
    rows = np.sort(scores.top_rows(uncertainty_of(candidates, "margin"), shortlisted(k, beta)))
    short = candidates.take(rows)
    if rows_per_cluster is not None:
        unit = View(candidates.need("embedding_ND"), unit=True)
        cluster_N = linked(unit, math.ceil(len(unit) / rows_per_cluster), threads=threads)[rows]
        in_turn = rng.permutation(len(short))
    else:
        cluster_N = kmeans(
            View(short.need("embedding_ND"), unit=True),
            min(clusters or k, len(short)),
            seed,
            spherical=True,
            threads=threads,
        ).cluster_N
        in_turn = np.argsort(-uncertainty_of(short, "margin"), kind="stable")
    size_N = np.bincount(cluster_N)[cluster_N]
    # All first rows of clusters are taken before any second one.
    rank_N = np.empty(len(short), dtype=np.int64)
    rank_N[in_turn] = scores.rank_in_group(cluster_N[in_turn])
    order = np.lexsort((cluster_N, size_N, rank_N))
    ids: list[str] = short.ids[order[:k]].tolist()
    return ids


def cluster_margin_looks_at(
    k: int, *, beta: float, rows_per_cluster: int | None = None, **_: int | None
) -> tuple[str, int]:
    """The uncertainty by which `cluster_margin` shortlists, and how many; the paper's looks at all candidates."""
    return "margin", sys.maxsize if rows_per_cluster else shortlisted(k, beta)


def shortlist(candidates: Candidates, k: int, beta: float, uncertainty: str) -> Candidates:
    """The ⌈beta·k⌉ most uncertain candidates."""
    return candidates.take(scores.top_rows(uncertainty_of(candidates, uncertainty), shortlisted(k, beta)))


def gather_shortlist(parts: Parts, uncertainty: str, count: int) -> Candidates:
    """The `count` most uncertain candidates of all parts, in this process."""
    return parts.gather(best_of(parts.each(best_by, uncertainty_of, count, uncertainty), count))


def shortlisted(k: int, beta: float) -> int:
    """Number of candidates on a shortlist, ⌈beta·k⌉."""
    at_least(1, "a shortlist of beta * k", beta=float(beta))
    return math.ceil(beta * k)
