"""From frames to one vector per clip and from layers to one layer, without ever looking at padding."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from ser_models.defaults import MEAN_STD

# L hidden states (index 0 = input of the first transformer layer) · B batch · T frames · D features · U embedding

VARIANCE_FLOOR = 1e-10
"""Below it the gradient of the square root explodes: a constant feature has std 1e-5 and no gradient."""


def masked_mean_std(hidden_LBTD: Tensor, mask_BT: Tensor) -> tuple[Tensor, Tensor]:
    """Mean and population standard deviation over the real frames of each clip, (L, B, T, D) -> two (L, B, D) in fp32.

    Two passes (mean first, then squares about it), because `E[h²] - E[h]²` loses every digit when |mean| >> std.
    Whatever stands in padded frames, NaN included, has no influence.
    """
    _check(hidden_LBTD, mask_BT)
    frames = mask_BT.sum(1).to(torch.float32)[None, :, None]
    keep = mask_BT[None, :, :, None]
    hidden = torch.where(keep, hidden_LBTD.float(), 0.0)
    mean_LBD = hidden.sum(2) / frames
    centred = torch.where(keep, hidden - mean_LBD[:, :, None], 0.0)
    variance_LBD = centred.square().sum(2) / frames
    return mean_LBD, variance_LBD.clamp_min(VARIANCE_FLOOR).sqrt()


def mean_std(hidden_BTD: Tensor, mask_BT: Tensor) -> Tensor:
    """Mean and standard deviation of one layer's frames side by side, (B, T, D) -> (B, 2D), see `masked_mean_std`."""
    mean_1BD, std_1BD = masked_mean_std(hidden_BTD[None], mask_BT)
    return torch.cat([mean_1BD[0], std_1BD[0]], -1)


def relu_mean(hidden_BTD: Tensor, mask_BT: Tensor) -> Tensor:
    """`mean_t ReLU(h_t)` over the real frames, (B, T, D) -> (B, D). Li et al. 2023, AFTER, arXiv 2310.00283."""
    mean_1BD, _ = masked_mean_std(torch.relu(hidden_BTD)[None], mask_BT)
    return mean_1BD[0]


class AttentiveStatistics(nn.Module):
    """Mean and standard deviation of frames under learned weights, (B, T, D), (B, T) -> (B, 2D).

    `e_t = vᵀ tanh(W h_t + b)`, `a = softmax_t(e)` over real frames, `μ = Σ a h`, `σ = sqrt(Σ a (h - μ)²)`. Okabe et al.
    2018 (arXiv 1803.10963). v starts at zero: every frame counts alike at first, as in `masked_mean_std`.
    """

    def __init__(self, width: int, hidden: int = 128, *, generator: torch.Generator) -> None:
        super().__init__()
        self.project = nn.Linear(width, hidden, device="meta").to_empty(device="cpu")
        self.score = nn.Linear(hidden, 1, bias=False, device="meta").to_empty(device="cpu")
        nn.init.xavier_uniform_(self.project.weight, generator=generator)
        nn.init.zeros_(self.project.bias)
        nn.init.zeros_(self.score.weight)

    def forward(self, hidden_BTD: Tensor, mask_BT: Tensor) -> Tensor:
        _check(hidden_BTD, mask_BT)
        hidden = torch.where(mask_BT[..., None], hidden_BTD, 0.0).float()
        score_BT = self.score(torch.tanh(self.project(hidden)))[..., 0].masked_fill(~mask_BT, -torch.inf)
        weight_BT1 = torch.softmax(score_BT, 1)[..., None]
        mean_BD = (weight_BT1 * hidden).sum(1)
        variance_BD = (weight_BT1 * (hidden - mean_BD[:, None]).square()).sum(1)
        return torch.cat([mean_BD, variance_BD.clamp_min(VARIANCE_FLOOR).sqrt()], -1)


Pool = Callable[[Tensor, Tensor], Tensor]
"""(hidden_BTD, mask_BT) -> (B, U)."""


class Pooling(NamedTuple):
    """One way from frames to a clip."""

    make: Callable[[int, torch.Generator], Pool]
    """(D, generator) -> the pooling, a module where there are parameters; only these draw from the generator."""
    statistics: int
    """Statistics side by side: U = statistics · D."""


POOLINGS: dict[str, Pooling] = {
    MEAN_STD: Pooling(make=lambda width, generator: mean_std, statistics=2),
    "relu_mean": Pooling(make=lambda width, generator: relu_mean, statistics=1),
    "attentive": Pooling(make=lambda width, generator: AttentiveStatistics(width, generator=generator), statistics=2),
}
"""Ways from the frames of a hidden state to a clip by name, as `finetune.pooling` chooses one."""


def make_pooling(kind: str, width: int, generator: torch.Generator) -> tuple[Pool, int]:
    """A pooling by name for frames D wide, and the width U of what it returns."""
    if kind not in POOLINGS:
        raise ValueError(f"no pooling {kind!r}; known: {', '.join(POOLINGS)}")
    pooling = POOLINGS[kind]
    return pooling.make(width, generator), pooling.statistics * width


class StatePooling(nn.Module):
    """Pools the frames of some hidden states by a kind of `POOLINGS`, each with weights of its own; the others plainly.

    What comes out has the form of `masked_mean_std`; a kind that gives one statistic leaves zeros in place of the
    standard deviations. Weights start as drawn with seed 0, in the order of the states.
    """

    def __init__(self, kind: str, width: int, states: range) -> None:
        super().__init__()
        self.kind, self.states = kind, states
        generator = torch.Generator().manual_seed(0)
        pools = [make_pooling(kind, width, generator)[0] for _ in states]
        self.functions: list[Pool] = pools
        self.weights = nn.ModuleList(pool for pool in pools if isinstance(pool, nn.Module))

    def describe(self) -> dict[str, Any]:
        """Arguments of `build.use_pooling` that make it again."""
        return {"kind": self.kind, "start": self.states.start}

    def forward(self, hidden_LBTD: Tensor, mask_BT: Tensor, *, start: int) -> tuple[Tensor, Tensor]:
        """Statistics of the hidden states from `start` on, (L - start, B, T, D) -> two (L - start, B, D)."""
        plain = max(0, self.states.start - start)
        functions = self.functions[max(0, start - self.states.start) :]
        pooled = [
            function(hidden_BTD, mask_BT) for function, hidden_BTD in zip(functions, hidden_LBTD[plain:], strict=True)
        ]
        width = hidden_LBTD.shape[-1]
        mean_LBD = torch.stack([pooled_BU[:, :width] for pooled_BU in pooled])
        # A single statistic leaves nothing for the second half.
        std_LBD = torch.stack(
            [nn.functional.pad(pooled_BU[:, width:], (0, 2 * width - pooled_BU.shape[1])) for pooled_BU in pooled]
        )
        if not plain:
            return mean_LBD, std_LBD
        below = masked_mean_std(hidden_LBTD[:plain], mask_BT)
        return torch.cat([below[0], mean_LBD]), torch.cat([below[1], std_LBD])


def weighted_layer_sum(hidden_LBTD: Tensor, weight_L: Tensor) -> Tensor:
    """Softmax-weighted sum of encoder layers, (L, B, T, D) -> (B, T, D). Yang et al. 2021, SUPERB, section 3."""
    if weight_L.shape != hidden_LBTD.shape[:1]:
        raise ValueError(f"{hidden_LBTD.shape[0]} layers need as many weights, got shape {tuple(weight_L.shape)}")
    return torch.einsum("l,l...->...", torch.softmax(weight_L.float(), 0).to(hidden_LBTD.dtype), hidden_LBTD)


def _check(hidden_BTD: Tensor, mask_BT: Tensor) -> None:
    if torch.compiler.is_compiling():  # a traced graph has no values to look at
        return
    if hidden_BTD.shape[-3:-1] != mask_BT.shape:
        raise ValueError(f"frames {tuple(hidden_BTD.shape)} need a mask (B, T), got {tuple(mask_BT.shape)}")
    if not len(mask_BT) or not bool(mask_BT.any(1).all()):
        empty = torch.nonzero(~mask_BT.any(1)).flatten().tolist()
        raise ValueError(
            f"no real frame to pool in clip(s) {empty} of a batch of {len(mask_BT)}; drop empty clips first"
        )
