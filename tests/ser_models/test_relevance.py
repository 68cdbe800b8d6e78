"""Layer relevance: the layer that was given the answer is found by all three measures."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from ser_models.fitting import PooledRows, PooledSet, RatedSet
from ser_models.metrics import ccc, uar
from ser_models.relevance import above, centre_of_mass, gains, layer_relevance

CLIPS, STATES, WIDTH, KNOWING = 120, 5, 6, 3


def features(signal_N: torch.Tensor, seed: int) -> PooledRows:
    """Noise in all hidden states but one, whose first feature follows the signal; scales differ between states."""
    generator = torch.Generator().manual_seed(seed)
    mean_NLD = torch.randn(len(signal_N), STATES, WIDTH, generator=generator)
    mean_NLD[:, KNOWING, 0] += 3 * signal_N
    mean_NLD = mean_NLD * torch.tensor([1.0, 10.0, 0.1, 1.0, 100.0])[:, None]
    return PooledRows(mean_NLD=mean_NLD, std_NLD=torch.rand(len(signal_N), STATES, WIDTH, generator=generator))


def test_the_layer_that_knows_the_class_is_found() -> None:
    label_N = torch.arange(CLIPS) % 3
    train, test = (features(label_N.float() - 1, seed) for seed in (0, 1))
    training = PooledSet(mean_NLD=train.mean_NLD, std_NLD=train.std_NLD, label_N=label_N)
    relevance = layer_relevance(training, test, num_classes=3)
    assert relevance.weight_L.sum() == pytest.approx(1)
    assert relevance.weight_L.argmax() == KNOWING
    single_L = np.array([uar(label_N.numpy(), predicted_N.astype(int)) for predicted_N in relevance.single_LN])
    truncated_L = np.array([uar(label_N.numpy(), predicted_N.astype(int)) for predicted_N in relevance.truncated_LN])
    assert single_L.argmax() == KNOWING
    assert single_L[KNOWING] > 0.8
    assert np.delete(single_L, KNOWING).max() < 0.55
    assert truncated_L[:KNOWING].max() < 0.55 < 0.8 < truncated_L[KNOWING:].min()
    assert gains(truncated_L, 1 / 3).argmax() == KNOWING
    assert abs(centre_of_mass(above(single_L, 1 / 3)) - KNOWING / (STATES - 1)) < 0.15


def test_the_layer_that_knows_the_rating_is_found() -> None:
    rating_N = torch.linspace(1, 5, CLIPS)[torch.randperm(CLIPS, generator=torch.Generator().manual_seed(2))]
    train, test = (features(rating_N - 3, seed) for seed in (0, 1))
    training = RatedSet(mean_NLD=train.mean_NLD, std_NLD=train.std_NLD, target_NK=rating_N[:, None])
    relevance = layer_relevance(training, test)
    single_L = np.array([ccc(rating_N.numpy(), predicted_N) for predicted_N in relevance.single_LN])
    assert relevance.weight_L.argmax() == single_L.argmax() == KNOWING
    assert single_L[KNOWING] > 0.9
    two = RatedSet(mean_NLD=train.mean_NLD, std_NLD=train.std_NLD, target_NK=rating_N[:, None].repeat(1, 2))
    with pytest.raises(ValueError, match="one dimension at a time, got 2"):
        layer_relevance(two, test)


def test_centre_of_mass_runs_from_the_input_to_the_last_layer() -> None:
    assert centre_of_mass(np.array([1.0, 0, 0])) == 0
    assert centre_of_mass(np.array([0, 0, 2.0])) == 1
    assert centre_of_mass(np.ones(7)) == pytest.approx(0.5)
    assert centre_of_mass(np.array([0, 3.0, 1.0])) == pytest.approx(0.625)
    np.testing.assert_allclose(above(np.array([0.2, 0.5]), 0.25), [0, 0.25])
    np.testing.assert_allclose(gains(np.array([0.3, 0.2, 0.6, 0.5]), 0.25), [0.05, 0, 0.3, 0], atol=1e-12)
    for wrong in (np.zeros(3), np.array([1.0, -1.0]), np.array([np.nan, 1.0]), np.ones(1)):
        with pytest.raises(ValueError, match=r"somewhere above 0|at least 2 hidden states"):
            centre_of_mass(wrong)
