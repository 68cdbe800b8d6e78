import math
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.cluster import AgglomerativeClustering

from seral.selection.candidates import Candidates
from seral.selection.parts.local import Parts
from seral.selection.parts.part import PoolPart
from seral.selection.strategies import STRATEGIES, clusters, scores, typical
from seral.selection.strategies.informative_diverse import cluster_margin
from seral.selection.strategies.typical import prob_cover, typiclust
from seral.selection.strategies.uncertainty import density, mean_similarity, total_direction
from seral.selection.strategies.uniform import drawn
from seral.vectors.index import kmeans, unit_rows, within

# N candidates · M labelled · D features


def pool(count: int, labelled: int, seed: int, *, groups: int = 4) -> Candidates:
    """Rows in groups around unit vectors, sorted by id."""
    rng = np.random.default_rng(seed)
    centre_GD = np.eye(groups, 6) * 5
    return Candidates(
        ids=np.array([f"u{number:03d}" for number in range(count)]),
        probability_NC=rng.dirichlet(np.ones(3), size=count).astype(np.float32),
        embedding_ND=(centre_GD[np.arange(count) % groups] + rng.normal(size=(count, 6))).astype(np.float32),
        labelled_ids=np.array([f"v{number:02d}" for number in range(labelled)], dtype=np.str_),
        labelled_embedding_MD=(centre_GD[np.zeros(labelled, int)] + rng.normal(size=(labelled, 6))).astype(np.float32),
    )


def rows(picks: list[str]) -> list[int]:
    return [int(pick[1:]) for pick in picks]


def gen() -> np.random.Generator:
    return np.random.default_rng(0)


@settings(max_examples=40, deadline=None)
@given(st.integers(1, 40), st.integers(0, 4), st.floats(0.05, 1.5), st.integers(0, 99), st.data())
def test_prob_cover_equals_brute_force(
    count: int, labelled: int, radius: float, seed: int, data: st.DataObject
) -> None:
    candidates = pool(count, labelled, seed)
    k = data.draw(st.integers(1, count))
    unit_ND, labelled_MD = (
        unit_rows(part).astype(np.float64) for part in (candidates.need("embedding_ND"), candidates.labelled_centres())
    )
    near_NN = ((unit_ND[:, None] - unit_ND) ** 2).sum(axis=2) <= radius**2
    covered_N = (((labelled_MD[:, None] - unit_ND) ** 2).sum(axis=2) <= radius**2).any(axis=0)
    expected = list[int]()
    while len(expected) < k:
        free_N = ~np.isin(np.arange(count), expected)
        gain_N = np.where(free_N, (near_NN & ~covered_N).sum(axis=1), -1)
        if gain_N.max() <= 0:
            covered_N[:] = False
            gain_N = np.where(free_N, near_NN.sum(axis=1), -1)
        expected.append(int(gain_N.argmax()))
        covered_N |= near_NN[expected[-1]]
    assert rows(prob_cover(candidates, k, gen(), radius=radius)) == expected


def test_the_radius_that_is_found_keeps_groups_apart() -> None:
    candidates = pool(200, 0, 0, groups=3)
    assert {row % 3 for row in rows(prob_cover(candidates, 3, gen()))} == {0, 1, 2}


@pytest.mark.parametrize("count", [21, 41, 61])  # so that a share of 0.95 is a whole number of balls
@pytest.mark.parametrize("seed", range(5))
def test_the_radius_that_is_found_is_the_largest_of_pure_balls(count: int, seed: int) -> None:
    """Of all distances, the largest up to which 95 of 100 balls hold rows of one cluster only, as many as classes."""
    candidates = pool(count, 2, seed, groups=3)
    unit_ND = unit_rows(candidates.need("embedding_ND"))
    cluster_N = kmeans(unit_ND, 3, int(gen().integers(2**31))).cluster_N
    away_NN = np.linalg.norm(unit_ND[:, None].astype(np.float64) - unit_ND, axis=2)
    other_NN = cluster_N[:, None] != cluster_N
    pure = [r for r in np.unique(away_NN) if (~((away_NN < r) & other_NN).any(axis=1)).mean() >= 0.95]
    assert 0 < max(pure) < away_NN.max()
    # The row that ends the purity lies on the edge of a ball: within it or not, as its distance is rounded.
    edges = [prob_cover(candidates, 12, gen(), radius=max(pure) * (1 + nudge)) for nudge in (-1e-6, 1e-6)]
    assert prob_cover(candidates, 12, gen()) in edges
    assert prob_cover(candidates, 12, gen(), radius=0.8 * max(pure)) not in edges


@pytest.mark.parametrize("radius", [0.0, 0.3, 2.1])
def test_within_is_the_brute_force_answer(radius: float) -> None:
    x_ND = unit_rows(pool(60, 0, 0).need("embedding_ND"))
    x_ND[5] = x_ND[3]
    exact_NN = ((x_ND[:, None].astype(np.float64) - x_ND) ** 2).sum(axis=2) <= radius**2
    assert within(x_ND[:20], x_ND, radius).toarray().tolist() == exact_NN[:20].tolist()


@settings(max_examples=40, deadline=None)
@given(st.integers(8, 60), st.integers(0, 6), st.integers(1, 8), st.integers(1, 25), st.integers(0, 99))
def test_typiclust_equals_its_definition(count: int, labelled: int, k: int, neighbours: int, seed: int) -> None:
    candidates = pool(count, labelled, seed)
    all_ND = unit_rows(np.concatenate([candidates.need("embedding_ND"), candidates.labelled_centres()]))
    number = int(gen().integers(2**31))
    cluster_N = kmeans(all_ND, min(labelled + k, len(all_ND)), number).cluster_N
    expected, labelled_of = list[int](), [int(cluster) for cluster in cluster_N[count:]]
    while len(expected) < k:
        free = [c for c in set(cluster_N[:count].tolist()) if set(np.flatnonzero(cluster_N[:count] == c)) - {*expected}]
        size = {c: int((cluster_N == c).sum()) for c in free}
        best = min(free, key=lambda c: (size[c] < 5, labelled_of.count(c), -size[c], c))
        members = np.flatnonzero(cluster_N == best)
        spacing = {}
        for row in members:
            if row < count and row not in expected:
                away = np.sort(np.linalg.norm(all_ND[members].astype(np.float64) - all_ND[row], axis=1))[1:]
                spacing[int(row)] = float(away[:neighbours].mean()) if len(away) else 0.0
        lowest = min(spacing.values())
        expected.append(min(row for row, value in spacing.items() if value <= lowest + 1e-7))
        labelled_of.append(best)
    assert rows(typiclust(candidates, k, gen(), neighbours=neighbours)) == expected


def test_typiclust_goes_where_no_labels_are() -> None:
    candidates = pool(200, 5, 0)  # what is labelled lies in group 0
    assert 0 not in {row % 4 for row in rows(typiclust(candidates, 3, gen(), clusters=4))}


def test_cluster_margin_takes_the_smallest_cluster_first_and_its_smallest_margin() -> None:
    candidates = pool(100, 0, 1)
    short = rows([candidates.ids[row] for row in scores.top_rows(scores.margin(candidates.need("probability_NC")), 40)])
    group = {row: row % 4 for row in short}
    size = {g: list(group.values()).count(g) for g in range(4)}
    queues = {g: [row for row in short if row % 4 == g] for g in sorted(size, key=lambda g: size[g])}
    picked = rows(cluster_margin(candidates, 8, gen(), beta=5, clusters=4))
    assert len(set(size.values())) == 4
    assert picked == [queue[turn] for turn in range(2) for queue in queues.values()]


@settings(max_examples=60, deadline=None)
@given(
    st.integers(1, 60), st.integers(1, 12), st.floats(1, 8), st.one_of(st.none(), st.integers(1, 6)), st.integers(0, 99)
)
def test_cluster_margin_equals_its_definition(count: int, k: int, beta: float, clusters: int | None, seed: int) -> None:
    """The ⌈β·k⌉ smallest margins in clusters; round and round these, the smallest first, each gives its smallest."""
    candidates, k = pool(count, 0, seed), min(k, count)
    margin_N = np.sort(candidates.need("probability_NC").astype(np.float64), axis=1) @ [0, -1, 1]
    short = sorted(sorted(range(count), key=lambda row: (margin_N[row], row))[: math.ceil(beta * k)])
    unit_ND, number = unit_rows(candidates.need("embedding_ND")[short]), int(gen().integers(2**31))
    of_cluster: dict[int, list[int]] = {}
    cluster_of = kmeans(unit_ND, min(clusters or k, len(short)), number, spherical=True).cluster_N.tolist()
    for row, cluster in sorted(zip(short, cluster_of, strict=True), key=lambda item: (margin_N[item[0]], item[0])):
        of_cluster.setdefault(cluster, []).append(row)
    queues = [queue for _, queue in sorted(of_cluster.items(), key=lambda item: (len(item[1]), item[0]))]
    expected = [queue[turn] for turn in range(len(short)) for queue in queues if turn < len(queue)]
    assert rows(cluster_margin(candidates, k, gen(), beta=beta, clusters=clusters)) == expected[:k]


@settings(max_examples=40, deadline=None)
@given(st.integers(2, 60), st.integers(1, 12), st.floats(1, 8), st.integers(1, 12), st.integers(0, 99))
def test_cluster_margin_of_the_paper_equals_its_definition(
    count: int, k: int, beta: float, rows_per_cluster: int, seed: int
) -> None:
    """All rows by average linkage; round and round the clusters, the smallest first, each gives any of its rows."""
    candidates, k = pool(count, 0, seed), min(k, count)
    margin_N = np.sort(candidates.need("probability_NC").astype(np.float64), axis=1) @ [0, -1, 1]
    short = sorted(sorted(range(count), key=lambda row: (margin_N[row], row))[: math.ceil(beta * k)])
    clusters = math.ceil(count / rows_per_cluster)
    unit_ND = unit_rows(candidates.need("embedding_ND")).astype(np.float64)
    cluster_of = AgglomerativeClustering(clusters, linkage="average").fit(unit_ND).labels_
    of_cluster: dict[int, set[int]] = {}
    for row in short:
        of_cluster.setdefault(cluster_of[row], set()).add(row)
    picks = rows(cluster_margin(candidates, k, gen(), beta=beta, rows_per_cluster=rows_per_cluster))
    sizes = {cluster: len(members) for cluster, members in of_cluster.items()}
    turns = sorted((turn, size) for size in sizes.values() for turn in range(size))[:k]
    taken: dict[int, int] = {}
    for pick, expected in zip(picks, turns, strict=True):
        cluster = cluster_of[pick]
        assert (taken.get(cluster, 0), sizes[cluster]) == expected
        taken[cluster] = taken.get(cluster, 0) + 1
    assert len(set(picks)) == k


def test_any_shortlisted_row_of_a_cluster_may_be_taken() -> None:
    candidates = pool(100, 0, 1)
    first = {rows(cluster_margin(candidates, 1, np.random.default_rng(n), rows_per_cluster=25))[0] for n in range(30)}
    assert len(first) > 1, "not always the smallest margin"


def test_density_weighs_uncertainty_by_the_mean_similarity_to_all() -> None:
    candidates = pool(50, 0, 0)
    x_ND = candidates.need("embedding_ND")
    unit_ND = unit_rows(x_ND).astype(np.float64)
    similar_N = (1 + unit_ND @ unit_ND.T).mean(axis=1) / 2
    np.testing.assert_allclose(mean_similarity(x_ND, total_direction(x_ND) / len(x_ND)), similar_N, rtol=1e-6)
    value_N = scores.entropy(candidates.need("probability_NC")) * similar_N**2
    assert rows(density(candidates, 10, gen(), beta=2)) == np.argsort(-value_N)[:10].tolist()


def test_a_large_pool_learns_its_centroids_on_some_rows(monkeypatch: pytest.MonkeyPatch) -> None:
    """As if that had been asked for; a smaller one on all, and one that is told otherwise as it is told."""
    candidates, small = pool(120, 3, 0), pool(100, 3, 0)
    monkeypatch.setattr(clusters, "LEAST", 40)
    all_rows = {name: STRATEGIES[name].function(candidates, 9, gen()) for name in ("k_means", "typiclust")}
    assert clusters.learnt_on(None, 12, 120) is None
    for module in (clusters, typical):
        monkeypatch.setattr(module, "ALL", 119)
    assert [clusters.learnt_on(None, *size) for size in ((12, 119), (12, 120), (1, 120), (3, 120))] == [
        None,
        64,
        64,
        64,
    ]
    monkeypatch.setattr(clusters, "ENOUGH", 2)
    assert [clusters.learnt_on(None, *size) for size in ((12, 120), (50, 120))] == [4, 2]
    assert clusters.learnt_on(7, 12, 120) == 7
    for name, of_clusters, points in (("k_means", 9, 5), ("typiclust", 12, 4)):
        pick: Any = STRATEGIES[name].function
        assert pick(candidates, 9, gen()) == pick(candidates, 9, gen(), points_per_cluster=points) != all_rows[name]
        assert clusters.learnt_on(None, of_clusters, 120) == points
        assert pick(candidates, 9, gen(), points_per_cluster=120) == all_rows[name]
        assert pick(small, 9, gen()) == pick(small, 9, gen(), points_per_cluster=100)


def test_typical_rows_of_a_large_pool_are_looked_for_among_some_of_a_cluster(monkeypatch: pytest.MonkeyPatch) -> None:
    candidates = pool(120, 0, 0)
    monkeypatch.setattr(typical, "ALL", 119)
    monkeypatch.setattr(typical, "MEMBERS", 30)
    looked_at = np.linspace(0, 119, 30).astype(int)
    unit_ND = unit_rows(candidates.need("embedding_ND")).astype(np.float64)[looked_at]
    away_NN = np.sort(np.linalg.norm(unit_ND[:, None] - unit_ND, axis=2), axis=1)
    expected = looked_at[np.argsort(away_NN[:, 1:6].mean(axis=1), kind="stable")].tolist()
    picks = rows(typiclust(candidates, 120, gen(), clusters=1, neighbours=5))
    assert picks[:30] == expected
    assert picks[30:] == sorted(set(range(120)) - set(expected))
    assert rows(typiclust(candidates, 120, gen(), clusters=1, neighbours=5, members=120)) != picks
    monkeypatch.setattr(typical, "ALL", 120)
    assert rows(typiclust(candidates, 120, gen(), clusters=1, neighbours=5)) != picks
    assert rows(typiclust(candidates, 120, gen(), clusters=1, neighbours=5, members=30)) == picks


def test_prob_cover_covers_a_sample_of_a_large_pool() -> None:
    candidates = pool(300, 4, 0)
    rng = gen()
    small = drawn(Parts([PoolPart(candidates)]), 50, rng)
    assert prob_cover(candidates, 9, gen(), sample=50) == prob_cover(small, 9, rng)
    assert prob_cover(candidates, 9, gen(), sample=300) == prob_cover(candidates, 9, gen())
    assert len(set(prob_cover(candidates, 70, gen(), sample=50))) == 70
