"""Log-mel energies as Kaldi computes them, which w2v-BERT, SeamlessM4T and the Audio Spectrogram Transformer hear.

Equal to transformers' SeamlessM4TFeatureExtractor, on the device and for a whole batch. In double precision: single
precision leaves noise in bands that hold hardly anything, which standardising would blow up.

# B batch · S samples · F frequency bins · M mel bands · T frames
"""

from __future__ import annotations

from typing import Literal

import torch
from torch import Tensor, nn

from ser_models.encoders.encoder import prefix_mask
from ser_models.encoders.mel import HOP_SAMPLES, WINDOW_SAMPLES

TRANSFORM_SAMPLES = 512
PREEMPHASIS = 0.97
SMALLEST_ENERGY = 1.192092955078125e-07
"""The least of single precision above 1, as in Kaldi."""
INTEGERS = 2.0**15
"""Scale of clips that Kaldi reads as 16-bit integers."""


class KaldiMel(nn.Module):
    """Log-mel energies of frames of 25 ms every 10 ms at 16 kHz, (B, S) -> (B, T, M), of whole frames alone.

    Every frame has its mean removed and its treble raised. `window`: povey, Kaldi's own, or hann; `scale`: of samples
    in [-1, 1] before the transform.
    """

    filters_FM: Tensor
    window: Tensor

    def __init__(self, bands: int, *, window: Literal["povey", "hann"] = "povey", scale: float = INTEGERS) -> None:
        super().__init__()
        from transformers.audio_utils import mel_filter_bank, window_function

        filters = mel_filter_bank(
            num_frequency_bins=1 + TRANSFORM_SAMPLES // 2,
            num_mel_filters=bands,
            min_frequency=20.0,
            max_frequency=8000.0,
            sampling_rate=16_000,
            mel_scale="kaldi",
            triangularize_in_mel_space=True,
        )
        self.scale = scale
        self.register_buffer("filters_FM", torch.from_numpy(filters), persistent=False)
        shape = window_function(WINDOW_SAMPLES, window, periodic=False)
        self.register_buffer("window", torch.from_numpy(shape), persistent=False)

    def forward(self, wave_BS: Tensor) -> Tensor:
        framed = (self.scale * wave_BS.double()).unfold(1, WINDOW_SAMPLES, HOP_SAMPLES)
        framed = framed - framed.mean(-1, keepdim=True)
        before = torch.cat([framed[..., :1], framed[..., :-1]], dim=-1)
        framed = (framed - PREEMPHASIS * before) * self.window.double()
        power_BTF = torch.fft.rfft(framed, TRANSFORM_SAMPLES).abs().square()
        level_BTM: Tensor = (power_BTF @ self.filters_FM.double()).clamp(min=SMALLEST_ENERGY).log()
        return level_BTM


def kaldi_frames(length_B: Tensor) -> Tensor:
    """Whole frames of clips of so many samples, (B,) -> (B,); 0 if too short."""
    return ((length_B - WINDOW_SAMPLES).div(HOP_SAMPLES, rounding_mode="floor") + 1).clamp(min=0)


def standardise_bands(level_BTM: Tensor, frames_B: Tensor) -> Tensor:
    """Zero mean and unit variance per clip and band over its first frames_B frames, zero behind them, (B, T, M).

    The variance is that of a sample, of at least two frames, + 1e-7 under the root.
    """
    mask_BT1 = prefix_mask(frames_B, level_BTM.shape[1]).unsqueeze(-1)
    count_B11 = frames_B.view(-1, 1, 1)
    mean_B1M = (level_BTM * mask_BT1).sum(1, keepdim=True) / count_B11
    centred_BTM = (level_BTM - mean_B1M) * mask_BT1
    variance_B1M = centred_BTM.square().sum(1, keepdim=True) / (count_B11 - 1)
    return centred_BTM * torch.rsqrt(variance_B1M + 1e-7)
