"""Clusters that grow from pairs of neighbours."""

from __future__ import annotations

import numpy as np
import pytest
from sklearn.cluster import AgglomerativeClustering

from seral.vectors import neighbourhoods
from seral.vectors.neighbourhoods import linked
from seral.vectors.view import View

# N rows · D features


def groups_of(cluster_N: np.ndarray) -> set[frozenset[int]]:
    return {frozenset(np.flatnonzero(cluster_N == cluster).tolist()) for cluster in set(cluster_N.tolist())}


@pytest.mark.parametrize(("count", "clusters"), [(1, 3), (2, 1), (9, 20), (80, 7)])
def test_clusters_are_those_of_average_linkage(count: int, clusters: int) -> None:
    x_ND = np.random.default_rng(0).normal(size=(count, 5)).astype(np.float32)
    expected = np.zeros(1) if count == 1 else None
    if expected is None:
        expected = AgglomerativeClustering(min(clusters, count), linkage="average").fit(x_ND.astype(float)).labels_
    assert groups_of(linked(View(x_ND), clusters)) == groups_of(expected)


def test_of_many_rows_some_are_linked_and_others_join_the_nearest(monkeypatch: pytest.MonkeyPatch) -> None:
    rng = np.random.default_rng(1)
    group_N = rng.integers(4, size=300)
    x_ND = (10 * np.eye(4, 6)[group_N] + rng.normal(size=(300, 6))).astype(np.float32)
    monkeypatch.setattr(neighbourhoods, "LINKED", 40)
    assert groups_of(linked(View(x_ND), 4)) == groups_of(group_N)
