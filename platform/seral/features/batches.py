"""Batches of clips of similar length, padded; rows by id.

A batch's shape decides how its sums are rounded. Where that must not matter to anybody, shapes are fixed: a clip's own
length says what it is padded to and how many share its batch, which is filled up with silence (`FixedShapes`).
"""

# B batch · S samples · T frames · D features
from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from ser_models.encoders import SpeechEncoder
from seral.errors import FeatureError
from seral.schema import SAMPLE_RATE

Float = NDArray[np.float32]


class FixedBatch(NamedTuple):
    """Some clips that are computed together, and the shape of the tensor that they are put in."""

    positions: list[int]
    """Positions of the clips, `rows` or fewer: other rows are filled up."""
    rows: int
    length: int
    """Samples or frames that every row is padded to."""

    @property
    def filled(self) -> list[int]:
        """A position for every row: those that fill it up have the first clip's."""
        return self.positions + self.positions[:1] * (self.rows - len(self.positions))


@dataclass(frozen=True, kw_only=True)
class FixedShapes:
    """Shapes of batches that follow from the length of a clip alone, eight lengths an octave.

    So nothing that is computed of a clip depends on its neighbours, on their number, or on shards and workers.
    """

    size: int
    """Samples or frames in a batch, padding included, where it is more than a clip."""
    rows: int
    """Clips in a batch, at most."""
    margin: int
    """Padding of every clip at least: where some of a batch had none, some kernels would be others."""
    longest: int | None = None
    """Nothing is padded to more; a clip as long as that is alone in its batch."""

    def padded(self, length: int) -> int:
        """The length that a clip of some length is padded to."""
        step = 1 << max(0, (length + self.margin - 1).bit_length() - 4)
        padded = -(-(length + self.margin) // step) * step
        return padded if self.longest is None else max(length, min(padded, self.longest))

    def batches(self, lengths: Sequence[int]) -> Iterator[FixedBatch]:
        """Every clip once, the longest first."""
        alike: dict[int, list[int]] = {}
        for position in sorted(range(len(lengths)), key=lambda i: (-lengths[i], i)):
            alike.setdefault(self.padded(lengths[position]), []).append(position)
        for length, positions in alike.items():
            alone = self.longest is not None and length >= self.longest
            rows = 1 if alone else max(1, min(self.rows, self.size // length))
            yield from (FixedBatch(positions[at : at + rows], rows, length) for at in range(0, len(positions), rows))


def clip_shapes(encoder: SpeechEncoder, max_clip_s: float) -> FixedShapes:
    """Shapes of batches of audio for an encoder, on the device that it is on.

    One core is as fast with four clips as with thirty; a GPU wants more.
    """
    size_s, rows = (12, 4) if _on_cpu(encoder) else (80, 64)
    hop = round(SAMPLE_RATE / encoder.frame_rate_hz)
    longest = min(int(max_clip_s * SAMPLE_RATE), encoder.limit_samples or 2**31)
    return FixedShapes(size=size_s * SAMPLE_RATE, rows=rows, margin=hop, longest=longest)


def frame_shapes(encoder: SpeechEncoder) -> FixedShapes:
    """Shapes of batches of cached frames, in frames, as those of audio."""
    size, rows = (600, 4) if _on_cpu(encoder) else (FRAMES_IN_BATCH, 64)
    return FixedShapes(size=size, rows=rows, margin=1)


def _on_cpu(encoder: SpeechEncoder) -> bool:
    return next(encoder.parameters()).device.type == "cpu"


def length_sorted_batches(lengths: Sequence[int], padded_limit: int) -> list[list[int]]:
    """Positions in batches of similar length whose padded size stays within `padded_limit` (at least one a batch)."""
    batches: list[list[int]] = []
    for index in sorted(range(len(lengths)), key=lambda i: (-lengths[i], i)):
        if batches and lengths[batches[-1][0]] * (len(batches[-1]) + 1) <= padded_limit:
            batches[-1].append(index)
        else:
            batches.append([index])
    return batches


def pad_clips(clips: Sequence[Float], batch: FixedBatch | None = None) -> tuple[Tensor, Tensor]:
    """Zero-pad clips to one tensor: wave (B, S) and lengths (B,) in samples.

    With a fixed batch that of its clips, and rows of silence where there are fewer.
    """
    chosen = clips if batch is None else [clips[position] for position in batch.positions]
    lengths = [len(clip) for clip in chosen]
    rows, longest = (len(chosen), max(lengths)) if batch is None else (batch.rows, batch.length)
    wave_BS = torch.zeros(rows, longest)
    for row, clip in enumerate(chosen):
        wave_BS[row, : len(clip)] = torch.from_numpy(np.ascontiguousarray(clip))
    return wave_BS, torch.tensor(lengths + [longest] * (rows - len(lengths)))


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


def pad_frames(frames: Sequence[NDArray[np.float16]], batch: FixedBatch | None = None) -> tuple[Tensor, Tensor]:
    """Zero-pad frames (T, D) to one fp32 tensor (B, T, D) and the mask (B, T) of real ones.

    T is a multiple of PAD_TO: torch keeps something for every shape it has met, and a training with hundreds of them
    would grow by gigabytes. With a fixed batch it is that of its clips, and rows of zeros fill it up.
    """
    chosen = frames if batch is None else [frames[position] for position in batch.positions]
    rows = len(chosen) if batch is None else batch.rows
    longest = -(-max(len(frame_TD) for frame_TD in chosen) // PAD_TO) * PAD_TO if batch is None else batch.length
    hidden_BTD = torch.zeros(rows, longest, chosen[0].shape[1])
    mask_BT = torch.zeros(rows, longest, dtype=torch.bool)
    for row, frame_TD in enumerate(chosen):
        hidden_BTD[row, : len(frame_TD)] = torch.from_numpy(frame_TD.astype(np.float32))
        mask_BT[row, : len(frame_TD)] = True
    mask_BT[len(chosen) :] = True
    return hidden_BTD, mask_BT
