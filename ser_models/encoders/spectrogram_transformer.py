"""The Audio Spectrogram Transformer: patches of a spectrogram as tokens. Gong et al. 2021 (arXiv 2104.01778).

transformers pads every clip to 10.24 s and lets it attend to the padding. Here a clip has the patches that lie in it,
and the table of positions is cut to the batch's longest. Tokens come in order of time, those of one moment by
frequency, after the two that stand for the clip: a "frame" of the interface is one of them.

# B batch · S samples · M mel bands · T frames of the spectrogram, then tokens · D features
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from ser_models.encoders.encoder import SAMPLE_RATE_HZ, SpeechEncoder
from ser_models.encoders.kaldi import KaldiMel, kaldi_frames
from ser_models.encoders.mel import HOP_SAMPLES, WINDOW_SAMPLES

MEAN, DEVIATION = -4.2677393, 4.5689974
"""Of the log-mel energies of AudioSet, which centre and scale the input."""
OF_THE_CLIP = 2
"""Tokens that stand for the whole clip: class and distillation."""


class SpectrogramTransformerEncoder(SpeechEncoder):
    """A transformers ASTModel."""

    config_fields = (
        "num_attention_heads",
        "hidden_act",
        "layer_norm_eps",
        "patch_size",
        "frequency_stride",
        "time_stride",
        "num_mel_bins",
        "max_length",
    )
    targets = ("q_proj", "k_proj", "v_proj", "o_proj", "fc1", "fc2")

    def __init__(self, model: nn.Module, *, normalise: bool) -> None:
        config: Any = model.config
        self.bands: int = (config.num_mel_bins - config.patch_size) // config.frequency_stride + 1
        """Patches one above another."""
        super().__init__(
            model,
            width=config.hidden_size,
            frame_rate_hz=SAMPLE_RATE_HZ / (HOP_SAMPLES * config.time_stride) * self.bands,
            equal_lengths_only=False,
        )
        self.normalise = normalise
        """Log-mel energies are centred and scaled as AudioSet's are (do_normalize of preprocessor_config.json)."""
        self.mel = KaldiMel(config.num_mel_bins, window="hann", scale=1.0)
        self.limit_samples: int = WINDOW_SAMPLES + config.max_length * HOP_SAMPLES - 1

    @property
    def final_norm(self) -> nn.Module | None:
        norm: nn.Module = self.model.layernorm
        return norm

    @property
    def minimal_samples(self) -> int:
        samples: int = WINDOW_SAMPLES + (self.model.config.patch_size - 1) * HOP_SAMPLES
        return samples

    def frames(self, length_B: Tensor) -> Tensor:
        config = self.model.config
        steps_B = (kaldi_frames(length_B) - config.patch_size).div(config.time_stride, rounding_mode="floor") + 1
        return torch.where(steps_B > 0, OF_THE_CLIP + self.bands * steps_B, 0)

    def checkpoint(self) -> Any:
        return self.model

    def feature_extractor(self) -> Any:
        from transformers import ASTFeatureExtractor

        config = self.model.config
        settings = {"num_mel_bins": config.num_mel_bins, "max_length": config.max_length}
        return ASTFeatureExtractor.from_dict({**settings, "do_normalize": self.normalise})

    @property
    def front(self) -> list[nn.Module]:
        return [self.model.embeddings.patch_embeddings]

    def project(self, wave_BS: Tensor, length_B: Tensor) -> Tensor:
        level_BTM = self.mel(wave_BS[:, : self.limit_samples])
        if self.normalise:
            level_BTM = (level_BTM - MEAN) / (2 * DEVIATION)
        embeddings = self.model.embeddings
        spectrogram = level_BTM.to(self.model.dtype).transpose(1, 2).unsqueeze(1)
        patch_BTD = embeddings.patch_embeddings.projection(spectrogram).permute(0, 3, 2, 1).flatten(1, 2)
        of_the_clip = (embeddings.cls_token, embeddings.distillation_token)
        tokens = [token.expand(len(wave_BS), -1, -1) for token in of_the_clip]
        return torch.cat([*tokens, patch_BTD], dim=1)

    def add_positions(self, frame_BTD: Tensor, mask_BT: Tensor) -> Tensor:
        table_TD = self.model.embeddings.position_embeddings[0]
        by_time_TD = table_TD[OF_THE_CLIP:].unflatten(0, (self.bands, -1)).transpose(0, 1).flatten(0, 1)
        position_TD = torch.cat([table_TD[:OF_THE_CLIP], by_time_TD])[: frame_BTD.shape[1]]
        dropped: Tensor = self.model.embeddings.dropout(frame_BTD + position_TD)
        return dropped
