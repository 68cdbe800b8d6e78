"""Training from audio, for a model whose convolutions learn: no hidden state of it may be cached."""

# B batch · S samples · T frames
from __future__ import annotations

from collections.abc import Collection, Iterator, Sequence
from dataclasses import replace

import numpy as np
from numpy.typing import NDArray

from ser_models.encoders import SpeechEncoder
from ser_models.encoders.encoder import prefix_mask
from seral.audio.decode import decode_flac
from seral.features.audio import encoder_facts
from seral.features.frames import FrameReader
from seral.features.store import FeatureStore, Half
from seral.schema import SAMPLE_RATE
from seral.training.model import FrameBatch

AUDIO = -1
"""The audio itself, where the hidden state is named from which a training starts."""


def read_waves(store: FeatureStore, ids: Collection[str]) -> dict[str, NDArray[np.float32]]:
    """Audio (S, 1) of clips by id, as long as that of their features, in memory: of the labelled part alone."""
    limit, waves = int(encoder_facts(store)["max_clip_s"] * SAMPLE_RATE), dict[str, NDArray[np.float32]]()
    for shard in store.index().rows_by_shard(sorted(ids)):
        table = store.pool.read(shard, ["utterance_id", "audio"])
        for row, name in enumerate(table["utterance_id"].to_pylist()):
            if name in ids:
                waves[name] = decode_flac(table["audio"][row].as_py())[:limit, None]
    return waves


def wave_batch(batch: FrameBatch, encoder: SpeechEncoder) -> FrameBatch:
    """A batch of audio, as one of frames one number wide, with the mask of the frames (B, T) that it will give."""
    length_B = batch.mask_BT.sum(1)
    size = int(encoder.frames(length_B.new_tensor([batch.mask_BT.shape[1]])))
    return replace(batch, mask_BT=prefix_mask(encoder.frames(length_B), size), length_B=length_B)


class StemReader(FrameReader):
    """Frames of hidden state 0 as a trained stem makes them, always from audio."""

    def __init__(self, store: FeatureStore, encoder: SpeechEncoder) -> None:
        super().__init__(store, 0, encoder)

    def pieces(self, ids: Sequence[str]) -> Iterator[dict[str, Half]]:
        """Frames (T, D) by id of clips anywhere in the pool."""
        for shard in self.store.shards:
            yield from self._made(shard, ids)

    def of_shard(self, shard: str, ids: Sequence[str]) -> Iterator[dict[str, Half]]:
        """Frames (T, D) by id of clips of one shard."""
        return self._made(shard, ids)


def reader_of(store: FeatureStore, layer: int, encoder: SpeechEncoder) -> FrameReader:
    """The reader of the frames that a model starts from: of a hidden state, or of its own stem."""
    return StemReader(store, encoder) if layer == AUDIO else FrameReader(store, layer, encoder)
