"""wav2vec 2.0 and its like: raw waveform, convolutional stem, convolutional positions, transformer.

Baevski et al. 2020 (arXiv 2006.11477), Hsu et al. 2021 (2106.07447), Baevski et al. 2022 (2202.03555),
Wang et al. 2021 (UniSpeech, 2101.07597), Chen et al. 2021 (UniSpeech-SAT, 2110.05752). DistilHuBERT checkpoints (Chang
et al. 2022, 2110.01900) are HuBERT ones with two layers.

# B batch · S samples · C channels · T frames · D features
"""

from __future__ import annotations

from typing import Any, ClassVar

import torch.nn.functional as F
from torch import Tensor, nn

from ser_models.encoders.convolutions import (
    convolved_length,
    masked_group_norm,
    receptive_field,
    standardise_clips,
    total_stride,
)
from ser_models.encoders.encoder import SAMPLE_RATE_HZ, SpeechEncoder


class Wav2Vec2Encoder(SpeechEncoder):
    """A transformers Wav2Vec2Model, HubertModel, Data2VecAudioModel, UniSpeechModel or UniSpeechSatModel.

    The last hidden state is the transformer's also where convolutions with strides follow it (`add_adapter`).
    """

    config_fields: ClassVar[tuple[str, ...]] = (
        "conv_stride",
        "feat_extract_norm",
        "feat_extract_activation",
        "do_stable_layer_norm",
        "num_attention_heads",
        "hidden_act",
        "layer_norm_eps",
        "num_conv_pos_embedding_groups",
        "conv_pos_batch_norm",
    )

    targets = ("q_proj", "k_proj", "v_proj", "out_proj", "intermediate_dense", "output_dense")
    unused: ClassVar[tuple[str, ...]] = ("masked_spec_embed", "adapter.")

    def __init__(self, model: nn.Module, *, normalise: bool) -> None:
        config: Any = model.config
        super().__init__(
            model,
            width=config.hidden_size,
            frame_rate_hz=SAMPLE_RATE_HZ / total_stride(_convolutions(model)),
            equal_lengths_only=getattr(config, "feat_extract_norm", "layer") == "group",
        )
        self.normalise = normalise
        """Each clip is brought to zero mean and unit variance first (do_normalize of preprocessor_config.json)."""

    @property
    def layers(self) -> nn.ModuleList:
        layers: nn.ModuleList = self.model.encoder.layers
        return layers

    @property
    def pre_norm(self) -> bool:
        """True where layer norms come before attention and feed-forward ("stable layer norm")."""
        return bool(getattr(self.model.config, "do_stable_layer_norm", False))

    @property
    def final_norm(self) -> nn.Module | None:
        norm: nn.Module = self.model.encoder.layer_norm
        return norm if self.pre_norm else None

    @property
    def minimal_samples(self) -> int:
        return receptive_field(_convolutions(self.model))

    def frames(self, length_B: Tensor) -> Tensor:
        return convolved_length(length_B, _convolutions(self.model))

    def checkpoint(self) -> Any:
        return self.model

    def feature_extractor(self) -> Any:
        from transformers import Wav2Vec2FeatureExtractor

        return Wav2Vec2FeatureExtractor.from_dict({"do_normalize": self.normalise, "return_attention_mask": True})

    @property
    def front(self) -> list[nn.Module]:
        return [self.model.feature_extractor]

    def project(self, wave_BS: Tensor, length_B: Tensor) -> Tensor:
        projected = self.model.feature_projection(self.convolve(wave_BS, length_B))
        # HuBERT's projection returns the frames alone, the others a pair with the normalised features.
        frame_BTD: Tensor = projected[0] if isinstance(projected, tuple) else projected
        return frame_BTD

    def add_positions(self, frame_BTD: Tensor, mask_BT: Tensor) -> Tensor:
        mask_BT1 = mask_BT.unsqueeze(-1)
        hidden_BTD = frame_BTD * mask_BT1
        hidden_BTD = hidden_BTD + self._positions(hidden_BTD, mask_BT1)
        if not self.pre_norm:
            hidden_BTD = self.model.encoder.layer_norm(hidden_BTD)
        dropped: Tensor = self.model.encoder.dropout(hidden_BTD)
        return dropped

    def convolve(self, wave_BS: Tensor, length_B: Tensor) -> Tensor:
        """Convolutional features before the projection to the transformer's width, (B, S), (B,) -> (B, T, C)."""
        if self.normalise:
            wave_BS = standardise_clips(wave_BS, length_B)
        hidden_BCT, frames_B = wave_BS.to(self.model.dtype).unsqueeze(1), length_B
        for layer in self.model.feature_extractor.conv_layers:
            frames_B = convolved_length(frames_B, [layer.conv])
            norm = getattr(layer, "layer_norm", None)
            if isinstance(norm, nn.GroupNorm):
                hidden_BCT = layer.activation(masked_group_norm(layer.conv(hidden_BCT), frames_B, norm))
            else:
                hidden_BCT = layer(hidden_BCT)
        return hidden_BCT.transpose(1, 2)

    def _positions(self, hidden_BTD: Tensor, mask_BT1: Tensor) -> Tensor:
        """Convolutional position embedding that sees zeros past the end of every clip, as a clip alone would."""
        embedding = self.model.encoder.pos_conv_embed
        if self.family == "data2vec-audio":
            # A stack of convolutions with biases: each would see what the one before left on the padded frames.
            for layer in embedding.layers:
                hidden_BTD = layer((hidden_BTD * mask_BT1).transpose(1, 2)).transpose(1, 2)
            return hidden_BTD
        norm = getattr(embedding, "batch_norm", None)
        if norm is None:
            position_BTD: Tensor = embedding(hidden_BTD)
            return position_BTD
        return _batch_normed_positions(embedding, norm, hidden_BTD, mask_BT1)


def _batch_normed_positions(embedding: Any, norm: nn.BatchNorm1d, hidden_BTD: Tensor, mask_BT1: Tensor) -> Tensor:
    """HuBERT's conv_pos_batch_norm variant: always the stored statistics, so that a batch never shifts its clips."""
    normed_BDT = F.batch_norm(
        hidden_BTD.transpose(1, 2), norm.running_mean, norm.running_var, norm.weight, norm.bias, False, 0.0, norm.eps
    )
    position_BDT = embedding.activation(embedding.padding(embedding.conv(normed_BDT * mask_BT1.transpose(1, 2))))
    position_BTD: Tensor = position_BDT.transpose(1, 2)
    return position_BTD


def _convolutions(model: Any) -> list[nn.Conv1d]:
    return [layer.conv for layer in model.feature_extractor.conv_layers]
