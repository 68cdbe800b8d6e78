"""Random pieces of clips, in batches by seconds of audio."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import numpy as np
from numpy.typing import NDArray

from ser_models.encoders.encoder import SAMPLE_RATE_HZ
from ser_models.objectives.options import MaskedPredictionOptions

# N clips · S samples


def random_crop(wave_S: NDArray[np.float32], crop_s: float, rng: np.random.Generator) -> NDArray[np.float32]:
    """At most `crop_s` seconds of a 16 kHz waveform, from a random place."""
    size = round(crop_s * SAMPLE_RATE_HZ)
    if len(wave_S) <= size:
        return wave_S
    start = int(rng.integers(len(wave_S) - size + 1))
    return wave_S[start : start + size]


def batches_by_seconds(
    duration_N: Sequence[float], options: MaskedPredictionOptions, rng: np.random.Generator
) -> Iterator[list[int]]:
    """One epoch of row numbers in random order, in batches of at most `batch_s` of audio after cropping."""
    if len(duration_N) == 0:
        raise ValueError("pretraining needs at least one clip, got none")
    batch: list[int] = []
    seconds = 0.0
    for row in rng.permutation(len(duration_N)).tolist():
        length_s = min(duration_N[row], options.crop_s)
        if batch and seconds + length_s > options.batch_s:
            yield batch
            batch, seconds = [], 0.0
        batch.append(row)
        seconds += length_s
    yield batch
