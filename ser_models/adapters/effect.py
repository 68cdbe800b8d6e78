"""Measures of a trained adapter: how far its weights have moved, and how much of the encoder's weights that is."""

# B clips · L hidden states · D features
from __future__ import annotations

import math

import torch
from torch import Tensor

from ser_models.adapters import ADAPTERS
from ser_models.adapters.merge import merge_adapters
from ser_models.adapters.parameters import adapter_tags
from ser_models.encoders import SpeechEncoder
from ser_models.heads import LayerPool

LEAST_EFFECT = 0.01
"""Relative distance of pooled states below which an adapter does nothing. Outputs of a linear head then move by about a
hundredth of their spread over clips, and less than one decision in a hundred changes (of two classes arctan(0.01) / π,
one in three hundred): no test of some hundred clips can tell that from nothing."""


@torch.no_grad()
def parameter_changes(start: SpeechEncoder, trained: SpeechEncoder) -> dict[str, float]:
    """Root mean square change of the parameters of each tag (`lora_A`, `gate`, ...) since the start of a training.

    Not in relation to their start, at which many are zero. Raises ValueError for encoders with other adapters.
    """
    before, after = adapter_tags(start), adapter_tags(trained)
    if {tag: list(own) for tag, own in before.items()} != {tag: list(own) for tag, own in after.items()}:
        raise ValueError(f"the encoders carry other adapters: {', '.join(before)} and {', '.join(after)}")
    return {
        tag: _norm([own[name].cpu() - before[tag][name].cpu() for name in own])
        / math.sqrt(sum(parameter.numel() for parameter in own.values()))
        for tag, own in after.items()
    }


@torch.no_grad()
def merged_update(plain: SpeechEncoder, trained: SpeechEncoder) -> float | None:
    """`‖W' - W‖ / ‖W‖` over all weights W that adapters change once they are merged; None where none can be merged.

    The trained encoder is merged in place.
    """
    if not any(ADAPTERS[kind].mergeable for kind in trained.adapters):
        return None
    merge_adapters(trained, leave=True)
    before, after = dict(plain.model.named_parameters()), dict(trained.model.named_parameters())
    changed = [name for name in before if not torch.equal(before[name].cpu(), after[name].cpu())]
    if not changed:
        return 0.0
    update = _norm([after[name].cpu() - before[name].cpu() for name in changed])
    return update / _norm([before[name].cpu() for name in changed])


def state_distance(plain: tuple[Tensor, Tensor], adapted: tuple[Tensor, Tensor], *, std_gain: float) -> float:
    """`‖u' - u‖ / ‖u‖` of pooled states with and without adapters, means and deviations (B, L, D) of 2 clips or more.

    Both are standardised by the clips without, so that u counts in spreads over clips and no feature decides by its
    scale. `std_gain`: weight of the deviations, as the head reads them.
    """
    pool = LayerPool(*plain[0].shape[1:], std_gain=std_gain)
    pool.fit(*plain)
    before, after = pool.standardise(*plain), pool.standardise(*adapted)
    return float((after - before).norm() / before.norm())


def _norm(parts: list[Tensor]) -> float:
    return float(torch.stack([part.float().square().sum() for part in parts]).sum().sqrt())
