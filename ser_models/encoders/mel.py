"""Whisper's log-mel spectrogram without the 30 s of silence. Radford et al. 2022 (arXiv 2212.04356), section 2.2.

# B batch · S samples · F frequency bins · M mel bands · T mel frames
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

WINDOW_SAMPLES = 400
HOP_SAMPLES = 160


def mel_filters(bands: int) -> Tensor:
    """Slaney mel filters from 0 to 8 kHz at 16 kHz, -> (F, M)."""
    from transformers.audio_utils import mel_filter_bank

    filters = mel_filter_bank(
        num_frequency_bins=1 + WINDOW_SAMPLES // 2,
        num_mel_filters=bands,
        min_frequency=0.0,
        max_frequency=8000.0,
        sampling_rate=16_000,
        norm="slaney",
        mel_scale="slaney",
    )
    return torch.from_numpy(filters).float()


def at_most(size: int, limit: int) -> int:
    """The smaller of two sizes. A graph that is traced for clips of any length takes the limit as one of its input,
    where `min` would take it as part of the length.
    """
    return size if size <= limit else limit


def log_mel(wave_BS: Tensor, filters_FM: Tensor, *, frames: int, limit_samples: int) -> Tensor:
    """First `frames` frames of the log-mel spectrogram of clips padded with silence to the limit, -> (B, M, frames).

    Equal to transformers' WhisperFeatureExtractor as long as every real sample lies in these frames: the rest of the
    limit (30 s for Whisper) is silence, which never holds a clip's maximum, so it need not be computed.
    """
    # Two frames beyond the last one keep the reflection at the end of the transform away from it.
    samples = at_most((frames + 2) * HOP_SAMPLES, limit_samples)
    padded_BS = F.pad(wave_BS, (0, samples - wave_BS.shape[1]))
    window = torch.hann_window(WINDOW_SAMPLES, device=wave_BS.device)
    spectrum_BFT = torch.stft(padded_BS, WINDOW_SAMPLES, HOP_SAMPLES, window=window, return_complex=True)
    power_BFT = spectrum_BFT[..., :frames].abs().square()
    level_BMT = (filters_FM.T @ power_BFT).clamp(min=1e-10).log10()
    floor_B11 = level_BMT.amax(dim=(1, 2), keepdim=True) - 8.0
    return (torch.maximum(level_BMT, floor_B11) + 4.0) / 4.0
