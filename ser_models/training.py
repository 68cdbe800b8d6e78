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


def balanced_draw(label_N: NDArray[np.int64], rng: np.random.Generator) -> NDArray[np.int64]:
    """Rows of an epoch, (N,), drawn with replacement so that every class is as likely; label -1 counts as a class."""
    _, class_N, count_C = np.unique(label_N, return_inverse=True, return_counts=True)
    chance_N = 1 / (len(count_C) * count_C[class_N])
    return rng.choice(len(label_N), len(label_N), p=chance_N)


def rate_scale(share: float, warmup: float = WARMUP_SHARE, *, decay: bool = True) -> float:
    """Share of the peak rate after a share of the training: linear over the warm-up, then linear to zero, or flat."""
    if share < warmup:
        return min(1.0, (share + 0.01) / warmup)
    return (1 - share) / (1 - warmup) if decay else 1.0


def set_rate(optimiser: torch.optim.Optimizer, scale: float) -> None:
    """Give every group of an optimiser its rate of this moment: its peak, scaled."""
    for group in optimiser.param_groups:
        group["lr"] = group["peak"] * scale
