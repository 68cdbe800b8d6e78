"""The choice between features as they are and features less their speakers' means, from what is labelled."""

# M labelled rows · C classes · G groups (speakers)
from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import torch
from numpy.typing import NDArray

from ser_models.fitting import FitOptions, PooledSet, Prior, fit_head, predict_pooled
from ser_models.heads import LayerPool
from ser_models.losses import class_weights

FOLDS = 5
"""Groups of speakers that are left out in turn."""
FEWEST = 2
"""Speakers, at least, among the labelled clips, for any of them to be left out."""
UNMIXED = 0.22
"""Share of the entropy of classes dealt by chance that may be missing within groups whose means are taken away.
Predicted classes lack .04 to .16 of it on EmoDB, RAVDESS and nEMO, and .32 to .48 on URDU, whose speakers show one
emotion each: this lies in between, and has seen no other corpus."""


def choose_normalisation(
    rows: Mapping[str, PooledSet],
    num_classes: int,
    speaker_M: NDArray[np.integer],
    pools: Mapping[str, LayerPool],
    priors: Mapping[str, Prior | None],
    leaning: tuple[str, float],
    options: FitOptions,
) -> tuple[str, dict[str, float]]:
    """The normalisation under which heads tell best the labels of speakers they have not heard; the mean loss of each.

    `rows`, `pools` and `priors` hold the same labelled clips under every normalisation. `leaning`: the one that was
    chosen without labels, and the standard errors by which another must have a lower class-weighted cross-entropy.
    """
    favourite, clearly = leaning
    speakers, group_M = np.unique(speaker_M, return_inverse=True)
    if len(speakers) < FEWEST:
        return favourite, {}
    part_M = deal(group_M, FOLDS)
    losses = {
        name: _left_out_losses(rows[name], num_classes, part_M, pools[name], priors.get(name), options) for name in rows
    }
    best = min(losses, key=lambda name: losses[name].mean())
    gain_M = losses[favourite] - losses[best]
    error = gain_M.std(ddof=1) / np.sqrt(len(gain_M))
    means = {name: float(loss_M.mean()) for name, loss_M in losses.items()}
    return (best if gain_M.mean() > clearly * error else favourite), means


def deal(group_M: NDArray[np.integer], parts: int) -> NDArray[np.int64]:
    """The part of each row, (M,): whole groups are dealt to parts of about as many rows, the largest first.

    No more parts than there are groups.
    """
    size_G = np.bincount(group_M)
    parts = min(parts, int((size_G > 0).sum()))
    total, part_G = np.zeros(parts, np.int64), np.zeros(len(size_G), np.int64)
    for group in np.argsort(-size_G, kind="stable").tolist():
        part_G[group] = int(total.argmin())
        total[part_G[group]] += size_G[group]
    part_M: NDArray[np.int64] = part_G[group_M]
    return part_M


def _left_out_losses(
    rows: PooledSet,
    num_classes: int,
    part_M: NDArray[np.int64],
    pool: LayerPool,
    prior: Prior | None,
    options: FitOptions,
) -> NDArray[np.float64]:
    """Class-weighted cross-entropy of every clip by a head of the other parts, (M,)."""
    weight_C, loss_M = class_weights(rows.label_N, num_classes), np.zeros(len(part_M))
    for part in np.unique(part_M).tolist():
        out_M = torch.from_numpy(part_M == part)
        fitted = fit_head(rows.only(~out_M), num_classes, pool=pool, prior=prior, options=options)
        left = rows.only(out_M)
        logits_NC = predict_pooled(fitted, left.mean_NLD, left.std_NLD, left.text_NE)
        loss_N = torch.nn.functional.cross_entropy(logits_NC, left.label_N, weight=weight_C, reduction="none")
        loss_M[part_M == part] = loss_N.double().numpy()
    return loss_M


def class_mixing(
    class_N: NDArray[np.integer], group_N: NDArray[np.integer], num_classes: int, rng: np.random.Generator
) -> tuple[float, float]:
    """Mean entropy, in nats, of the classes within groups, and with clips dealt to groups by chance.

    Groups are speakers or corpora. Speakers of one emotion each have much less of the first, and their means are their
    emotions.
    """
    within = _mean_entropy(class_N, group_N, num_classes)
    dealt = [_mean_entropy(rng.permutation(class_N), group_N, num_classes) for _ in range(20)]
    return within, float(np.mean(dealt))


def are_mixed(within: float, dealt: float) -> bool:
    """Whether classes are mixed enough within groups for their means to be taken away."""
    return within >= (1 - UNMIXED) * dealt


def lean_by_corpora(label_M: NDArray[np.integer], corpus_M: NDArray[np.integer] | None, num_classes: int) -> str:
    """The normalisation to lean to without a source: the means of corpora, if there are several and all mix labels."""
    if corpus_M is None:
        return "none"
    rng = np.random.default_rng(0)
    return "corpus" if are_mixed(*class_mixing(label_M, corpus_M, num_classes, rng)) else "none"


def _mean_entropy(class_N: NDArray[np.integer], group_N: NDArray[np.integer], num_classes: int) -> float:
    groups, row_N = np.unique(group_N, return_inverse=True)
    count_GC = np.zeros((len(groups), num_classes))
    np.add.at(count_GC, (row_N, class_N), 1)
    share_GC = count_GC / count_GC.sum(1, keepdims=True)
    logs_GC = np.log(share_GC, out=np.zeros_like(share_GC), where=share_GC > 0)
    return float(-(share_GC * logs_GC).sum(1).mean())
