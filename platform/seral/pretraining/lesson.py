"""What a student hears and what its teacher makes of it: clips in versions, batches of similar length, noise.

A version (piece, speed, level) depends on the seed and the clip's id alone, so the teacher runs once per version and
its states can be kept. Noise, rooms and codecs are drawn anew for every batch, and the teacher never hears them.
"""

# S samples · B batch · T frames · D features · L distilled teacher states
from __future__ import annotations

import zlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from itertools import count

import numpy as np
import torch
from numpy.typing import NDArray
from pydantic import Field
from torch import Tensor

from ser_models.encoders import SpeechEncoder
from ser_models.objectives import random_crop
from seral.audio.effects import CODECS, Samples, add_noise, change_level, change_speed, reverberate, through_codec
from seral.features.batches import length_sorted_batches, pad_clips
from seral.features.speech import Durations, Speech, random_clips
from seral.options import Options

LENGTH_NOISE = 0.15
"""Clips are batched by their length with so much log-normal noise: little padding, other neighbours every epoch."""
VERSION, EPOCH, STEP, SCALE = 1, 2, 3, 4
"""What a generator is for: the word behind the seed."""


class LessonOptions(Options):
    """What is heard, and how it is varied."""

    states: tuple[int, ...] | None = None
    """Hidden states of the teacher that the student predicts; None = at thirds of its depth, 4, 8 and 12 of 12."""
    batch_s: float = Field(default=24.0, gt=0)
    """Seconds of audio in a step of all workers together, padding included."""
    crop_s: float = Field(default=4.0, gt=0)
    """Longer clips give a random piece of this length to each version."""
    versions: int | None = Field(default=3, ge=1)
    """Versions of each clip. What the teacher makes of them is kept in memory: 140 MB an hour, version and state of 384
    features. None = always a new version and nothing kept, for large pools."""
    speed: float = Field(default=0.12, ge=0, lt=1)
    """Speed and pitch change together by up to this share."""
    gain_db: tuple[float, float] = (-12.0, 6.0)
    """Lowest and highest change of level, dB."""
    noisy: float = Field(default=0.5, ge=0, le=1)
    """Share of the clips in a batch that get noise, where there is a pool of noises."""
    snr_db: tuple[float, float] = (5.0, 30.0)
    """Lowest and highest signal-to-noise ratio of those, dB."""
    reverberant: float = Field(default=0.0, ge=0, le=1)
    """Share of the clips in a batch that are heard in a room."""
    rt60_s: tuple[float, float] = (0.2, 0.8)
    """Shortest and longest time in which its echo falls by 60 dB."""
    drr_db: tuple[float, float] = (0.0, 10.0)
    """By how much the voice is louder than its echo, lowest and highest."""
    coded: float = Field(default=0.0, ge=0, le=1)
    """Share of the clips in a batch that come through a codec, any of seral.audio.effects.CODECS."""


@dataclass(frozen=True)
class Version:
    """One version of one utterance."""

    shard: str
    name: str
    number: int


@dataclass(kw_only=True)
class Lesson:
    """Speech, noises and the teacher, with what the teacher has already said."""

    speech: Speech
    noises: list[Samples]
    teacher: SpeechEncoder
    states: Sequence[int]
    """Hidden states of the teacher that are learned."""
    options: LessonOptions
    seed: int
    device: torch.device = field(default_factory=lambda: torch.device("cpu"))
    known: dict[Version, Tensor] = field(default_factory=dict)

    @cached_property
    def heard_s(self) -> Durations:
        """Seconds of every clip that a version has at most."""
        crop_s = self.options.crop_s
        return {
            s: {n: min(length_s, crop_s) for n, length_s in rows.items()} for s, rows in self.speech.duration_s.items()
        }

    def hear(self, version: Version) -> Samples:
        """One version of a clip."""
        rng = np.random.default_rng([self.seed, VERSION, zlib.crc32(version.name.encode()), version.number])
        piece = random_crop(self.speech.clip(version.shard, version.name), self.options.crop_s, rng)
        return change_level(change_speed(piece, self.options.speed, rng), self.options.gain_db, rng)

    def taught(self, versions: Sequence[Version], heard: Sequence[Samples]) -> list[Tensor]:
        """The teacher's states of each version, (L, T, D) fp16; computed once where the versions are numbered."""
        new = [row for row, version in enumerate(versions) if version not in self.known]
        told = dict(zip(new, self._teach([heard[row] for row in new]), strict=True)) if new else {}
        if self.options.versions is not None:
            self.known |= {versions[row]: states for row, states in told.items()}
        return [told[row] if row in told else self.known[version] for row, version in enumerate(versions)]

    def batch(self, shard: str, ids: Sequence[str], rng: np.random.Generator) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """Clips in drawn versions, some noisy: waves (B, S), their lengths, teacher's states (L, B, T, D), theirs."""
        numbers = rng.integers(self.options.versions or 2**31, size=len(ids)).tolist()
        versions = [Version(shard, name, number) for name, number in zip(ids, numbers, strict=True)]
        heard = [self.hear(version) for version in versions]
        states = [states_LTD.transpose(0, 1) for states_LTD in self.taught(versions, heard)]
        self._worsen(heard, rng)
        padded_BTLD = torch.nn.utils.rnn.pad_sequence(states, batch_first=True)
        wave_BS, length_B = pad_clips(heard)
        return wave_BS, length_B, padded_BTLD.permute(2, 0, 1, 3), torch.tensor([len(frames) for frames in states])

    def _worsen(self, heard: list[Samples], rng: np.random.Generator) -> None:
        """Put some of a batch into rooms, some into noise, some through codecs, in place. The teacher hears none of it.

        Only shares above 0 draw.
        """
        options = self.options

        def some(share: float) -> NDArray[np.int64]:
            return np.flatnonzero(rng.random(len(heard)) < share) if share else np.empty(0, np.int64)

        for row in some(options.reverberant):
            heard[row] = reverberate(heard[row], options.rt60_s, options.drr_db, rng)
        for row in some(options.noisy if self.noises else 0.0):
            heard[row] = add_noise(heard[row], self.noises[rng.integers(len(self.noises))], options.snr_db, rng)
        for row in some(options.coded):
            heard[row] = through_codec(heard[row], str(rng.choice(sorted(CODECS))))

    def plan(self) -> Iterator[tuple[str, list[str]]]:
        """Endless (shard, ids) batches: each epoch shards in another order, clips with others of their length."""
        limit_ms = round(self.options.batch_s * 1000)
        for epoch in count():
            rng = np.random.default_rng([self.seed, EPOCH, epoch])
            for shard in rng.permutation(sorted(self.heard_s)).tolist():
                names, length_N = zip(*self.heard_s[shard].items(), strict=True)
                jitter_N = np.exp(LENGTH_NOISE * rng.standard_normal(len(names)))
                length_ms = [round(1000 * length_s * j) for length_s, j in zip(length_N, jitter_N, strict=True)]
                batches = length_sorted_batches(length_ms, limit_ms)
                yield from ((shard, [names[row] for row in batches[index]]) for index in rng.permutation(len(batches)))

    def sample(self, seconds: float) -> Tensor:
        """The teacher's states on random clips of about so many seconds in all, (L, N, D) of N frames."""
        chosen = random_clips(self.heard_s, seconds, np.random.default_rng([self.seed, SCALE]))
        versions = [Version(shard, name, 0) for shard, names in sorted(chosen.items()) for name in sorted(names)]
        return torch.cat([self.taught([version], [self.hear(version)])[0].float() for version in versions], 1)

    @torch.inference_mode()
    def _teach(self, heard: Sequence[Samples]) -> list[Tensor]:
        """What the teacher makes of each clip by itself, so that it does not matter with which others it is heard."""
        told = []
        for samples in heard:
            wave_1S, length_1 = pad_clips([samples])
            output = self.teacher(wave_1S.to(self.device), length_1.to(self.device))
            told.append(output.hidden_LBTD[list(self.states), 0].half().cpu())
        return told
