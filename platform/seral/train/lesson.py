"""What a student hears and what its teacher makes of it: clips in versions, batches of similar length, noise.

A version (piece, speed, level) depends on the seed and the clip's number alone, so the teacher runs once per version
and its states are kept. Noise is drawn anew for every batch, and the teacher never hears it.
"""

# N clips · S samples · B batch · T frames · D features · L distilled teacher states
from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from itertools import count

import numpy as np
import torch
from pydantic import Field
from torch import Tensor

from ser_models.encoders import SpeechEncoder
from ser_models.tapt import random_crop
from seral.errors import TrainError
from seral.features import length_sorted_batches, pad_clips
from seral.options import Options
from seral.pool.decode import decode_flac
from seral.pool.shards import open_pool
from seral.train.augment import Samples, add_noise, change_level, change_speed

LENGTH_NOISE = 0.15
"""Clips are batched by their length with so much log-normal noise: little padding, other neighbours every epoch."""


class LessonOptions(Options):
    """What is heard, and how it is varied."""

    states: tuple[int, ...] = (2, 3)
    """Hidden states of the teacher that the student predicts; kept in memory: 140 MB an hour, version and state of 384
    features."""
    batch_s: float = Field(default=24.0, gt=0)
    """Seconds of audio in a step, padding included."""
    crop_s: float = Field(default=4.0, gt=0)
    """Longer clips give a random piece of this length to each version."""
    versions: int = Field(default=3, ge=1)
    """Versions of each clip."""
    speed: float = Field(default=0.12, ge=0, lt=1)
    """Speed and pitch change together by up to this share."""
    gain_db: tuple[float, float] = (-12.0, 6.0)
    """Lowest and highest change of level, dB."""
    noisy: float = Field(default=0.5, ge=0, le=1)
    """Share of the clips in a batch that get noise, where there is a pool of noises."""
    snr_db: tuple[float, float] = (5.0, 30.0)
    """Lowest and highest signal-to-noise ratio of those, dB."""


@dataclass(kw_only=True)
class Lesson:
    """Clips, noises and the teacher, with what the teacher has already said."""

    clips: list[bytes]
    """FLAC."""
    length_N: list[float]
    """Seconds of each clip that are heard."""
    noises: list[Samples]
    teacher: SpeechEncoder
    options: LessonOptions
    seed: int
    known: dict[tuple[int, int], Tensor] = field(default_factory=dict)

    def hear(self, clip: int, version: int) -> Samples:
        """One version of a clip."""
        rng = np.random.default_rng([self.seed, 1, clip, version])
        piece = random_crop(decode_flac(self.clips[clip]), self.options.crop_s, rng)
        return change_level(change_speed(piece, self.options.speed, rng), self.options.gain_db, rng)

    @torch.inference_mode()
    def states(self, clip: int, version: int) -> Tensor:
        """The teacher's states of a version, (L, T, D) fp16; computed once."""
        if (clip, version) not in self.known:
            output = self.teacher(*pad_clips([self.hear(clip, version)]))
            self.known[clip, version] = output.hidden_LBTD[list(self.options.states), 0].half()
        return self.known[clip, version]

    def batch(self, rows: Sequence[int], rng: np.random.Generator) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """Clips in drawn versions, some noisy: waves (B, S), their lengths, teacher's states (L, B, T, D), theirs."""
        versions = rng.integers(self.options.versions, size=len(rows)).tolist()
        heard = [self.hear(*pair) for pair in zip(rows, versions, strict=True)]
        states = [self.states(*pair).transpose(0, 1) for pair in zip(rows, versions, strict=True)]
        for row in np.flatnonzero(rng.random(len(rows)) < self.options.noisy) if self.noises else ():
            heard[row] = add_noise(heard[row], self.noises[rng.integers(len(self.noises))], self.options.snr_db, rng)
        padded_BTLD = torch.nn.utils.rnn.pad_sequence(states, batch_first=True)
        wave_BS, length_B = pad_clips(heard)
        return wave_BS, length_B, padded_BTLD.permute(2, 0, 1, 3), torch.tensor([len(frames) for frames in states])

    def plan(self) -> Iterator[list[int]]:
        """Endless batches of clip numbers, each epoch in another order."""
        limit_ms = round(self.options.batch_s * 1000)
        for epoch in count():
            rng = np.random.default_rng([self.seed, 2, epoch])
            jitter_N = np.exp(LENGTH_NOISE * rng.standard_normal(len(self.length_N)))
            length_ms = [round(1000 * length_s * j) for length_s, j in zip(self.length_N, jitter_N, strict=True)]
            batches = length_sorted_batches(length_ms, limit_ms)
            yield from (batches[index] for index in rng.permutation(len(batches)))


def read_clips(pools: Sequence[str], corpora: Sequence[str] = ()) -> tuple[list[bytes], list[float]]:
    """FLAC bytes and seconds of every utterance that is no duplicate; of some corpora only, where any are named."""
    clips, length_N = [], []
    for pool in map(open_pool, pools):
        for shard in pool.shards:
            table = pool.read(shard, ["audio", "duration_s", "corpus", "duplicate_of"])
            for row in table.to_pylist():
                if row["duplicate_of"] is None and (not corpora or row["corpus"] in corpora):
                    clips.append(row["audio"])
                    length_N.append(row["duration_s"])
    if not clips:
        raise TrainError(f"no utterance of {', '.join(corpora) or 'any corpus'} in {', '.join(pools)}")
    return clips, length_N
