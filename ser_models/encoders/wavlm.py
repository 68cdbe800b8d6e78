"""WavLM: wav2vec 2.0's shape with gated relative positions. Chen et al. 2022 (arXiv 2110.13900), section III-B.

The attention is written out here. transformers hands the bare weights of q, k and v to one fused function, so that a
peft adapter on them is never called and silently trains nothing (transformers#48773); called as modules, it is.

# B batch · H heads · T frames · D features
"""

from __future__ import annotations

from typing import Any, ClassVar

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ser_models.encoders.encoder import attention_bias
from ser_models.encoders.wav2vec2 import Wav2Vec2Encoder


class WavLMEncoder(Wav2Vec2Encoder):
    """A transformers WavLMModel."""

    config_fields: ClassVar[tuple[str, ...]] = (*Wav2Vec2Encoder.config_fields, "num_buckets", "max_bucket_distance")

    def _layer_inputs(self, hidden_BTD: Tensor, mask_BT: Tensor) -> dict[str, Any]:
        # Only layer 0 owns the table of relative positions: every layer uses it, also when layer 0 is not run.
        first_layer: Any = self.layers[0]
        time = hidden_BTD.shape[1]
        return {
            "position_HTT": first_layer.attention.compute_bias(time, time),
            "padding_B11T": attention_bias(mask_BT, hidden_BTD.dtype),
        }

    def _run_layer(self, layer: Any, hidden_BTD: Tensor, inputs: dict[str, Any]) -> Tensor:
        normed_BTD = layer.layer_norm(hidden_BTD) if self.pre_norm else hidden_BTD
        hidden_BTD = hidden_BTD + layer.dropout(attend(layer.attention, normed_BTD, **inputs))
        output_BTD: Tensor
        if self.pre_norm:
            output_BTD = hidden_BTD + layer.feed_forward(layer.final_layer_norm(hidden_BTD))
        else:
            hidden_BTD = layer.layer_norm(hidden_BTD)
            output_BTD = layer.final_layer_norm(hidden_BTD + layer.feed_forward(hidden_BTD))
        return output_BTD


def attend(attention: Any, hidden_BTD: Tensor, *, position_HTT: Tensor, padding_B11T: Tensor | None) -> Tensor:
    """Self-attention with gated relative position bias, (B, T, D) -> (B, T, D). Chen et al. 2022, equations 4 to 8."""

    def heads(x_BTD: Tensor) -> Tensor:
        return x_BTD.view(*x_BTD.shape[:2], attention.num_heads, -1).transpose(1, 2)

    bias_BHTT = position_gate(attention, heads(hidden_BTD)) * position_HTT
    if padding_B11T is not None:
        bias_BHTT = bias_BHTT + padding_B11T
    key_BHTK, value_BHTK = heads(attention.k_proj(hidden_BTD)), heads(attention.v_proj(hidden_BTD))
    # An adapter may put learned keys and values before the clip's (ser_models.adapters.prefix).
    if (prefix := getattr(attention, "prefix", None)) is not None:
        key_BHTK, value_BHTK, bias_BHTT = prefix(key_BHTK, value_BHTK, bias_BHTT)
    attended_BHTK = F.scaled_dot_product_attention(
        heads(attention.q_proj(hidden_BTD)),
        key_BHTK,
        value_BHTK,
        attn_mask=bias_BHTT,
        dropout_p=attention.dropout if attention.training else 0.0,
    )
    output_BTD: Tensor = attention.out_proj(attended_BHTK.transpose(1, 2).flatten(2))
    return output_BTD


def position_gate(attention: nn.Module, hidden_BHTK: Tensor) -> Tensor:
    """Gate of each frame and head on relative positions, (B, H, T, D/H) -> (B, H, T, 1)."""
    module: Any = attention
    projected_BHT2 = module.gru_rel_pos_linear(hidden_BHTK).unflatten(-1, (2, 4)).sum(-1)
    update_BHT1, reset_BHT1 = torch.sigmoid(projected_BHT2).chunk(2, dim=-1)
    gate_BHT1: Tensor = update_BHT1 * (reset_BHT1 * module.gru_rel_pos_const - 1.0) + 2.0
    return gate_BHT1
