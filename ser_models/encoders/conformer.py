"""Positions of frames in the layers of transformers' wav2vec 2.0 Conformer and w2v-BERT.

They are computed for every batch. transformers keeps those of an earlier one, with its device and its mode: those of a
batch in inference mode cannot be trained on. Gulati et al. 2020 (arXiv 2005.08100), section 2.1.

# B batch · T frames · D features
"""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import Tensor

TARGETS = ("linear_q", "linear_k", "linear_v", "linear_out", "intermediate_dense", "output_dense")
"""Linears of a layer where adapters go by default; both feed-forwards have the last two."""
POSITION_FIELDS = ("position_embeddings_type", "rotary_embedding_base")


def conformer_positions(model: Any, hidden_BTD: Tensor) -> Tensor | None:
    """Positions as the layers of transformers' wav2vec 2.0 Conformer and w2v-BERT take them, for a batch (B, T, D).

    relative: sinusoids of all distances from T-1 down to 1-T, (1, 2T-1, D). rotary: cosines and sines of each frame,
    (2, T, 1, 1, D/H). None where attention knows of no positions, or has a table of its own (relative_key).
    """
    time, width = hidden_BTD.shape[1:]
    kind, device = model.config.position_embeddings_type, hidden_BTD.device
    if kind == "relative":
        rate = torch.exp(torch.arange(0, width, 2, device=device) * (-math.log(10_000.0) / width))
        angle = torch.arange(time - 1, -time, -1, device=device)[:, None] * rate
        return torch.stack([angle.sin(), angle.cos()], dim=-1).flatten(1)[None].to(hidden_BTD.dtype)
    if kind == "rotary":
        angle = torch.arange(time, device=device)[:, None] * model.encoder.embed_positions.inv_freq.float()
        angle = torch.cat([angle, angle], dim=-1)[:, None, None]
        return torch.stack([angle.cos(), angle.sin()]).to(hidden_BTD.dtype)
    return None
