"""Fine-tuning a WAP-Transformer and its classifier on labelled utterances, from cached frames of the frozen encoder.

The linear layer is fitted first, on what the adapter gives at the start; then everything above the encoder is trained
together, and the best epoch on dev counts, the start included ("linear probe, then fine-tune", Kumar et al. 2022, arXiv
2202.10054). Every epoch's batches, masks and dropout are drawn from (seed, epoch) alone.
"""

# N utterances · T frames · D features · C classes
from __future__ import annotations

import copy
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from pydantic import Field
from torch import Tensor, nn
from torch.nn.functional import one_hot

from ser_models import metrics
from ser_models.adapters.wap import WapTransformer
from ser_models.fitting import FitOptions, PooledSet, fit_head
from ser_models.heads import LayerPool
from ser_models.losses import calibrated_cross_entropy, class_weights, soft_cross_entropy
from ser_models.pooling import masked_mean_std
from ser_models.training import MAX_GRAD_NORM, mix, set_rate, shuffled_batches, time_masks
from ser_models.wap_classifier import Pooling, WapClassifier, trained_parameters
from seral.errors import TrainError
from seral.features.batches import frame_batches, pad_frames
from seral.options import Options

Frames = dict[str, NDArray[np.float16]]


class WapFinetuneOptions(Options):
    """How adapter and classifier learn from labels."""

    epochs: int = Field(default=8, ge=0)
    """Epochs at most; 0 = the fitted linear layer on the adapter as it is."""
    patience: int = Field(default=4, ge=1)
    """Epochs without a lower dev loss after which training ends."""
    lr: float = Field(default=1e-4, gt=0)
    """Peak learning rate of the adapter (AdamW, short warm-up, then linear to 0)."""
    head_lr: float = Field(default=2e-4, gt=0)
    """Peak learning rate of frame weights and linear layer."""
    weight_decay: float = Field(default=0.01, ge=0)
    batch_size: int = Field(default=16, ge=1)
    """Utterances in a step."""
    mixup: float = Field(default=0.0, ge=0)
    """Alpha of manifold mixup; 0 = off, which is better on EmoDB's dev speakers."""
    time_mask_prob: float = Field(default=0.08, ge=0, lt=1)
    """Share of frames hidden from training in spans (SpecAugment's time masks)."""
    time_mask_frames: int = Field(default=15, ge=1)
    """Length of a span in frames."""
    dropout: float = Field(default=0.2, ge=0, lt=1)
    """Dropout before the linear layer."""
    l2: float = Field(default=0.03, ge=0)
    """Ridge penalty on the linear layer where it is fitted, before training."""
    std_gain: float = Field(default=0.4, ge=0)
    """Weight of the pooled deviations beside the means."""


@dataclass(frozen=True, kw_only=True)
class LabelledPart:
    """Utterances and what was felt in them."""

    ids: Sequence[str]
    label_N: NDArray[np.int64]


def start_classifier(
    wap: WapTransformer,
    frames: Frames,
    train: LabelledPart,
    *,
    unlabelled: Sequence[str],
    classes: int,
    pooling: Pooling,
    seed: int,
    options: WapFinetuneOptions,
) -> WapClassifier:
    """A classifier before its first step: `unlabelled` ids standardise what it pools, its linear layer is fitted."""
    generator = torch.Generator().manual_seed(seed)
    model = WapClassifier(
        wap, classes, pooling=pooling, std_gain=options.std_gain, dropout=options.dropout, generator=generator
    )
    pool = LayerPool(1, wap.width, std_gain=model.pool.std_gain)
    pool.fit(*_statistics(wap, frames, unlabelled))
    mean_NLD, std_NLD = _statistics(wap, frames, train.ids)
    labelled = PooledSet(mean_NLD=mean_NLD, std_NLD=std_NLD, label_N=torch.from_numpy(train.label_N))
    probe = FitOptions(l2=options.l2, std_gain=pool.std_gain, learn_layers=False)
    fitted = fit_head(labelled, classes, pool=pool, options=probe)
    model.adopt(fitted.pool, fitted.head)
    return model.to(_device(wap))


def finetune_wap(
    model: WapClassifier,
    frames: Frames,
    train: LabelledPart,
    dev: LabelledPart,
    *,
    seed: int,
    options: WapFinetuneOptions,
) -> list[dict[str, float]]:
    """Train a classifier in place and leave it as it was in its best epoch on dev; returns the scores of every epoch.

    The first are the start's, without a training loss.
    """
    adapter, above = trained_parameters(model)
    groups = [{"params": adapter, "lr": options.lr}, {"params": above, "lr": options.head_lr}]
    optimiser = torch.optim.AdamW(groups, weight_decay=options.weight_decay)
    for group in optimiser.param_groups:
        group["peak"] = group["lr"]
    history, best = [score_dev(model, frames, dev)], copy.deepcopy(model.state_dict())
    for epoch in range(options.epochs):
        loss = train_epoch(model, optimiser, frames, train, epoch=epoch, seed=seed, options=options)
        history.append({"loss": loss, **score_dev(model, frames, dev)})
        dev_loss = [scores["dev_loss"] for scores in history]
        if dev_loss[-1] < min(dev_loss[:-1]):
            best = copy.deepcopy(model.state_dict())
        if len(dev_loss) - 1 - int(np.argmin(dev_loss)) >= options.patience:
            break
    model.load_state_dict(best)
    return history


@torch.inference_mode()
def predict(model: WapClassifier, frames: Mapping[str, NDArray[np.float16]], ids: Sequence[str]) -> Tensor:
    """Logits of utterances, (N, C)."""
    model.eval()
    device, found = _device(model), dict[str, Tensor]()
    for batch in frame_batches(ids, frames):
        hidden_BTD, mask_BT = (tensor.to(device) for tensor in pad_frames([frames[name] for name in batch]))
        found |= dict(zip(batch, model(hidden_BTD, mask_BT).float().cpu(), strict=True))
    return torch.stack([found[name] for name in ids])


def score_dev(model: WapClassifier, frames: Frames, dev: LabelledPart) -> dict[str, float]:
    """Calibrated loss, by which the best epoch is chosen, and UAR."""
    logits_NC, label_N = predict(model, frames, dev.ids), torch.from_numpy(dev.label_N)
    return {
        "dev_loss": calibrated_cross_entropy(logits_NC, label_N, class_weights(label_N, logits_NC.shape[1])),
        "dev_uar": metrics.uar(dev.label_N, logits_NC.argmax(1).numpy()),
    }


def train_epoch(
    model: WapClassifier,
    optimiser: torch.optim.Optimizer,
    frames: Frames,
    train: LabelledPart,
    *,
    epoch: int,
    seed: int,
    options: WapFinetuneOptions,
) -> float:
    """One pass over the labelled part; returns the mean loss."""
    rng, device = np.random.default_rng([seed, epoch]), _device(model)
    torch.manual_seed(int(rng.integers(2**31)))  # of dropout
    model.train()
    label_of = dict(zip(train.ids, train.label_N.tolist(), strict=True))
    classes = model.head.output.out_features
    weight_C = class_weights(torch.from_numpy(train.label_N), classes).to(device)
    total, batches = 0.0, list(shuffled_batches(train.ids, frames, options.batch_size, rng))
    for number, ids in enumerate(batches):
        set_rate(optimiser, epoch + number / len(batches), options.epochs)
        hidden_BTD, mask_BT = pad_frames([frames[name] for name in ids])
        mask_BT = time_masks(mask_BT, options.time_mask_prob, options.time_mask_frames, rng)
        label_B = torch.tensor([label_of[name] for name in ids], device=device)
        target_BC = one_hot(label_B, classes) * weight_C[label_B][:, None]
        logits_BC = model(hidden_BTD.to(device), mask_BT.to(device))
        loss = soft_cross_entropy(*mix([logits_BC, target_BC], options.mixup, rng))
        optimiser.zero_grad()
        loss.backward()  # type: ignore[no-untyped-call]  # torch leaves Tensor.backward unannotated
        nn.utils.clip_grad_norm_([p for part in trained_parameters(model) for p in part], MAX_GRAD_NORM)
        optimiser.step()
        value = float(loss.detach())
        if not np.isfinite(value):
            raise TrainError(f"the loss is {value} in epoch {epoch}; utterances: {', '.join(ids)}")
        total += value * len(ids)
    return total / len(train.ids)


@torch.no_grad()
def _statistics(wap: WapTransformer, frames: Frames, ids: Sequence[str]) -> tuple[Tensor, Tensor]:
    """Plain mean and deviation of Z of every utterance, (N, 1, D) twice: what the classifier pools at the start."""
    wap.eval()
    device, found = _device(wap), dict[str, tuple[Tensor, Tensor]]()
    for batch in frame_batches(ids, frames):
        hidden_BTD, mask_BT = (tensor.to(device) for tensor in pad_frames([frames[name] for name in batch]))
        mean_LBD, std_LBD = (part.cpu() for part in masked_mean_std(wap(hidden_BTD, mask_BT)[None], mask_BT))
        found |= {name: (mean_LBD[:, row], std_LBD[:, row]) for row, name in enumerate(batch)}
    mean_NLD, std_NLD = (torch.stack([found[name][part] for name in ids]) for part in (0, 1))
    return mean_NLD, std_NLD


def _device(model: nn.Module) -> torch.device:
    return next(model.parameters()).device
