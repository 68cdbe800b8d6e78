from contextlib import suppress

import faiss
import numpy as np
import pytest

from seral.active.index import faiss_threads, kmeans, nearest, unit_rows
from seral.errors import SelectionError


def points(count: int, width: int, seed: int) -> np.ndarray:
    return np.random.default_rng(seed).normal(size=(count, width)).astype(np.float32)


@pytest.mark.parametrize("offset", [0.0, 1e4])
def test_nearest_equals_brute_force_even_far_from_the_origin(offset: float) -> None:
    query_QD, base_ND = points(40, 6, 0) + np.float32(offset), points(70, 6, 1) + np.float32(offset)
    exact_QN = ((query_QD[:, None].astype(np.float64) - base_ND) ** 2).sum(axis=2)
    found = nearest(query_QD, base_ND, 5)
    assert found.row_QK.tolist() == np.argsort(exact_QN, axis=1)[:, :5].tolist()
    np.testing.assert_allclose(found.distance_QK, np.sort(exact_QN, axis=1)[:, :5], rtol=1e-6)


def test_nearest_orders_equal_distances_by_row() -> None:
    base_ND = np.repeat(points(3, 4, 0), 3, axis=0)
    assert nearest(base_ND[:1], base_ND, 3).row_QK.tolist() == [[0, 1, 2]]


@pytest.mark.parametrize("k", [0, 4])
def test_nearest_refuses_more_rows_than_there_are(k: int) -> None:
    with pytest.raises(SelectionError, match=f"{k} nearest rows of 3"):
        nearest(points(2, 4, 0), points(3, 4, 0), k)


def test_kmeans_finds_separate_groups_and_repeats_itself() -> None:
    centre_KD = np.eye(4, dtype=np.float32) * 50
    x_ND = np.concatenate([centre + points(30, 4, i) for i, centre in enumerate(centre_KD)])
    found, again = kmeans(x_ND, 4, seed=3), kmeans(x_ND, 4, seed=3)
    assert [len(set(found.cluster_N[i : i + 30])) for i in range(0, 120, 30)] == [1] * 4
    assert len(set(found.cluster_N.tolist())) == 4
    assert found.centroid_KD.tobytes() == again.centroid_KD.tobytes()


def test_kmeans_uses_every_row() -> None:
    # 300 rows of one value and one of another: with 256 rows a cluster kept, the mean would depend on the draw.
    x_ND = np.zeros((301, 1), dtype=np.float32)
    x_ND[-1] = 301
    np.testing.assert_allclose(kmeans(x_ND, 1, seed=0).centroid_KD, [[1.0]], rtol=1e-6)


@pytest.mark.parametrize("order", [[0, 1, 2, 3], [2, 0, 3, 1]])
def test_kmeans_that_starts_from_centroids_keeps_their_numbers(order: list[int]) -> None:
    centre_KD = np.eye(4, dtype=np.float32) * 50
    x_ND = np.concatenate([centre + points(30, 4, i) for i, centre in enumerate(centre_KD)])
    found = kmeans(x_ND, 4, seed=3, start_KD=centre_KD[order])
    assert found.cluster_N.tolist() == np.repeat(np.argsort(order), 30).tolist()


def test_spherical_centroids_have_length_one() -> None:
    centroid_KD = kmeans(unit_rows(points(100, 5, 0)), 6, seed=0, spherical=True).centroid_KD
    np.testing.assert_allclose(np.linalg.norm(centroid_KD, axis=1), 1, rtol=1e-5)


def test_kmeans_survives_copies_and_as_many_clusters_as_rows() -> None:
    assert np.isfinite(kmeans(np.ones((8, 3), dtype=np.float32), 8, seed=0).centroid_KD).all()
    with pytest.raises(SelectionError, match="9 clusters of 8 rows"):
        kmeans(np.ones((8, 3), dtype=np.float32), 9, seed=0)


def test_a_row_of_zeros_stays_zero() -> None:
    assert unit_rows(np.array([[0, 0], [3, 4]], dtype=np.float32)).tolist() == [
        [0, 0],
        [pytest.approx(0.6), pytest.approx(0.8)],
    ]


def test_threads_are_restored_after_an_error() -> None:
    before, inside = faiss.omp_get_max_threads(), 0
    with suppress(KeyError), faiss_threads(before + 1):
        inside = faiss.omp_get_max_threads()
        raise KeyError
    assert (inside, faiss.omp_get_max_threads()) == (before + 1, before)
