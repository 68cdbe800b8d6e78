"""The encoder of Moonshine: raw waveform, convolutions, rotary positions. Jeffries et al. 2024 (arXiv 2410.15608).

Rotary positions have no table, so clips have no length limit here: max_position_embeddings (194) counts the decoder's
tokens. Attention memory grows with the square of the length, and features past the lengths of
training are for the caller to judge.

# B batch · S samples · T frames · D features
"""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ser_models.encoders.convolutions import (
    convolved_length,
    masked_group_norm,
    receptive_field,
    standardise_clips,
    total_stride,
)
from ser_models.encoders.decoderless import without_decoder
from ser_models.encoders.encoder import SAMPLE_RATE_HZ, SpeechEncoder
from ser_models.encoders.family import Tower

MOONSHINE = Tower(
    network="transformers.models.moonshine.modeling_moonshine.MoonshineEncoder", weights=r"(model\.)?encoder\."
)


class MoonshineSpeechEncoder(SpeechEncoder):
    """A transformers MoonshineEncoder."""

    config_fields = ("encoder_num_attention_heads", "encoder_hidden_act", "rope_parameters")
    depth_fields = ("encoder_num_hidden_layers",)
    targets = ("q_proj", "k_proj", "v_proj", "o_proj", "fc1", "fc2")

    def __init__(self, model: nn.Module, *, normalise: bool) -> None:
        config: Any = model.config
        super().__init__(
            model,
            width=config.hidden_size,
            frame_rate_hz=SAMPLE_RATE_HZ / total_stride(_convolutions(model)),
            equal_lengths_only=True,
        )
        self.normalise = normalise
        """Each clip is brought to zero mean and unit variance first (do_normalize of preprocessor_config.json)."""

    @property
    def minimal_samples(self) -> int:
        return receptive_field(_convolutions(self.model))

    def frames(self, length_B: Tensor) -> Tensor:
        return convolved_length(length_B, _convolutions(self.model))

    def checkpoint(self) -> Any:
        sizes = {"decoder_num_hidden_layers": 0, "vocab_size": 3}
        tokens = {"pad_token_id": None, "bos_token_id": 1, "eos_token_id": 2, "decoder_start_token_id": 1}
        return without_decoder(self.model, {**sizes, **tokens})

    def feature_extractor(self) -> Any:
        from transformers import Wav2Vec2FeatureExtractor

        return Wav2Vec2FeatureExtractor.from_dict({"do_normalize": self.normalise, "return_attention_mask": True})

    @property
    def front(self) -> list[nn.Module]:
        return [self.model.conv1, self.model.groupnorm, self.model.conv2, self.model.conv3]

    def project(self, wave_BS: Tensor, length_B: Tensor) -> Tensor:
        if self.normalise:
            wave_BS = standardise_clips(wave_BS, length_B)
        hidden_BDT = torch.tanh(self.model.conv1(wave_BS.to(self.model.dtype).unsqueeze(1)))
        first_B = convolved_length(length_B, [self.model.conv1])
        hidden_BDT = masked_group_norm(hidden_BDT, first_B, self.model.groupnorm)
        hidden_BDT = F.gelu(self.model.conv2(hidden_BDT))
        return F.gelu(self.model.conv3(hidden_BDT)).transpose(1, 2)

    def _layer_inputs(self, hidden_BTD: Tensor, mask_BT: Tensor) -> dict[str, Any]:
        position_1T = torch.arange(hidden_BTD.shape[1], device=hidden_BTD.device).unsqueeze(0)
        rotation = self.model.rotary_emb(hidden_BTD, position_ids=position_1T)
        return {**super()._layer_inputs(hidden_BTD, mask_BT), "position_embeddings": rotation}


def _convolutions(model: Any) -> list[nn.Conv1d]:
    return [model.conv1, model.conv2, model.conv3]
