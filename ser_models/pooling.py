"""From frames to one vector per clip and from layers to one layer, without ever looking at padding."""

from __future__ import annotations

import torch
from torch import Tensor

# L layers (index 0 = input of the first transformer layer) · B batch · T frames · D features

VARIANCE_FLOOR = 1e-10
"""Below it the gradient of the square root explodes: a constant feature has std 1e-5 and no gradient."""


def masked_mean_std(hidden_LBTD: Tensor, mask_BT: Tensor) -> tuple[Tensor, Tensor]:
    """Mean and population standard deviation over the real frames of each clip, (L, B, T, D) -> two (L, B, D) in fp32.

    Two passes (mean first, then squares about it), because `E[h²] - E[h]²` loses every digit when |mean| >> std.
    Whatever stands in padded frames, NaN included, has no influence.
    """
    count_B = mask_BT.sum(1)
    if not bool(count_B.all()):
        empty = torch.nonzero(count_B == 0).flatten().tolist()
        raise ValueError(
            f"no real frame to pool in clip(s) {empty} of a batch of {len(count_B)}; drop empty clips first"
        )
    frames = count_B.to(torch.float32)[None, :, None]
    keep = mask_BT[None, :, :, None]
    hidden = torch.where(keep, hidden_LBTD.float(), 0.0)
    mean_LBD = hidden.sum(2) / frames
    centred = torch.where(keep, hidden - mean_LBD[:, :, None], 0.0)
    variance_LBD = centred.square().sum(2) / frames
    return mean_LBD, variance_LBD.clamp_min(VARIANCE_FLOOR).sqrt()


def weighted_layer_sum(hidden_LBTD: Tensor, weight_L: Tensor) -> Tensor:
    """Softmax-weighted sum of encoder layers, (L, B, T, D) -> (B, T, D). Yang et al. 2021, SUPERB, section 3."""
    if weight_L.shape != hidden_LBTD.shape[:1]:
        raise ValueError(f"{hidden_LBTD.shape[0]} layers need as many weights, got shape {tuple(weight_L.shape)}")
    return torch.einsum("l,l...->...", torch.softmax(weight_L.float(), 0).to(hidden_LBTD.dtype), hidden_LBTD)
