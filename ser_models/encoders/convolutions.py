"""Convolutional stems on zero-padded batches: lengths, and norms that see only real samples or frames.

# B batch · S samples · C channels · T frames
"""

from __future__ import annotations

from collections.abc import Iterable

import torch
from torch import Tensor, nn

from ser_models.encoders.encoder import prefix_mask


def convolved_length(length_B: Tensor, convolutions: Iterable[nn.Conv1d]) -> Tensor:
    """Number of outputs of a stack of unpadded convolutions that see only real input, (B,) -> (B,); 0 if too short."""
    for convolution in convolutions:
        length_B = (length_B - convolution.kernel_size[0]).div(convolution.stride[0], rounding_mode="floor") + 1
    return length_B.clamp(min=0)


def receptive_field(convolutions: Iterable[nn.Conv1d]) -> int:
    """Samples under one output of a stack of unpadded convolutions: the shortest clip that yields a frame."""
    field, hop = 1, 1
    for convolution in convolutions:
        field += (convolution.kernel_size[0] - 1) * hop
        hop *= convolution.stride[0]
    return field


def total_stride(convolutions: Iterable[nn.Conv1d]) -> int:
    """Samples between two outputs of a stack of convolutions."""
    hop = 1
    for convolution in convolutions:
        hop *= convolution.stride[0]
    return hop


def masked_group_norm(hidden_BCT: Tensor, length_B: Tensor, norm: nn.GroupNorm) -> Tensor:
    """GroupNorm over time with statistics of the first length_B frames only, (B, C, T) -> (B, C, T).

    On those frames it equals the norm of each clip alone, so clips of any length can share a batch.
    """
    batch, channels, time = hidden_BCT.shape
    grouped_BGKT = hidden_BCT.reshape(batch, norm.num_groups, channels // norm.num_groups, time)
    mask_B11T = prefix_mask(length_B, time)[:, None, None, :]
    count_B111 = length_B.view(-1, 1, 1, 1) * grouped_BGKT.shape[2]
    mean_BG11 = (grouped_BGKT * mask_B11T).sum((2, 3), keepdim=True) / count_B111
    centred_BGKT = grouped_BGKT - mean_BG11
    variance_BG11 = (centred_BGKT.square() * mask_B11T).sum((2, 3), keepdim=True) / count_B111
    normed_BCT = (centred_BGKT * torch.rsqrt(variance_BG11 + norm.eps)).view(batch, channels, time)
    if norm.affine:
        normed_BCT = normed_BCT * norm.weight[:, None] + norm.bias[:, None]
    return normed_BCT


def standardise_clips(wave_BS: Tensor, length_B: Tensor) -> Tensor:
    """Zero mean and unit variance per clip over its real samples, padding stays zero, (B, S) -> (B, S).

    The same formula as transformers' Wav2Vec2FeatureExtractor with do_normalize (variance + 1e-7 under the root).
    """
    mask_BS = prefix_mask(length_B, wave_BS.shape[1])
    count_B1 = length_B.unsqueeze(1)
    centred_BS = (wave_BS - (wave_BS * mask_BS).sum(1, keepdim=True) / count_B1) * mask_BS
    variance_B1 = centred_BS.square().sum(1, keepdim=True) / count_B1
    return centred_BS * torch.rsqrt(variance_B1 + 1e-7)
