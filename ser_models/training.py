"""Parts that trainings of frames share: batches, masks, mixup, the learning rate. Pure torch."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

WARMUP_SHARE = 0.1


MAX_GRAD_NORM = 1.0


def shuffled_batches(
    ids: Sequence[str], frames: dict[str, NDArray[np.float16]], size: int, rng: np.random.Generator
) -> Iterator[list[str]]:
    """Batches of similar length in random order: shuffled, sorted by length in windows of 8 batches, shuffled again."""
    order = [sorted(ids)[index] for index in rng.permutation(len(ids))]
    batches = []
    for begin in range(0, len(order), 8 * size):
        window = sorted(order[begin : begin + 8 * size], key=lambda name: len(frames[name]))
        batches += [window[at : at + size] for at in range(0, len(window), size)]
    return (batches[index] for index in rng.permutation(len(batches)))


def time_masks(mask_BT: Tensor, prob: float, length: int, rng: np.random.Generator) -> Tensor:
    """Hide spans of frames from a batch: about `prob` of each clip, never more than half of it (SpecAugment).

    Differs from the paper: hidden frames are left out of attention and pooling instead of being set to zero.
    """
    out = mask_BT.clone()
    for row, frames in enumerate(mask_BT.sum(1).tolist()):
        span = min(length, frames // 2)
        spans = int(prob * frames / max(1, span) + rng.random())
        for _ in range(spans if span else 0):
            begin = int(rng.integers(0, frames - span + 1))
            if int(out[row].sum()) - span >= frames // 2:
                out[row, begin : begin + span] = False
    return out


def mix(rows: Sequence[Tensor], alpha: float, rng: np.random.Generator) -> list[Tensor]:
    """Mix each clip of a batch with another, `λ·own + (1 - λ)·other`, λ ~ Beta(alpha, alpha); alpha 0 leaves them.

    Every tensor (B, ...) is mixed alike; of booleans, which say what is known of a clip, both must hold. With a linear
    head, mixing outputs is mixing embeddings: manifold mixup, Verma et al. 2019, arXiv 1806.05236.
    """
    if not alpha:
        return list(rows)
    size, device = len(rows[0]), rows[0].device
    share_B1 = torch.from_numpy(rng.beta(alpha, alpha, (size, 1))).to(rows[0])
    other_B = torch.from_numpy(rng.permutation(size)).to(device)
    return [
        part & part[other_B] if part.dtype == torch.bool else share_B1 * part + (1 - share_B1) * part[other_B]
        for part in rows
    ]


def rate_scale(share: float) -> float:
    """Share of the peak rate after a share of the training: linear over a tenth of it, then linear to zero."""
    return min(1.0, (share + 0.01) / WARMUP_SHARE) if share < WARMUP_SHARE else (1 - share) / (1 - WARMUP_SHARE)


def set_rate(optimiser: torch.optim.Optimizer, epoch: float, epochs: int) -> None:
    """Give every group of an optimiser its rate of this moment: its peak, scaled by `rate_scale`."""
    scale = rate_scale(epoch / epochs)
    for group in optimiser.param_groups:
        group["lr"] = group["peak"] * scale
