"""Relevance of the layers of a frozen encoder to a target: three measures on cached pooled features.

de Oliveira et al. 2023, arXiv 2305.19184: shallow layers matter for arousal, deep ones for valence.
Differs from the paper, where the source is silent: features are standardised per layer before they are weighed, and the
probes are ridge-penalised and fitted to the optimum. So weights need no weighing by the mean norm of a layer: after
standardising, all have the same.
"""

# N clips · L hidden states (encoder layers + 1) · D features · C classes
from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from ser_models.defaults import L2
from ser_models.fitting import (
    FitOptions,
    FitResult,
    PooledRows,
    PooledSet,
    RatedSet,
    fit_dimensions,
    fit_head,
    predict_pooled,
)

LAYER_L2 = 0.003
"""Ridge penalty on the layer weights before the softmax: only keeps them finite, since they are what is measured."""


@dataclass(frozen=True, kw_only=True)
class Relevance:
    """Weights and predictions of the probes on one division into training and test clips."""

    weight_L: NDArray[np.float64]
    """Learned softmax weights of the hidden states, all of them in the model."""
    single_LN: NDArray[np.float32]
    """Predictions of the test clips by a probe on each hidden state alone: classes, or ratings."""
    truncated_LN: NDArray[np.float32]
    """By a probe on the weighted sum of the hidden states up to each."""


def layer_relevance(
    train: PooledSet | RatedSet, test: PooledRows, *, num_classes: int = 0, l2: float = L2
) -> Relevance:
    """Fit all probes of one target on the training clips and predict the test clips with them.

    The target is a class (`PooledSet`, `num_classes`) or one dimension (`RatedSet` with one column). 2 L fits, with a
    ridge penalty `l2` on the weights of each probe.
    """
    options = FitOptions(l2=l2, layer_l2=LAYER_L2)
    states = range(train.mean_NLD.shape[1])
    singles = [_fit(train, [state], num_classes, options) for state in states]
    prefixes = [_fit(train, range(state + 1), num_classes, options) for state in states]
    weight_L = torch.softmax(prefixes[-1].pool.layer_weight, 0).detach().double().cpu().numpy()
    return Relevance(
        weight_L=weight_L,
        single_LN=np.stack([_predict(fit, test, [state]) for state, fit in zip(states, singles, strict=True)]),
        truncated_LN=np.stack(
            [_predict(fit, test, range(state + 1)) for state, fit in zip(states, prefixes, strict=True)]
        ),
    )


def centre_of_mass(relevance_L: NDArray[np.floating]) -> float:
    """Mean depth of what is relevant, `Σ_l l · rel_l / (L Σ_l rel_l)`, with depth 0 the input and 1 the last layer."""
    if relevance_L.ndim != 1 or len(relevance_L) < 2:
        raise ValueError(f"expected the relevance of at least 2 hidden states, got shape {relevance_L.shape}")
    if not np.isfinite(relevance_L).all() or (relevance_L < 0).any() or not relevance_L.any():
        raise ValueError(f"relevance must be finite, not negative and somewhere above 0, got {relevance_L.tolist()}")
    depth_L = np.linspace(0, 1, len(relevance_L))
    return float(depth_L @ relevance_L / relevance_L.sum())


def above(score_XL: NDArray[np.floating], floor: float) -> NDArray[np.float64]:
    """Scores of single layers, (..., L), as relevance: what is above the floor (chance for UAR, 0 for CCC)."""
    return np.maximum(score_XL.astype(np.float64) - floor, 0)


def gains(score_XL: NDArray[np.floating], floor: float) -> NDArray[np.float64]:
    """Scores of truncated encoders, (..., L), as relevance: what each layer adds to the best of the shallower ones."""
    best_XL = np.maximum.accumulate(above(score_XL, floor), axis=-1)
    return np.diff(best_XL, axis=-1, prepend=0)


def _fit(train: PooledSet | RatedSet, states: Sequence[int], num_classes: int, options: FitOptions) -> FitResult:
    mean_NLD, std_NLD = (part[:, list(states)] for part in (train.mean_NLD, train.std_NLD))
    train = replace(train, mean_NLD=mean_NLD, std_NLD=std_NLD, text_NE=None)
    if isinstance(train, PooledSet):
        return fit_head(train, num_classes, options=options)
    if train.target_NK.shape[1] != 1:
        raise ValueError(f"expected one dimension at a time, got {train.target_NK.shape[1]}")
    return fit_dimensions(train, options=options)


def _predict(fit: FitResult, test: PooledRows, states: Sequence[int]) -> NDArray[np.float32]:
    output_NO = predict_pooled(fit, test.mean_NLD[:, list(states)], test.std_NLD[:, list(states)])
    predicted_N: Tensor = output_NO[:, 0] if output_NO.shape[1] == 1 else output_NO.argmax(1)
    return predicted_N.float().cpu().numpy()
