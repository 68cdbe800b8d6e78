"""The encoder of w2v-BERT 2.0. Barrault et al. 2023 (arXiv 2312.05187), section 3.2.1.

It hears two frames of 80 mel bands at a time. Its convolutions are causal: no frame sees what comes behind it.

# B batch · S samples · T frames · D features · M mel bands
"""

from __future__ import annotations

from typing import Any, ClassVar

import torch
from torch import Tensor, nn

from ser_models.encoders.conformer import POSITION_FIELDS, TARGETS, conformer_positions
from ser_models.encoders.encoder import SAMPLE_RATE_HZ, SpeechEncoder, refuse_to_standardise
from ser_models.encoders.kaldi import KaldiMel, kaldi_frames, standardise_bands
from ser_models.encoders.mel import HOP_SAMPLES, WINDOW_SAMPLES

STACKED = 2
"""Mel frames that are one frame of the encoder."""


class Wav2Vec2BertSpeechEncoder(SpeechEncoder):
    """A transformers Wav2Vec2BertModel.

    The last hidden state is the transformer's also where a feed-forward part or convolutions with strides follow it
    (`use_intermediate_ffn_before_adapter`, `add_adapter`).
    """

    config_fields: ClassVar[tuple[str, ...]] = (
        "num_attention_heads",
        "hidden_act",
        "layer_norm_eps",
        *POSITION_FIELDS,
        "left_max_position_embeddings",
        "right_max_position_embeddings",
    )
    targets = TARGETS
    unused = ("masked_spec_embed", "intermediate_ffn.", "adapter.")

    def __init__(self, model: nn.Module, *, normalise: bool) -> None:
        refuse_to_standardise(model, normalise)
        config: Any = model.config
        super().__init__(
            model,
            width=config.hidden_size,
            frame_rate_hz=SAMPLE_RATE_HZ / (STACKED * HOP_SAMPLES),
            equal_lengths_only=False,
        )
        self.bands: int = config.feature_projection_input_dim // STACKED
        self.mel = KaldiMel(self.bands)

    @property
    def layers(self) -> nn.ModuleList:
        layers: nn.ModuleList = self.model.encoder.layers
        return layers

    @property
    def final_norm(self) -> None:
        """None: every layer ends in a norm of its own."""

    @property
    def minimal_samples(self) -> int:
        return WINDOW_SAMPLES + (STACKED - 1) * HOP_SAMPLES

    def frames(self, length_B: Tensor) -> Tensor:
        return kaldi_frames(length_B).div(STACKED, rounding_mode="floor")

    def checkpoint(self) -> Any:
        return self.model

    def feature_extractor(self) -> Any:
        from transformers import SeamlessM4TFeatureExtractor

        settings = {"feature_size": self.bands, "num_mel_bins": self.bands, "stride": STACKED}
        return SeamlessM4TFeatureExtractor.from_dict(settings)

    @property
    def front(self) -> list[nn.Module]:
        return []

    def project(self, wave_BS: Tensor, length_B: Tensor) -> Tensor:
        level_BTM = standardise_bands(self.mel(wave_BS), kaldi_frames(length_B))
        stacked_BTM = torch.cat([level_BTM[:, :-1:STACKED], level_BTM[:, 1::STACKED]], dim=-1)  # an odd last is left
        projected_BTD: Tensor = self.model.feature_projection(stacked_BTM.to(self.model.dtype))[0]
        return projected_BTD

    def add_positions(self, frame_BTD: Tensor, mask_BT: Tensor) -> Tensor:
        dropped: Tensor = self.model.encoder.dropout(frame_BTD * mask_BT.unsqueeze(-1))
        return dropped

    def _layer_inputs(self, hidden_BTD: Tensor, mask_BT: Tensor) -> dict[str, Any]:
        positions = conformer_positions(self.model, hidden_BTD)
        return {
            **super()._layer_inputs(hidden_BTD, mask_BT),
            "relative_position_embeddings": positions,
            "conv_attention_mask": mask_BT,
        }
