"""Augmented views of clips for a student, and its teacher's hidden states on them: batches of similar length, noise.

A view (piece, speed, level) depends on the seed and the clip's id alone, so the teacher runs once per view and its
states can be kept. Noise, rooms and codecs are drawn anew for every batch, and the teacher never hears them.
"""

# S samples · B batch · T frames · D features · L hidden states of the teacher that are distilled
from __future__ import annotations

import zlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from itertools import count

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from ser_models.encoders import SpeechEncoder
from ser_models.objectives import random_crop
from seral.audio.effects import CODECS, Samples, add_noise, change_level, change_speed, reverberate, through_codec
from seral.features.batches import length_sorted_batches, pad_clips
from seral.features.speech import Durations, Speech, random_clips
from seral.pretraining.options import DistillationDataOptions
from seral.pretraining.plans import PlannedBatch, length_factors

VIEW, EPOCH, STEP, SCALE = 1, 2, 3, 4
"""Uses of a random generator: the word behind the seed."""


@dataclass(frozen=True)
class View:
    """One augmented view of one utterance."""

    shard: str
    name: str
    number: int


@dataclass(kw_only=True)
class DistillationData:
    """Speech, noises and the teacher, with the states of the teacher that are kept."""

    speech: Speech
    noises: list[Samples]
    teacher: SpeechEncoder
    states: Sequence[int]
    """Hidden states of the teacher that are learned."""
    options: DistillationDataOptions
    seed: int
    device: torch.device = field(default_factory=lambda: torch.device("cpu"))
    cached_states: dict[View, Tensor] = field(default_factory=dict)
    """The teacher's states, (L, T, D) fp16, of the views that were drawn so far."""

    @cached_property
    def length_s(self) -> Durations:
        """Seconds of every clip that a view has at most."""
        crop_s = self.options.crop_s
        return {
            s: {n: min(seconds, crop_s) for n, seconds in rows.items()} for s, rows in self.speech.duration_s.items()
        }

    def samples(self, view: View) -> Samples:
        """One view of a clip."""
        rng = np.random.default_rng([self.seed, VIEW, zlib.crc32(view.name.encode()), view.number])
        piece = random_crop(self.speech.clip(view.shard, view.name), self.options.crop_s, rng)
        return change_level(change_speed(piece, self.options.speed, rng), self.options.gain_db, rng)

    def states_of(self, views: Sequence[View], clips: Sequence[Samples]) -> list[Tensor]:
        """The teacher's states of each view, (L, T, D) fp16; computed once where the views are numbered."""
        new = [row for row, view in enumerate(views) if view not in self.cached_states]
        computed = dict(zip(new, self._run_teacher([clips[row] for row in new]), strict=True)) if new else {}
        if self.options.views is not None:
            self.cached_states |= {views[row]: states for row, states in computed.items()}
        return [computed[row] if row in computed else self.cached_states[view] for row, view in enumerate(views)]

    def batch(self, shard: str, ids: Sequence[str], rng: np.random.Generator) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """Drawn views of clips, some noisy: waves (B, S), their lengths, teacher's states (L, B, T, D), theirs."""
        numbers = rng.integers(self.options.views or 2**31, size=len(ids)).tolist()
        views = [View(shard, name, number) for name, number in zip(ids, numbers, strict=True)]
        clips = [self.samples(view) for view in views]
        states = [states_LTD.transpose(0, 1) for states_LTD in self.states_of(views, clips)]
        self._corrupt(clips, rng)
        padded_BTLD = torch.nn.utils.rnn.pad_sequence(states, batch_first=True)
        wave_BS, length_B = pad_clips(clips)
        return wave_BS, length_B, padded_BTLD.permute(2, 0, 1, 3), torch.tensor([len(frames) for frames in states])

    def _corrupt(self, clips: list[Samples], rng: np.random.Generator) -> None:
        """Put some of a batch into rooms, some into noise, some through codecs, in place, for the student alone.

        Only shares above 0 draw.
        """
        options = self.options

        def some(share: float) -> NDArray[np.int64]:
            return np.flatnonzero(rng.random(len(clips)) < share) if share else np.empty(0, np.int64)

        for row in some(options.reverberant):
            clips[row] = reverberate(clips[row], options.rt60_s, options.drr_db, rng)
        for row in some(options.noisy if self.noises else 0.0):
            clips[row] = add_noise(clips[row], self.noises[rng.integers(len(self.noises))], options.snr_db, rng)
        for row in some(options.coded):
            clips[row] = through_codec(clips[row], str(rng.choice(sorted(CODECS))))

    def plan(self) -> Iterator[PlannedBatch]:
        """Endless batches: each epoch shards in another order, clips with others of their length."""
        limit_ms = round(self.options.batch_s * 1000)
        for epoch in count():
            rng, number = np.random.default_rng([self.seed, EPOCH, epoch]), count()
            for shard in rng.permutation(sorted(self.length_s)).tolist():
                names, length_N = zip(*self.length_s[shard].items(), strict=True)
                factor_N = length_factors(len(names), rng)
                length_ms = [round(1000 * length_s * f) for length_s, f in zip(length_N, factor_N, strict=True)]
                batches = length_sorted_batches(length_ms, limit_ms)
                for index in rng.permutation(len(batches)):
                    ids = [names[row] for row in batches[index]]
                    yield PlannedBatch(shard=shard, ids=ids, epoch=epoch, number=next(number))

    def sample(self, seconds: float) -> Tensor:
        """The teacher's states on random clips of about so many seconds in all, (L, N, D) of N frames."""
        chosen = random_clips(self.length_s, seconds, np.random.default_rng([self.seed, SCALE]))
        views = [View(shard, name, 0) for shard, names in sorted(chosen.items()) for name in sorted(names)]
        return torch.cat([self.states_of([view], [self.samples(view)])[0].float() for view in views], 1)

    @torch.inference_mode()
    def _run_teacher(self, clips: Sequence[Samples]) -> list[Tensor]:
        """The teacher's states of each clip by itself, so that it does not matter with which others it is batched."""
        states = []
        for samples in clips:
            wave_1S, length_1 = pad_clips([samples])
            output = self.teacher(wave_1S.to(self.device), length_1.to(self.device))
            states.append(output.hidden_LBTD[list(self.states), 0].half().cpu())
        return states
