from contextlib import suppress

import faiss
import numpy as np
import pytest

from seral.errors import OptionError, SelectionError
from seral.vectors import index, view
from seral.vectors.index import faiss_threads, kmeans, likely_within, nearest, within
from seral.vectors.view import View, unit_rows

# Q queries · N rows · K clusters · D features


def points(count: int, width: int, seed: int) -> np.ndarray:
    return np.random.default_rng(seed).normal(size=(count, width)).astype(np.float32)


@pytest.mark.parametrize("offset", [0.0, 1e4])
def test_nearest_equals_brute_force_even_far_from_the_origin(offset: float) -> None:
    query_QD, base_ND = points(40, 6, 0) + np.float32(offset), points(70, 6, 1) + np.float32(offset)
    exact_QN = ((query_QD[:, None].astype(np.float64) - base_ND) ** 2).sum(axis=2)
    neighbours = nearest(query_QD, base_ND, 5)
    assert neighbours.row_QK.tolist() == np.argsort(exact_QN, axis=1)[:, :5].tolist()
    np.testing.assert_allclose(neighbours.distance_QK, np.sort(exact_QN, axis=1)[:, :5], rtol=1e-6)


def test_nearest_orders_equal_distances_by_row() -> None:
    base_ND = np.repeat(points(3, 4, 0), 3, axis=0)
    assert nearest(base_ND[:1], base_ND, 3).row_QK.tolist() == [[0, 1, 2]]


@pytest.mark.parametrize("stored", [np.float32, np.float16])
@pytest.mark.parametrize("k", [1, 4, 30])
def test_nearest_over_many_slabs_equals_brute_force_on_a_grid_full_of_ties(
    stored: type, k: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(view, "NUMBERS", 30)
    rng = np.random.default_rng(0)
    query_QD, base_ND = (rng.integers(-2, 3, size=(count, 3)).astype(stored) for count in (40, 90))
    exact_QN = ((query_QD[:, None].astype(np.float64) - base_ND) ** 2).sum(axis=2)
    neighbours = nearest(query_QD, View(base_ND[:50], base_ND[50:]), k)
    assert neighbours.distance_QK.tolist() == np.sort(exact_QN, axis=1)[:, :k].tolist()
    assert neighbours.distance_QK.tolist() == np.take_along_axis(exact_QN, neighbours.row_QK, 1).tolist()
    for row_K, distance_K in zip(neighbours.row_QK.tolist(), neighbours.distance_QK.tolist(), strict=True):
        assert sorted(set(row_K), key=lambda row: (distance_K[row_K.index(row)], row)) == row_K


@pytest.mark.parametrize("offset", [0, 100])
def test_within_over_many_slabs_equals_brute_force_where_distances_equal_the_radius(
    offset: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(view, "NUMBERS", 40)
    monkeypatch.setattr(index, "REACHING", 9)
    x_ND = np.random.default_rng(0).integers(-4, 5, size=(80, 2)).astype(np.float32) + offset
    exact_NN = ((x_ND[:, None].astype(np.float64) - x_ND) ** 2).sum(axis=2)
    for radius in (0.0, 1.0, 5.0, 2**0.5, 99.0):
        assert within(x_ND, x_ND, radius).toarray().tolist() == (exact_NN <= radius**2).tolist()
    assert within(x_ND[:0], x_ND, 1.0).shape == (0, 80)


@pytest.mark.parametrize("k", [0, 4])
def test_nearest_refuses_more_rows_than_there_are(k: int) -> None:
    with pytest.raises(SelectionError, match=f"{k} nearest rows of 3"):
        nearest(points(2, 4, 0), points(3, 4, 0), k)


def test_kmeans_finds_separate_groups_and_repeats_itself() -> None:
    centre_KD = np.eye(4, dtype=np.float32) * 50
    x_ND = np.concatenate([centre + points(30, 4, i) for i, centre in enumerate(centre_KD)])
    clusters, again = kmeans(x_ND, 4, seed=3), kmeans(x_ND, 4, seed=3)
    assert [len(set(clusters.cluster_N[i : i + 30])) for i in range(0, 120, 30)] == [1] * 4
    assert len(set(clusters.cluster_N.tolist())) == 4
    assert clusters.centroid_KD.tobytes() == again.centroid_KD.tobytes()


def test_kmeans_uses_every_row() -> None:
    # 300 rows of one value and one of another: with 256 rows a cluster kept, the mean would depend on the draw.
    x_ND = np.zeros((301, 1), dtype=np.float32)
    x_ND[-1] = 301
    np.testing.assert_allclose(kmeans(x_ND, 1, seed=0).centroid_KD, [[1.0]], rtol=1e-6)


@pytest.mark.parametrize("order", [[0, 1, 2, 3], [2, 0, 3, 1]])
def test_kmeans_that_starts_from_centroids_keeps_their_numbers(order: list[int]) -> None:
    centre_KD = np.eye(4, dtype=np.float32) * 50
    x_ND = np.concatenate([centre + points(30, 4, i) for i, centre in enumerate(centre_KD)])
    clusters = kmeans(x_ND, 4, seed=3, start_KD=centre_KD[order])
    assert clusters.cluster_N.tolist() == np.repeat(np.argsort(order), 30).tolist()


def plain_lloyd(x_ND: np.ndarray, centroid_KD: np.ndarray, iterations: int, spherical: bool) -> tuple[np.ndarray, ...]:
    """The textbook in double precision; a centroid without rows goes to the row farthest from its own."""
    x_ND, centroid_KD = x_ND.astype(np.float64), centroid_KD.astype(np.float64)
    for left in range(iterations, -1, -1):
        square_NK = ((x_ND[:, None] - centroid_KD) ** 2).sum(axis=2)
        cluster_N = square_NK.argmin(axis=1)
        if not left:
            break
        far = np.argsort(-square_NK.min(axis=1), kind="stable").tolist()
        for cluster in range(len(centroid_KD)):
            mine = cluster_N == cluster
            centroid_KD[cluster] = x_ND[mine].mean(axis=0) if mine.any() else x_ND[far.pop(0)]
        if spherical:
            centroid_KD /= np.linalg.norm(centroid_KD, axis=1, keepdims=True)
    return centroid_KD, cluster_N


@pytest.mark.parametrize("lost", [0, 3])
@pytest.mark.parametrize("offset", [0.0, 1e3])
@pytest.mark.parametrize("spherical", [False, True])
@pytest.mark.parametrize("iterations", [1, 12])
def test_kmeans_equals_plain_lloyd_from_the_same_start(
    lost: int, offset: float, spherical: bool, iterations: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(view, "NUMBERS", 6 * 128)
    x_ND = points(700, 6, 0) + np.float32(0 if spherical else offset)
    x_ND = unit_rows(x_ND) if spherical else x_ND
    start_KD = x_ND[:15].copy()
    start_KD[:lost] = 1e4 + np.arange(lost)[:, None]  # nobody is nearest to these
    centroid_KD, cluster_N = plain_lloyd(x_ND, start_KD, iterations, spherical)
    clusters = kmeans(x_ND, 15, 0, spherical=spherical, iterations=iterations, start_KD=start_KD)
    assert clusters.cluster_N.tolist() == cluster_N.tolist()
    np.testing.assert_allclose(clusters.centroid_KD, centroid_KD, rtol=1e-5, atol=1e-5)


def inertia(x_ND: np.ndarray, centroid_KD: np.ndarray) -> float:
    """Sum of the squared distances to the nearest centroid."""
    return float(nearest(x_ND, centroid_KD, 1).distance_QK.sum(dtype=np.float64))


@pytest.mark.parametrize("spherical", [False, True])
@pytest.mark.parametrize("kind", ["normal", "groups", "groups in half precision"])
def test_clusters_are_as_tight_as_those_of_faiss(kind: str, spherical: bool) -> None:
    """On the mean of four seeds, for draws differ: within one percent."""
    rng = np.random.default_rng(0)
    x_ND = rng.normal(size=(3000, 16)).astype(np.float32)
    if kind != "normal":
        x_ND += 2 * rng.normal(size=(20, 16)).astype(np.float32)[rng.integers(20, size=3000)]
    if kind == "groups in half precision":
        x_ND = x_ND.astype(np.float16)
    rows = View(x_ND, unit=spherical)
    mine, theirs = [], []
    for seed in range(4):
        solver = faiss.Kmeans(
            16,
            60,
            niter=20,
            seed=seed,
            spherical=spherical,
            init_method=faiss.ClusteringInitMethod_KMEANS_PLUS_PLUS,
            max_points_per_centroid=len(x_ND),
        )
        with faiss_threads(1):
            solver.train(rows[:])
        theirs.append(inertia(rows, solver.centroids))
        mine.append(inertia(rows, kmeans(rows, 60, seed, spherical=spherical).centroid_KD))
    assert np.mean(mine) < 1.01 * np.mean(theirs)


def test_clusters_do_not_depend_on_the_slabs_or_on_how_rows_are_read(monkeypatch: pytest.MonkeyPatch) -> None:
    x_ND = points(500, 8, 0).astype(np.float16)
    whole = kmeans(unit_rows(x_ND), 20, 7, spherical=True)
    monkeypatch.setattr(view, "NUMBERS", 8 * 100)
    clusters = kmeans(View(x_ND[:300], x_ND[300:], unit=True), 20, 7, spherical=True)
    assert clusters.cluster_N.tolist() == whole.cluster_N.tolist()
    np.testing.assert_allclose(clusters.centroid_KD, whole.centroid_KD, rtol=1e-6, atol=1e-7)


def test_every_row_goes_to_its_nearest_centroid_wherever_these_were_learnt() -> None:
    x_ND = points(2000, 5, 0)
    whole, part = kmeans(x_ND, 10, 3), kmeans(x_ND, 10, 3, points_per_cluster=20)
    assert (part.centroid_KD != whole.centroid_KD).any()
    for clusters in (whole, part):
        assert clusters.cluster_N.tolist() == nearest(x_ND, clusters.centroid_KD, 1).row_QK[:, 0].tolist()
    again = kmeans(x_ND, 10, 3, points_per_cluster=20)
    assert part.centroid_KD.tobytes() == again.centroid_KD.tobytes()
    assert kmeans(x_ND, 10, 3, points_per_cluster=200).centroid_KD.tobytes() == whole.centroid_KD.tobytes()
    # A centroid is the mean of what it was learnt on: with one row each, the row.
    assert nearest(kmeans(x_ND, 10, 3, points_per_cluster=1).centroid_KD, x_ND, 1).distance_QK.max() < 1e-10


@pytest.mark.parametrize("option", ["points_per_cluster", "threads"])
def test_kmeans_refuses_counts_below_one(option: str) -> None:
    with pytest.raises(OptionError, match=f"{option} must be at least 1, got 0"):
        kmeans(points(9, 2, 0), 3, 0, **{option: 0})


def test_kmeans_refuses_what_is_no_number() -> None:
    x_ND = points(9, 2, 0)
    x_ND[4] = np.nan
    with pytest.raises(SelectionError, match="not finite"):
        kmeans(x_ND, 3, 0, start_KD=x_ND[:3])


def test_spherical_centroids_have_length_one() -> None:
    centroid_KD = kmeans(unit_rows(points(100, 5, 0)), 6, seed=0, spherical=True).centroid_KD
    np.testing.assert_allclose(np.linalg.norm(centroid_KD, axis=1), 1, rtol=1e-5)


def test_kmeans_survives_copies_and_as_many_clusters_as_rows() -> None:
    assert np.isfinite(kmeans(np.ones((8, 3), dtype=np.float32), 8, seed=0).centroid_KD).all()
    with pytest.raises(SelectionError, match="9 clusters of 8 rows"):
        kmeans(np.ones((8, 3), dtype=np.float32), 9, seed=0)


def test_threads_are_restored_after_an_error() -> None:
    before, inside = faiss.omp_get_max_threads(), 0
    with suppress(KeyError), faiss_threads(before + 1):
        inside = faiss.omp_get_max_threads()
        raise KeyError
    assert (inside, faiss.omp_get_max_threads()) == (before + 1, before)


def with_copies(x_ND: np.ndarray, count: int, seed: int) -> np.ndarray:
    """Rows of length 1, and after them copies of the first ones at cosines of 0.9 to 1."""
    x_ND, rng = unit_rows(x_ND), np.random.default_rng(seed)
    cosine_N = rng.uniform(0.9, 1, count)[:, None]
    away_ND = rng.normal(size=(count, x_ND.shape[1]))
    away_ND -= np.einsum("nd,nd->n", away_ND, x_ND[:count])[:, None] * x_ND[:count]
    away_ND /= np.linalg.norm(away_ND, axis=1)[:, None]
    copy_ND = cosine_N * x_ND[:count] + np.sqrt(1 - cosine_N**2) * away_ND
    return np.concatenate([x_ND, copy_ND.astype(np.float32)])


@pytest.mark.parametrize("groups", [6000, 60])
def test_the_index_finds_what_all_pairs_have_and_nothing_else(groups: int) -> None:
    rng = np.random.default_rng(0)
    x_ND = points(6000, 128, 1) + points(groups, 128, 2)[rng.integers(groups, size=6000)]
    x_ND, radius = with_copies(x_ND, 1500, 3), float(np.sqrt(0.2))
    exact = within(x_ND, x_ND, radius)
    expected = {(one, other) for one, other in zip(*exact.nonzero(), strict=True) if one < other}
    blocks = [*likely_within(x_ND, radius)]
    pairs = {(one, other) for block in blocks for one, other in block.tolist()}
    assert len(expected) >= 1490
    assert pairs <= expected
    assert len(pairs) >= 0.999 * len(expected)
    assert [block.tolist() for block in likely_within(x_ND, radius)] == [block.tolist() for block in blocks]


def test_the_index_takes_a_few_rows_and_many_copies_too() -> None:
    assert np.concatenate([*likely_within(unit_rows(points(3, 4, 0)), 0.1)]).tolist() == []
    same_ND = np.repeat(unit_rows(points(1, 8, 0)), 40, axis=0)
    pairs = {tuple(pair) for block in likely_within(same_ND, 0.1) for pair in block.tolist()}
    assert pairs == {(one, other) for other in range(40) for one in range(other)}
