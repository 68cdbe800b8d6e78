"""A head for a corpus that has no label, from corpora that have: what labels of the target then have to overcome.

Rows of every corpus are brought to the mean and spread of the target first (ser_models.alignment). The worth of heads
of the others on each corpus is what may be expected on another one. It also says, without a label of the target,
whether the head had better be held to zero otherwise than usually. Held too loosely it is sure of itself, and labels
overcome it late.
"""

# N rows (labelled clips) · G groups (corpora) · C classes
from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor

from ser_models.fitting import FitOptions, FitResult, PooledSet, fit_head, predict_pooled
from ser_models.heads import LayerPool
from ser_models.intervals import mean_interval
from ser_models.losses import best_temperature, class_distributions
from ser_models.metrics import uar

USUAL_L2 = 0.3
"""Ridge penalty of a head of other corpora; found by leaving out one of four (docs/results/few-labels.md)."""
OTHER_L2 = (0.03, 0.1, 1.0)
"""Penalties that take its place where they are clearly better."""
LABELS_OF_L2 = 100.0
"""Labels that a head is worth as a prior, for each 1 of its penalty: the harder it was held to zero, the shorter are
its weights, and the less must they move for a label to be explained."""


@dataclass(frozen=True, kw_only=True)
class SourceHead:
    """A head of labelled corpora, and what such heads are worth on a corpus they have not seen."""

    fitted: FitResult
    """Classes without a label have zeros in it."""
    l2: float
    left_out_uar: Mapping[str, float]
    """UAR on each corpus by a head of the others, over the classes that both have; empty for one corpus. Judged by the
    class of a clip: those on which votes are tied have none."""
    left_out_NC: Mapping[str, Tensor]
    """Probabilities of the classes of each corpus's rows by such a head, at `temperature`; empty for one corpus."""
    temperature: float
    """Divisor of the logits under which these heads are as sure as they are right; 1 for one corpus."""


class _LeftOut(NamedTuple):
    """A corpus by a head of the others."""

    logits_NC: Tensor
    label_N: Tensor
    shared_N: Tensor
    """Clips whose class the others have too."""


def fit_source_head(
    corpora: Mapping[str, PooledSet], num_classes: int, *, pool: LayerPool, options: FitOptions | None = None
) -> SourceHead:
    """Fit one head on the labelled rows of all corpora, on the layer weights of `pool`, which are not changed.

    Rows have a class, or shares of the votes, ties among them. Raises ValueError where no corpus has a label.
    """
    options = replace(options or FitOptions(), learn_layers=False)
    corpora = {name: rows for name, rows in corpora.items() if len(rows.label_N)}
    if not corpora:
        raise ValueError("a head of other corpora needs at least one with a label, got none")
    tried = {l2: _left_out(corpora, num_classes, pool, replace(options, l2=l2)) for l2 in (USUAL_L2, *OTHER_L2)}
    scores = {l2: {name: _uar(*_judged(part)) for name, part in parts.items()} for l2, parts in tried.items()}
    best = clearly_best(scores)
    fitted = fit_head(together(corpora), num_classes, pool=pool, options=replace(options, l2=best))
    present_C = torch.isin(torch.arange(num_classes), classes_of(corpora, num_classes))
    with torch.no_grad():
        for part in (fitted.head.output.weight, fitted.head.output.bias):
            part[~present_C] = 0
    temperature, left_out = 1.0, tried[best]
    if left_out:
        logits_NC, label_N = (torch.cat(parts) for parts in zip(*map(_judged, left_out.values()), strict=True))
        temperature = best_temperature(logits_NC, label_N)
    return SourceHead(
        fitted=fitted,
        l2=best,
        left_out_uar=scores[best],
        left_out_NC={name: (part.logits_NC / temperature).softmax(1) for name, part in left_out.items()},
        temperature=temperature,
    )


def clearly_best(scores: Mapping[float, Mapping[str, float]]) -> float:
    """The usual penalty, or the best of those whose mean gain over the corpora has a 95 % interval above zero."""
    usual, gain_of = scores[USUAL_L2], {USUAL_L2: 0.0}
    for l2 in OTHER_L2:
        gain_G = np.array([scores[l2][name] - uar for name, uar in usual.items()])
        if mean_interval(gain_G).low > 0:  # NaN of fewer than two
            gain_of[l2] = float(gain_G.mean())
    return max(gain_of, key=lambda l2: gain_of[l2])


def _left_out(
    corpora: Mapping[str, PooledSet], num_classes: int, pool: LayerPool, options: FitOptions
) -> dict[str, _LeftOut]:
    """Outputs for each corpus that shares a class with others, by a head of these."""
    left_out = {}
    for name, rows in corpora.items():
        others = {other: part for other, part in corpora.items() if other != name}
        shared_N = torch.isin(rows.label_N, classes_of(others, num_classes))
        if not bool(shared_N.any()):
            continue
        fitted = fit_head(together(others), num_classes, pool=pool, options=options)
        logits_NC = predict_pooled(fitted, rows.mean_NLD, rows.std_NLD, rows.text_NE)
        left_out[name] = _LeftOut(logits_NC, rows.label_N, shared_N)
    return left_out


def _judged(part: _LeftOut) -> tuple[Tensor, Tensor]:
    """Logits and classes of the clips that can be judged."""
    return part.logits_NC[part.shared_N], part.label_N[part.shared_N]


def _uar(logits_NC: Tensor, label_N: Tensor) -> float:
    return uar(label_N.numpy(), logits_NC.argmax(1).numpy())


def classes_of(corpora: Mapping[Any, PooledSet], num_classes: int) -> Tensor:
    """The classes that clips have, or have a share of."""
    sum_C = sum(
        (class_distributions(rows.label_N, num_classes, rows.soft_NC).sum(0) for rows in corpora.values()),
        torch.zeros(num_classes),
    )
    return torch.nonzero(sum_C).flatten()


def together(corpora: Mapping[Any, PooledSet]) -> PooledSet:
    """The rows of all corpora as one set, each as much as any other."""
    parts = list(corpora.values())
    texts = [part.text_NE for part in parts if part.text_NE is not None]
    soft = [part.soft_NC for part in parts if part.soft_NC is not None]
    width = soft[0].shape[1] if soft else 0
    shares = [torch.full((len(p.label_N), width), torch.nan) if p.soft_NC is None else p.soft_NC for p in parts]
    return PooledSet(
        mean_NLD=torch.cat([part.mean_NLD for part in parts]),
        std_NLD=torch.cat([part.std_NLD for part in parts]),
        text_NE=torch.cat(texts) if len(texts) == len(parts) else None,
        label_N=torch.cat([part.label_N for part in parts]),
        soft_NC=torch.cat(shares) if soft else None,
    )
