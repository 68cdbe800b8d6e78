"""Cached frames of one hidden state as an adapter above the encoder gets them, a shard in memory at a time."""

# T frames · D features · N rows (frames of all clips)
from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from seral.errors import TrainError
from seral.features.store import FeatureStore

Half = NDArray[np.float16]


@dataclass(frozen=True, kw_only=True)
class FrameSource:
    """The cached frames of a hidden state, averaged in groups."""

    store: FeatureStore
    layer: int
    """The hidden state."""
    stride: int
    """So many frames in a row are averaged to one."""

    def shard(self, shard: str, ids: Iterable[str]) -> dict[str, Half]:
        """Frames (T, D) of the ids that lie in a shard."""
        frames = self.store.shard_frames(self.layer, shard, set(ids))
        return {name: averaged(frames_TD, self.stride) for name, frames_TD in frames.items()}

    def frames(self, ids: Iterable[str]) -> dict[str, Half]:
        """Frames of all of them in one piece: for the labelled part, not for a pool."""
        wanted = set(ids)
        return {name: f.copy() for shard in self.store.pool.shards for name, f in self.shard(shard, wanted).items()}


@dataclass(frozen=True, kw_only=True)
class Survey:
    """Lengths and feature statistics of the clips that a training learns from."""

    length: dict[str, dict[str, int]]
    """Shard -> id -> frames."""
    mean_D: NDArray[np.float64]
    std_D: NDArray[np.float64]
    """Of every feature, over all frames."""

    @property
    def total(self) -> int:
        """Frames N of all clips."""
        return sum(frames for shard in self.length.values() for frames in shard.values())


def averaged(frames_TD: Half, stride: int) -> Half:
    """Means of `stride` frames in a row, (T, D) -> (⌈T / stride⌉, D); the last group may be smaller."""
    if stride == 1:
        return frames_TD
    starts = np.arange(0, len(frames_TD), stride)
    count_T1 = np.diff(starts, append=len(frames_TD))[:, None]
    return (np.add.reduceat(frames_TD.astype(np.float32), starts) / count_T1).astype(np.float16)


def survey(source: FrameSource, ids: Iterable[str], minimal_frames: int = 1) -> Survey:
    """Lengths and feature statistics of some utterances; those of fewer frames are left out."""
    wanted, length = set(ids), dict[str, dict[str, int]]()
    width = source.store.width
    total, sum_D, square_D = 0, np.zeros(width), np.zeros(width)
    for shard in source.store.pool.shards:
        clips = {n: f for n, f in sorted(source.shard(shard, wanted).items()) if len(f) >= minimal_frames}
        if not clips:
            continue
        length[shard] = {name: len(frames_TD) for name, frames_TD in clips.items()}
        frames_ND = np.concatenate(list(clips.values())).astype(np.float64)
        total, sum_D, square_D = total + len(frames_ND), sum_D + frames_ND.sum(0), square_D + (frames_ND**2).sum(0)
    if not total:
        raise TrainError(f"none of {len(wanted)} utterances has {minimal_frames} frames to learn from")
    # In float64 the difference of squares keeps its digits: what comes in has eleven bits.
    variance_D = np.maximum(square_D / total - (sum_D / total) ** 2, 0)
    return Survey(length=length, mean_D=sum_D / total, std_D=np.sqrt(variance_D))
