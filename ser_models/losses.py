"""Training losses as pure functions: classes (hard and soft labels) and dimensions (valence, arousal, dominance)."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from typing import NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import functional

# B batch · N rows (labelled clips) · C classes · K rated dimensions (valence, arousal, dominance)
# Q clips in the queue

Loss = Callable[[Tensor, Tensor], Tensor]
"""(predicted, target) of a batch -> scalar; class weights are bound with functools.partial."""
FOCAL_FLOOR = 1e-12
"""Keeps the gradient of (1 - p)^γ finite at p = 1 for γ below 1."""
RMSE_FLOOR = 1e-12
"""Keeps the gradient of the root finite at a perfect prediction."""
CCC_FLOOR = 1e-8
"""Keeps a batch of equal targets and equal predictions from dividing zero by zero; its CCC is then 0."""

SOFT_TOLERANCE = 1e-4
"""Distance that the sum of a soft label may have from 1."""


def class_weights(label_N: Tensor, num_classes: int, weight_N: Tensor | None = None) -> Tensor:
    """Weights ∝ N / n_c whose mean over the labelled clips is 1, (N,) -> (C,). Absent classes get 0.

    `weight_N`: how much each clip counts; None = all alike. Li et al. 2023, AFTER, arXiv 2310.00283.
    """
    if label_N.numel() == 0:
        raise ValueError("class weights need at least one label, got none")
    _check_range(label_N, num_classes)
    count_C = torch.bincount(label_N, weights=weight_N, minlength=num_classes).float()
    return _balanced(count_C, label_N.numel() if weight_N is None else weight_N.sum())


def expected_class_weights(target_NC: Tensor) -> Tensor:
    """Weights of classes by their expected counts, `N / Σ_n q_nc`, of (N, C) -> (C,). Absent classes get 0."""
    return _balanced(target_NC.sum(0), target_NC.sum())


def _balanced(count_C: Tensor, total: Tensor | int) -> Tensor:
    present = count_C > 0
    return torch.where(present, total / (present.sum() * torch.where(present, count_C, 1.0)), 0.0)


def log_priors(label_N: Tensor, num_classes: int, weight_N: Tensor | None = None) -> Tensor:
    """`log((n_c + 1) / (N + C))` of the labels that are not -1, (N,) -> (C,); one added, for classes without a label.

    τ times that is added to the logits of a training, and not at a test: logit adjustment, Menon et al. 2021 (arXiv
    2007.07314), equation 10.
    """
    labelled_N = label_N >= 0
    weights = None if weight_N is None else weight_N[labelled_N]
    count_C = torch.bincount(label_N[labelled_N], weights=weights, minlength=num_classes).float() + 1
    return (count_C / count_C.sum()).log()


def weighted_classes(
    label_N: Tensor,
    num_classes: int,
    weight_N: Tensor | None = None,
    soft_NC: Tensor | None = None,
    *,
    balanced: bool = True,
) -> Tensor:
    """Classes times the class's weight and the clip's own, (N,) -> (N, C): targets of `soft_cross_entropy`.

    A class is one-hot, or the distribution in `soft_NC` (`class_distributions`); the weights are then of expected
    counts, `N / Σ_n q_nc`. A label of -1, no class known, gives zeros. `balanced=False`: all classes weigh the same.
    """
    if not num_classes:
        return torch.zeros(len(label_N), 0)
    own_N = torch.ones(len(label_N)) if weight_N is None else weight_N.float()
    if not balanced:
        return class_distributions(label_N, num_classes, soft_NC) * own_N[:, None]
    if soft_NC is not None:
        counted_NC = class_distributions(label_N, num_classes, soft_NC) * own_N[:, None]
        return counted_NC * expected_class_weights(counted_NC)
    labelled_N = label_N >= 0
    weight_C = class_weights(label_N[labelled_N], num_classes, None if weight_N is None else own_N[labelled_N])
    index_N = label_N.clamp_min(0)
    return functional.one_hot(index_N, num_classes) * (weight_C[index_N] * own_N * labelled_N)[:, None]


def class_distributions(label_N: Tensor, num_classes: int, soft_NC: Tensor | None = None) -> Tensor:
    """Labels as distributions, (N, C): shares of the votes, one-hot in rows of NaN, zeros where these have label -1.

    Raises ValueError for rows that are neither a distribution nor NaN throughout.
    """
    hot_NC = functional.one_hot(label_N.clamp_min(0), num_classes).float() * (label_N >= 0)[:, None]
    if soft_NC is None:
        return hot_NC
    if soft_NC.shape != (len(label_N), num_classes):
        raise ValueError(f"soft labels of {len(label_N)} clips and {num_classes} classes, got {tuple(soft_NC.shape)}")
    hard_N = soft_NC.isnan().all(1)
    # In terms of what must hold: a comparison with NaN is false.
    fine_N = hard_N | ((soft_NC >= 0).all(1) & ((soft_NC.sum(1) - 1).abs() < SOFT_TOLERANCE))
    if bad := torch.nonzero(~fine_N).flatten().tolist():
        raise ValueError(f"soft labels of row(s) {bad[:10]} are no distributions: {soft_NC[bad[0]].tolist()}")
    return torch.where(hard_N[:, None], hot_NC, soft_NC.float())


def cross_entropy(logits_BC: Tensor, label_B: Tensor, weight_C: Tensor | None = None) -> Tensor:
    """Class-weighted cross-entropy, `Σ_b w_{y_b} (-log p_b[y_b]) / B`, a scalar.

    Divides by B rather than by the batch's sum of weights: otherwise a clip's pull would depend on its batch mates.
    With weights of mean 1 both agree over the whole labelled set.
    """
    _check_labels(logits_BC, label_B, weight_C)
    return functional.cross_entropy(logits_BC.float(), label_B, weight=weight_C, reduction="sum") / len(label_B)


def soft_cross_entropy(logits_BC: Tensor, target_BC: Tensor, weight_C: Tensor | None = None) -> Tensor:
    """Cross-entropy against a distribution over classes (annotators' votes), `-Σ_c w_c q_c log p_c`, mean over B."""
    if target_BC.shape != logits_BC.shape:
        raise ValueError(f"soft labels {tuple(target_BC.shape)} must match logits {tuple(logits_BC.shape)}")
    _check_logits(logits_BC, weight_C)
    log_p = torch.log_softmax(logits_BC.float(), -1)
    weighted = target_BC if weight_C is None else target_BC * weight_C
    return -(weighted * log_p).sum(-1).mean()


def focal_cross_entropy(
    logits_BC: Tensor, label_B: Tensor, weight_C: Tensor | None = None, *, gamma: float = 2.0
) -> Tensor:
    """Cross-entropy that turns to what is still wrong, `Σ_b w_{y_b} (1 - p_b[y_b])^γ (-log p_b[y_b]) / B`, a scalar.

    γ = 0 is `cross_entropy`. Lin et al. 2017 (arXiv 1708.02002), equation 5.
    """
    if gamma < 0:
        raise ValueError(f"gamma must be at least 0, got {gamma}")
    _check_labels(logits_BC, label_B, weight_C)
    log_p_B = torch.log_softmax(logits_BC.float(), -1).gather(1, label_B[:, None])[:, 0]
    # 1 - p from the logarithm: near p = 1 the difference itself would lose every digit.
    loss_B = -((-torch.expm1(log_p_B)).clamp_min(FOCAL_FLOOR) ** gamma) * log_p_B
    if weight_C is not None:
        loss_B = loss_B * weight_C[label_B]
    return loss_B.mean()


def soft_focal_cross_entropy(logits_BC: Tensor, target_BC: Tensor, *, gamma: float = 2.0) -> Tensor:
    """Focal cross-entropy against weighted distributions over classes, `-Σ_c q_c (1 - p_c)^γ log p_c`, mean over B.

    Equals `focal_cross_entropy` where q is one-hot times the weight of the class.
    """
    if target_BC.shape != logits_BC.shape:
        raise ValueError(f"soft labels {tuple(target_BC.shape)} must match logits {tuple(logits_BC.shape)}")
    _check_logits(logits_BC, None)
    log_p_BC = torch.log_softmax(logits_BC.float(), -1)
    focus_BC = (-torch.expm1(log_p_BC)).clamp_min(FOCAL_FLOOR) ** gamma
    return -(target_BC * focus_BC * log_p_BC).sum(-1).mean()


class ClassLoss(NamedTuple):
    """A loss of classes for both kinds of labels."""

    hard: Callable[[Tensor, Tensor, Tensor | None], Tensor]
    """(logits (B, C), class indices (B,), class weights (C,) or None) -> scalar."""
    soft: Callable[[Tensor, Tensor], Tensor]
    """(logits (B, C), distributions times weights (B, C)) -> scalar; equals `hard` where they are one-hot."""


LOSSES: dict[str, ClassLoss] = {
    "cross_entropy": ClassLoss(hard=cross_entropy, soft=soft_cross_entropy),
    "focal": ClassLoss(hard=focal_cross_entropy, soft=soft_focal_cross_entropy),
}
"""Losses of classes by name, as `finetune.loss` chooses one."""


@torch.no_grad()
def best_temperature(logits_NC: Tensor, label_N: Tensor, weight_C: Tensor | None = None) -> float:
    """The τ in [0.05, 20] with the least cross-entropy of `logits / τ`. Guo et al. 2017 (arXiv 1706.04599)."""
    temperatures: list[float] = torch.logspace(math.log10(0.05), math.log10(20), 241).tolist()
    return min(temperatures, key=lambda temperature: float(cross_entropy(logits_NC / temperature, label_N, weight_C)))


@torch.no_grad()
def calibrated_cross_entropy(logits_NC: Tensor, label_N: Tensor, weight_C: Tensor | None = None) -> float:
    """The least cross-entropy over all temperatures, `min_τ CE(logits / τ)`. For comparing models.

    Unlike plain cross-entropy it does not punish a model for being too sure, unlike UAR it does not move in steps of
    one clip.
    """
    return float(cross_entropy(logits_NC / best_temperature(logits_NC, label_N, weight_C), label_N, weight_C))


def ccc(predicted_BK: Tensor, target_BK: Tensor) -> Tensor:
    """Concordance correlation `2·cov / (var_x + var_y + (mean_x - mean_y)²)` per dimension, (B, K) -> (K,). Lin 1989.

    Over one batch this is below the set's CCC: use a `ConcordanceQueue`, and report `metrics.ccc` over the whole set.
    """
    _check_ratings("CCC", predicted_BK, target_BK, rows=2)
    x, y = predicted_BK.float(), target_BK.float()
    mean_x, mean_y = x.mean(0), y.mean(0)
    covariance = ((x - mean_x) * (y - mean_y)).mean(0)
    spread = x.var(0, correction=0) + y.var(0, correction=0) + (mean_x - mean_y).square()
    return 2 * covariance / spread.clamp_min(CCC_FLOOR)


def ccc_loss(predicted_BK: Tensor, target_BK: Tensor) -> Tensor:
    """`mean_k (1 - CCC_k)`, a scalar in [0, 2]. Lashkarashvili et al. 2024, arXiv 2402.11747."""
    return (1 - ccc(predicted_BK, target_BK)).mean()


class ConcordanceQueue(nn.Module):
    """`ccc_loss` of a batch and of past clips, `size` in all: the CCC of a few clips is too low, .56 in the mean of
    batches of 16, and .59 of 64, where the population has .60.

    No gradient flows through past clips, of which the model may think otherwise by now; that of the batch is scaled to
    what it would be if all clips were of the batch.
    """

    def __init__(self, dimensions: int, *, size: int = 64) -> None:
        super().__init__()
        if size < 2:
            raise ValueError(f"a concordance is of 2 clips at least, got size={size}")
        self.size = size
        self.predicted_QK: Tensor
        self.target_QK: Tensor
        for name in ("predicted_QK", "target_QK"):
            self.register_buffer(name, torch.zeros(0, dimensions))

    def forward(self, predicted_BK: Tensor, target_BK: Tensor) -> Tensor:
        """The loss, a scalar; `rmse_loss` of the first clip of all. Training mode remembers the clips."""
        room = max(self.size - len(predicted_BK), 0)
        predicted_NK = torch.cat([predicted_BK.float(), self.predicted_QK[:room].to(predicted_BK.device)])
        target_NK = torch.cat([target_BK.float(), self.target_QK[:room].to(target_BK.device)])
        if self.training:
            self.predicted_QK, self.target_QK = predicted_NK.detach(), target_NK.detach()
        if len(target_NK) < 2:
            return rmse_loss(predicted_BK, target_BK)
        loss = ccc_loss(predicted_NK, target_NK)
        return loss.detach() + (loss - loss.detach()) * (len(target_NK) / len(target_BK))

    def remember(self, saved: Mapping[str, Tensor]) -> None:
        """Go on with the clips of an earlier training, from its `state_dict`."""
        self.predicted_QK, self.target_QK = saved["predicted_QK"], saved["target_QK"]


def rmse_loss(predicted_BK: Tensor, target_BK: Tensor) -> Tensor:
    """Root mean square error of each dimension, averaged, a scalar."""
    _check_ratings("RMSE", predicted_BK, target_BK, rows=1)
    return (predicted_BK.float() - target_BK.float()).square().mean(0).clamp_min(RMSE_FLOOR).sqrt().mean()


def multitask_loss(
    logits_BC: Tensor,
    label_B: Tensor,
    predicted_BK: Tensor,
    target_BK: Tensor,
    *,
    labelled_B: Tensor | None = None,
    rated_B: Tensor | None = None,
    class_loss: Loss = cross_entropy,
    dimension_loss: Loss = ccc_loss,
    dimension_weight: float = 1.0,
) -> Tensor:
    """`class_loss + dimension_weight · dimension_loss`, each over the clips that have such labels, a scalar.

    `labelled_B` and `rated_B` say which clips have a class and which have ratings, all of them where not given; what
    stands in the other rows is never looked at. A part without any clip is left out. CCC refuses a single rated clip:
    compose batches with more, or use `rmse_loss`. Lashkarashvili et al. 2024, arXiv 2402.11747: the sum.
    """
    if dimension_weight < 0:
        raise ValueError(f"dimension_weight must be at least 0, got {dimension_weight}")
    rows = [len(logits_BC), len(label_B), len(predicted_BK), len(target_BK)]
    if len(set(rows)) != 1:
        raise ValueError(f"logits, labels, predictions and ratings must be of one batch, got {rows} clips")
    labelled_B, rated_B = (_mask(mask_B, len(logits_BC), logits_BC.device) for mask_B in (labelled_B, rated_B))
    parts = []
    if bool(labelled_B.any()):
        parts.append(class_loss(logits_BC[labelled_B], label_B[labelled_B]))
    if bool(rated_B.any()):
        parts.append(dimension_weight * dimension_loss(predicted_BK[rated_B], target_BK[rated_B]))
    if not parts:
        raise ValueError(f"expected a clip with a class or with ratings, got a batch of {len(logits_BC)} without any")
    return torch.stack(parts).sum()


def _mask(has_label_B: Tensor | None, rows: int, device: torch.device) -> Tensor:
    if has_label_B is None:
        return torch.ones(rows, dtype=torch.bool, device=device)
    if has_label_B.dtype != torch.bool or has_label_B.shape != (rows,):
        raise ValueError(f"a mask must be {rows} booleans, got {tuple(has_label_B.shape)} of {has_label_B.dtype}")
    return has_label_B


def _check_logits(logits_BC: Tensor, weight_C: Tensor | None) -> None:
    if logits_BC.ndim != 2 or not logits_BC.numel():
        raise ValueError(f"expected logits (B, C) of at least one clip, got {tuple(logits_BC.shape)}")
    if weight_C is not None and weight_C.shape != logits_BC.shape[1:]:
        raise ValueError(f"{logits_BC.shape[1]} classes need as many weights, got shape {tuple(weight_C.shape)}")


def _check_labels(logits_BC: Tensor, label_B: Tensor, weight_C: Tensor | None) -> None:
    _check_logits(logits_BC, weight_C)
    if label_B.shape != logits_BC.shape[:1]:
        raise ValueError(f"{len(logits_BC)} clips need as many labels, got shape {tuple(label_B.shape)}")
    _check_range(label_B, logits_BC.shape[1])


def _check_range(label_N: Tensor, num_classes: int) -> None:
    """Torch itself would pass over a label of -100 in silence."""
    low, high = int(label_N.min()), int(label_N.max())
    if low < 0 or high >= num_classes:
        raise ValueError(f"labels must lie in 0..{num_classes - 1}, got {low}..{high}")


def _check_ratings(name: str, predicted_BK: Tensor, target_BK: Tensor, *, rows: int) -> None:
    if predicted_BK.shape != target_BK.shape or len(predicted_BK) < rows or not predicted_BK.numel():
        raise ValueError(
            f"{name} needs two equal shapes of at least {rows} row{'s' * (rows > 1)}, "
            f"got {tuple(predicted_BK.shape)} and {tuple(target_BK.shape)}"
        )
