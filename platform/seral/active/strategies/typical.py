"""Typical candidates: dense places first, one of each region."""

from __future__ import annotations

import numpy as np

from seral.active.candidates import Candidates, Floats
from seral.active.index import kmeans, nearest, unit_rows, within
from seral.active.points import Doubles

# N candidates · M labelled · K clusters · B sampled rows · D features

CLUSTERS, SAMPLE = 8, 2_000


def typiclust(
    candidates: Candidates,
    k: int,
    rng: np.random.Generator,
    *,
    clusters: int = 500,
    neighbours: int = 20,
    smallest: int = 5,
) -> list[str]:
    """The most typical candidate of each cluster, of those with fewest labels first. Hacohen et al. 2022,
    TypiClust, arXiv 2202.02794.

    k-means of labelled and unlabelled rows into labels + k clusters, at most `clusters`; typical is who is near to his
    `neighbours` nearest rows of the cluster. Clusters of fewer than `smallest` rows come last.
    """
    x_ND, labelled_MD = candidates.need("embedding_ND"), candidates.labelled_centres()
    seed = int(rng.integers(2**31))
    all_ND = unit_rows(np.concatenate([x_ND, labelled_MD]))
    cluster_N = kmeans(all_ND, min(len(labelled_MD) + k, clusters, len(all_ND)), seed).cluster_N
    free_N = cluster_N[: len(x_ND)]
    labels_K = np.bincount(cluster_N[len(x_ND) :], minlength=cluster_N.max() + 1)
    size_K = np.bincount(cluster_N, minlength=len(labels_K))
    left_K = np.bincount(free_N, minlength=len(labels_K))
    queues: dict[int, list[int]] = {}
    picks: list[int] = []
    while len(picks) < k:
        open_K = np.flatnonzero(left_K)
        key = np.lexsort((open_K, -size_K[open_K], labels_K[open_K], size_K[open_K] < smallest))
        cluster = int(open_K[key[0]])
        if cluster not in queues:
            members = np.flatnonzero(cluster_N == cluster)
            order = np.argsort(_spacing(all_ND[members], neighbours), kind="stable")
            queues[cluster] = [int(row) for row in members[order] if row < len(x_ND)][::-1]
        picks.append(queues[cluster].pop())
        labels_K[cluster] += 1
        left_K[cluster] -= 1
    chosen: list[str] = candidates.ids[picks].tolist()
    return chosen


def _spacing(x_ND: Floats, neighbours: int) -> Doubles:
    """Mean distance of every row to its nearest neighbours, itself not counted, (N, D) -> (N,)."""
    if len(x_ND) == 1:
        return np.zeros(1)
    near = nearest(x_ND, x_ND, min(neighbours + 1, len(x_ND)))
    own_NK = near.row_QK == np.arange(len(x_ND))[:, None]
    # Copies of a row may come before it, and push it out: then the last of its neighbours is left out instead.
    own_NK[~own_NK.any(axis=1), -1] = True
    spacing_N: Doubles = np.sqrt(np.where(own_NK, 0, near.distance_QK).astype(np.float64)).sum(axis=1)
    spacing_N /= near.row_QK.shape[1] - 1
    return spacing_N


def prob_cover(
    candidates: Candidates, k: int, rng: np.random.Generator, *, radius: float | None = None, purity: float = 0.95
) -> list[str]:
    """Each pick covers the most rows that are not covered yet. Yehuda et al. 2022, ProbCover, arXiv 2205.11320.

    A row covers all within `radius` of it, on the unit sphere. Without one, the largest radius within which a share
    `purity` of the balls hold rows of one cluster only (k-means, as many clusters as classes, or 8). Memory and time
    grow with the pairs of neighbours. When nothing is left to cover, covering starts again.
    """
    x_ND, labelled_MD = unit_rows(candidates.need("embedding_ND")), unit_rows(candidates.labelled_centres())
    seed = int(rng.integers(2**31))
    radius = _pure_radius(candidates, x_ND, purity, seed) if radius is None else radius
    covers_NN = within(x_ND, x_ND, radius)
    covered_by_NN = covers_NN.T.tocsr()
    known_N = within(labelled_MD, x_ND, radius).sum(axis=0) > 0
    covered_N, free_N = known_N.copy(), np.ones(len(x_ND), dtype=bool)
    gain_N = covers_NN @ (~covered_N).astype(np.int64)
    picks: list[int] = []
    while len(picks) < k:
        if not gain_N[free_N].any():
            covered_N[:] = False
            gain_N = covers_NN @ (~covered_N).astype(np.int64)
        best = int(np.where(free_N, gain_N, -1).argmax())
        picks.append(best)
        free_N[best] = False
        new = covers_NN.indices[covers_NN.indptr[best] : covers_NN.indptr[best + 1]]
        new = new[~covered_N[new]]
        covered_N[new] = True
        gain_N -= np.bincount(covered_by_NN[new].indices, minlength=len(gain_N))
    chosen: list[str] = candidates.ids[picks].tolist()
    return chosen


def _pure_radius(candidates: Candidates, x_ND: Floats, purity: float, seed: int) -> float:
    """The largest of some radii whose balls hold rows of one cluster only, in a share `purity` of the balls.

    Balls around at most SAMPLE rows are looked at.
    """
    p_NC = candidates.probability_NC
    clusters = min(CLUSTERS if p_NC is None else p_NC.shape[1], len(x_ND))
    cluster_N = kmeans(x_ND, clusters, seed).cluster_N
    rows = np.linspace(0, len(x_ND) - 1, min(SAMPLE, len(x_ND))).astype(np.intp)
    # A ball is pure up to the nearest row of another cluster.
    to_other_B = np.full(len(rows), 2.0)  # the diameter of the sphere
    for cluster in np.unique(cluster_N[rows]):
        mine, others = np.flatnonzero(cluster_N[rows] == cluster), np.flatnonzero(cluster_N != cluster)
        if len(others):
            to_other_B[mine] = np.sqrt(nearest(x_ND[rows[mine]], x_ND[others], 1).distance_QK[:, 0])
    return float(np.quantile(to_other_B, 1 - purity))
