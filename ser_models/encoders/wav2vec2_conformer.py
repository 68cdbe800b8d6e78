"""wav2vec 2.0 with Conformer layers: convolution beside attention. Wang et al. 2020 (arXiv 2010.05171).

transformers' convolutions run over padded frames, so the layer is written out: here they see zeros, as in a clip alone.

# B batch · T frames · D features
"""

from __future__ import annotations

from typing import Any, ClassVar

from torch import Tensor, nn

from ser_models.encoders.conformer import POSITION_FIELDS, TARGETS, conformer_positions
from ser_models.encoders.encoder import attention_bias
from ser_models.encoders.wav2vec2 import Wav2Vec2Encoder


class Wav2Vec2ConformerSpeechEncoder(Wav2Vec2Encoder):
    """A transformers Wav2Vec2ConformerModel: the stem of wav2vec 2.0, its layers Conformers'."""

    config_fields: ClassVar[tuple[str, ...]] = (*Wav2Vec2Encoder.config_fields, *POSITION_FIELDS)
    targets = TARGETS
    unused = (*Wav2Vec2Encoder.unused, "encoder.pos_conv_embed.")

    def __init__(self, model: nn.Module, *, normalise: bool) -> None:
        super().__init__(model, normalise=normalise)
        self.equal_lengths_only = True  # transformers' convolutions run over padded frames

    @property
    def pre_norm(self) -> bool:
        """True: each half of a layer has its norm before it, and the last layer a norm behind it."""
        return True

    def add_positions(self, frame_BTD: Tensor, mask_BT: Tensor) -> Tensor:
        dropped: Tensor = self.model.encoder.dropout(frame_BTD * mask_BT.unsqueeze(-1))
        return dropped

    def _layer_inputs(self, hidden_BTD: Tensor, mask_BT: Tensor) -> dict[str, Any]:
        positions = conformer_positions(self.model, hidden_BTD)
        bias = attention_bias(mask_BT, hidden_BTD.dtype)
        return {"mask_BT": mask_BT, "attention_mask": bias, "relative_position_embeddings": positions}

    def _run_layer(self, layer: Any, hidden_BTD: Tensor, inputs: dict[str, Any]) -> Tensor:
        return run_conformer_layer(layer, hidden_BTD, **inputs)


def run_conformer_layer(layer: Any, hidden_BTD: Tensor, *, mask_BT: Tensor, **attention_inputs: Any) -> Tensor:
    """A layer whose convolution sees zeros past the end of every clip, (B, T, D), (B, T) -> (B, T, D)."""
    hidden_BTD = hidden_BTD + 0.5 * layer.ffn1(layer.ffn1_layer_norm(hidden_BTD))
    attended_BTD, _ = layer.self_attn(layer.self_attn_layer_norm(hidden_BTD), **attention_inputs)
    hidden_BTD = hidden_BTD + layer.self_attn_dropout(attended_BTD)
    hidden_BTD = hidden_BTD + _convolve(layer.conv_module, hidden_BTD, mask_BT)
    hidden_BTD = hidden_BTD + 0.5 * layer.ffn2(layer.ffn2_layer_norm(hidden_BTD))
    output_BTD: Tensor = layer.final_layer_norm(hidden_BTD)
    return output_BTD


def _convolve(module: Any, hidden_BTD: Tensor, mask_BT: Tensor) -> Tensor:
    # The first convolution has no bias, and GLU of zero is zero: what is zero is zero for the depthwise one.
    normed_BTD = module.layer_norm(hidden_BTD).masked_fill(~mask_BT.unsqueeze(-1), 0.0)
    gated_BDT = module.glu(module.pointwise_conv1(normed_BTD.transpose(1, 2)))
    active_BDT = module.activation(module.batch_norm(module.depthwise_conv(gated_BDT)))
    output_BTD: Tensor = module.dropout(module.pointwise_conv2(active_BDT)).transpose(1, 2)
    return output_BTD
