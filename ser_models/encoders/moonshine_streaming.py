"""The encoder of Moonshine v2, for speech that arrives: frames of 5 ms, causal convolutions, attention in windows.

Kudlur et al. 2026 (arXiv 2602.12241). Nothing tells a frame its position, so clips have no length limit.

# B batch · S samples · T frames · D features
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from ser_models.encoders.convolutions import standardise_clips
from ser_models.encoders.decoderless import without_decoder
from ser_models.encoders.encoder import SAMPLE_RATE_HZ, SpeechEncoder
from ser_models.encoders.family import Tower

HALVINGS = 2
"""Convolutions of stride 2 between the frames of a few milliseconds and those of the transformer."""


MOONSHINE_STREAMING = Tower(
    network="transformers.models.moonshine_streaming.modeling_moonshine_streaming.MoonshineStreamingEncoder",
    weights=r"(model\.)?encoder\.",
    config="encoder_config",
)


class MoonshineStreamingSpeechEncoder(SpeechEncoder):
    """A transformers MoonshineStreamingEncoder. Samples past the last whole frame of 5 ms are not heard."""

    config_fields = ("num_attention_heads", "num_key_value_heads", "hidden_act", "frame_ms", "sliding_windows")
    targets = ("q_proj", "k_proj", "v_proj", "o_proj", "fc1", "fc2")

    def __init__(self, model: nn.Module, *, normalise: bool) -> None:
        config: Any = model.config
        self.frame_samples: int = round(config.sample_rate * config.frame_ms / 1000)
        super().__init__(
            model,
            width=config.hidden_size,
            frame_rate_hz=SAMPLE_RATE_HZ / (self.frame_samples * 2**HALVINGS),
            equal_lengths_only=False,
        )
        self.normalise = normalise
        """Each clip is brought to zero mean and unit variance first (do_normalize of preprocessor_config.json)."""

    @property
    def final_norm(self) -> nn.Module | None:
        norm: nn.Module = self.model.final_norm
        return norm

    @property
    def minimal_samples(self) -> int:
        return self.frame_samples

    def frames(self, length_B: Tensor) -> Tensor:
        length_B = length_B.div(self.frame_samples, rounding_mode="floor")
        for _ in range(HALVINGS):
            length_B = (length_B + 1).div(2, rounding_mode="floor")
        return length_B

    def checkpoint(self) -> Any:
        from transformers import MoonshineStreamingConfig

        tokens = {"pad_token_id": 0, "bos_token_id": 1, "eos_token_id": 2, "decoder_start_token_id": 1}
        sizes = {"num_hidden_layers": 0, "vocab_size": 3, "hidden_size": self.width}
        config = MoonshineStreamingConfig(encoder_config=self.model.config.to_dict())
        return without_decoder(self.model, {**sizes, **tokens}, config)

    def feature_extractor(self) -> Any:
        from transformers import Wav2Vec2FeatureExtractor

        return Wav2Vec2FeatureExtractor.from_dict({"do_normalize": self.normalise, "return_attention_mask": True})

    @property
    def front(self) -> list[nn.Module]:
        return [self.model.embedder]

    def project(self, wave_BS: Tensor, length_B: Tensor) -> Tensor:
        if self.normalise:
            wave_BS = standardise_clips(wave_BS, length_B)
        whole = wave_BS.shape[1] // self.frame_samples * self.frame_samples
        # The convolutions are causal: no frame of a clip hears what comes behind it.
        frame_BTD: Tensor = self.model.embedder(wave_BS[:, :whole].to(self.model.dtype))[0]
        return frame_BTD

    def _layer_inputs(self, hidden_BTD: Tensor, mask_BT: Tensor) -> dict[str, Any]:
        windows: set[tuple[int, int]] = {(back, ahead) for back, ahead in self.model.config.sliding_windows}
        return {"bias_of": {window: window_bias(mask_BT, window, hidden_BTD.dtype) for window in windows}}

    def _run_layer(self, layer: Any, hidden_BTD: Tensor, inputs: dict[str, Any]) -> Tensor:
        window = tuple(self.model.config.sliding_windows[layer.self_attn.layer_idx])
        output_BTD: Tensor = layer(hidden_BTD, attention_mask=inputs["bias_of"][window])
        return output_BTD


def window_bias(mask_BT: Tensor, window: tuple[int, int], dtype: torch.dtype) -> Tensor:
    """Bias on attention scores that leaves weight to real frames fewer than so many back or ahead, -> (B, 1, T, T)."""
    time = torch.arange(mask_BT.shape[1], device=mask_BT.device)
    back_TT = time[:, None] - time
    back, ahead = window
    near_TT = ((back_TT >= 0) & (back_TT < back)) | ((back_TT < 0) & (-back_TT < ahead))
    open_B1TT = near_TT & mask_BT[:, None, None, :]
    bias_B1TT = torch.zeros(open_B1TT.shape, dtype=dtype, device=mask_BT.device)
    return bias_B1TT.masked_fill(~open_B1TT, torch.finfo(dtype).min)
