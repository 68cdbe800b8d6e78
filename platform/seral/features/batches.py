"""Batches of clips of similar length, padded; rows by id."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from seral.errors import FeatureError

Float = NDArray[np.float32]


def length_sorted_batches(lengths: Sequence[int], padded_limit: int) -> list[list[int]]:
    """Positions in batches of similar length whose padded size stays within `padded_limit` (at least one a batch)."""
    batches: list[list[int]] = []
    for index in sorted(range(len(lengths)), key=lambda i: (-lengths[i], i)):
        if batches and lengths[batches[-1][0]] * (len(batches[-1]) + 1) <= padded_limit:
            batches[-1].append(index)
        else:
            batches.append([index])
    return batches


def pad_clips(clips: Sequence[Float]) -> tuple[Tensor, Tensor]:
    """Zero-pad clips to one tensor: wave (B, S) and lengths (B,) in samples."""
    length_B = torch.tensor([len(clip) for clip in clips])
    wave_BS = torch.zeros(len(clips), int(length_B.max()))
    for row, clip in enumerate(clips):
        wave_BS[row, : len(clip)] = torch.from_numpy(np.ascontiguousarray(clip))
    return wave_BS, length_B


def rows_of(ids: Sequence[str], asked_ids: Sequence[str]) -> NDArray[np.int64]:
    """Positions of `wanted` in the sorted `ids`. Raises FeatureError naming those that have no features."""
    array = np.asarray(ids, dtype=np.str_)
    position = np.searchsorted(array, np.asarray(asked_ids, dtype=np.str_))
    absent = [name for name, at in zip(asked_ids, position, strict=True) if at == len(array) or array[at] != name]
    if absent:
        raise FeatureError(f"{len(absent)} utterances have no features, e.g. {', '.join(absent[:5])}")
    return position


Frames = Mapping[str, NDArray[np.float16]]


FRAMES_IN_BATCH = 6000


PAD_TO = 16
"""Batches of cached frames are as long as a multiple of this."""


def frame_batches(ids: Sequence[str], frames: Frames) -> list[list[str]]:
    """Ids in length-sorted batches of bounded size."""
    return [[ids[i] for i in b] for b in length_sorted_batches([len(frames[n]) for n in ids], FRAMES_IN_BATCH)]


def pad_frames(frames: Sequence[NDArray[np.float16]]) -> tuple[Tensor, Tensor]:
    """Zero-pad frames (T, D) to one fp32 tensor (B, T, D) and the mask (B, T) of real ones.

    T is a multiple of PAD_TO: torch keeps something for every shape it has met, and a training with hundreds of them
    would grow by gigabytes.
    """
    longest = -(-max(len(frame_TD) for frame_TD in frames) // PAD_TO) * PAD_TO
    hidden_BTD = torch.zeros(len(frames), longest, frames[0].shape[1])
    mask_BT = torch.zeros(len(frames), longest, dtype=torch.bool)
    for row, frame_TD in enumerate(frames):
        hidden_BTD[row, : len(frame_TD)] = torch.from_numpy(frame_TD.astype(np.float32))
        mask_BT[row, : len(frame_TD)] = True
    return hidden_BTD, mask_BT
