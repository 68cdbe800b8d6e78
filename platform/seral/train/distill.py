"""Make a small encoder from a large one: seral-tiny learns a teacher's hidden states on the audio of pools.

Each clip is heard in a few versions (piece, speed, level) that depend on the seed and its id alone, so the teacher runs
once per version and its states are kept. The student hears the same version, half of the time with noise added that the
teacher did not hear. No label is read. Every step draws from (seed, step), so a resumed run ends in the same weights.
"""

# S samples · B batch · T frames · D features · L distilled teacher states
from __future__ import annotations

import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from itertools import count, islice
from pathlib import Path
from typing import Any

import numpy as np
import torch
from pydantic import Field
from torch import Tensor

from ser_models.distill import Distillation
from ser_models.encoders import SpeechEncoder, load_encoder, save_encoder
from ser_models.encoders.embedded import seral_tiny_untrained
from ser_models.tapt import random_crop
from seral.errors import TrainError
from seral.features import length_sorted_batches, pad_clips
from seral.options import Options
from seral.pool.decode import decode_flac
from seral.pool.shards import open_pool
from seral.progress import say
from seral.train.augment import Samples, add_noise, change_level, change_speed

STATE = "state.pt"
SCALE_CLIPS = 256
"""Clips whose frames set the scale of the teacher's states."""
BUCKET_NOISE = 0.15
"""Clips are batched by log length plus this much noise: little padding, other neighbours every epoch."""


class DistilOptions(Options):
    """From what, on what and how the student learns."""

    teacher: str
    """A hub id or a folder; it must have the student's frame rate of 50 Hz."""
    pools: tuple[str, ...]
    """Pools of speech; at most so much that their compressed audio fits in memory."""
    out: str
    """Folder for the encoder (`encoder/`) and what a resumed run needs."""
    corpora: tuple[str, ...] = ()
    """Only utterances of these corpora; empty = all."""
    noise: str | None = None
    """A pool of noises to mix in; None = no noise."""
    states: tuple[int, ...] = (2, 3)
    """Hidden states of the teacher that the student predicts."""
    steps: int = Field(default=3000, ge=1)
    """Updates."""
    batch_s: float = Field(default=40.0, gt=0)
    """Seconds of audio in a step, padding included."""
    crop_s: float = Field(default=4.0, gt=0)
    """Longer clips give a random piece of this length to each of their versions."""
    versions: int = Field(default=3, ge=1)
    """Versions of a clip; the teacher's states of all of them are kept in memory (140 MB an hour and state at D=384)."""
    speed: float = Field(default=0.12, ge=0, lt=1)
    """Speed and pitch are changed together by up to this share."""
    gain_db: tuple[float, float] = (-12.0, 6.0)
    """Lowest and highest change of level, dB."""
    noisy: float = Field(default=0.5, ge=0, le=1)
    """Share of the clips in a batch that get noise."""
    snr_db: tuple[float, float] = (5.0, 30.0)
    """Lowest and highest signal-to-noise ratio of those, dB."""
    lr: float = Field(default=1e-3, gt=0)
    """Peak learning rate of AdamW: linear warm-up, then linear to 0."""
    warmup_steps: int = Field(default=150, ge=1)
    """Updates of warm-up."""
    statistics_weight: float = Field(default=1.0, ge=0)
    """Weight of the loss on the mean and std of each clip."""
    save_every: int = Field(default=200, ge=1)
    """Updates between two savings of the state to resume from."""
    threads: int = Field(default=1, ge=1)
    """Threads of torch."""
    seed: int = 0


def distil(options: DistilOptions) -> str:
    """Train, or go on training, the student; returns the folder of the encoder."""
    torch.set_num_threads(options.threads)
    folder = Path(options.out)
    clips, lengths = _read_clips(options.pools, options.corpora)
    noises = [decode_flac(data) for data in _read_clips([options.noise], ())[0]] if options.noise else []
    say(f"{len(clips)} clips, {sum(lengths) / 60:.0f} min")
    teacher, student = load_encoder(options.teacher), seral_tiny_untrained()
    if teacher.frame_rate_hz != student.frame_rate_hz:
        rates = f"{teacher.frame_rate_hz:g} Hz, the student {student.frame_rate_hz:g} Hz"
        raise TrainError(f"{options.teacher} gives frames at {rates}: choose a teacher with the student's frame rate")
    lesson = Lesson(
        clips=clips, length_N=[min(l, options.crop_s) for l in lengths], noises=noises, teacher=teacher, options=options
    )
    rng = np.random.default_rng([options.seed, 0])
    sample = rng.permutation(len(clips))[:SCALE_CLIPS]
    frames_LND = torch.cat([lesson.states(int(clip), 0).float() for clip in sample], 1)
    model = Distillation(
        student,
        frames_LND,
        torch.Generator().manual_seed(options.seed),
        statistics_weight=options.statistics_weight,
    )
    _train(model.train(), lesson, folder, options)
    save_encoder(student.eval(), folder / "encoder")
    return str(folder / "encoder")


@dataclass(kw_only=True)
class Lesson:
    """What the student hears and what the teacher makes of it."""

    clips: list[bytes]
    """FLAC."""
    length_N: list[float]
    noises: list[Samples]
    teacher: SpeechEncoder
    options: DistilOptions
    known: dict[tuple[int, int], Tensor] = field(default_factory=dict)

    def hear(self, clip: int, version: int) -> Samples:
        """One version of a clip: a piece of it at another speed and level."""
        rng = np.random.default_rng([self.options.seed, 1, clip, version])
        piece = random_crop(decode_flac(self.clips[clip]), self.options.crop_s, rng)
        return change_level(change_speed(piece, self.options.speed, rng), self.options.gain_db, rng)

    @torch.inference_mode()
    def states(self, clip: int, version: int) -> Tensor:
        """The teacher's states of a version, (L, T, D) fp16; computed once."""
        if (clip, version) not in self.known:
            output = self.teacher(*pad_clips([self.hear(clip, version)]))
            self.known[clip, version] = output.hidden_LBTD[list(self.options.states), 0].half()
        return self.known[clip, version]

    def batch(self, rows: Sequence[int], rng: np.random.Generator) -> tuple[Tensor, Tensor, Tensor]:
        """Waves (B, S), lengths (B,) and the teacher's states (L, B, T, D) of clips in versions drawn for this step."""
        versions = rng.integers(self.options.versions, size=len(rows)).tolist()
        heard = [self.hear(*pair) for pair in zip(rows, versions, strict=True)]
        states = [self.states(*pair).transpose(0, 1) for pair in zip(rows, versions, strict=True)]
        for row in np.flatnonzero(rng.random(len(rows)) < self.options.noisy) if self.noises else ():
            heard[row] = add_noise(heard[row], self.noises[rng.integers(len(self.noises))], self.options.snr_db, rng)
        padded_BTLD = torch.nn.utils.rnn.pad_sequence(states, batch_first=True)
        return *pad_clips(heard), padded_BTLD.permute(2, 0, 1, 3)


def plan(length_N: Sequence[float], options: DistilOptions) -> Iterator[list[int]]:
    """Endless batches of row numbers of similar length in s, each epoch in another order."""
    for epoch in count():
        rng = np.random.default_rng([options.seed, 2, epoch])
        jitter_N = np.exp(BUCKET_NOISE * rng.standard_normal(len(length_N)))
        limit = round(options.batch_s * 1000)
        batches = length_sorted_batches([round(1000 * s * j) for s, j in zip(length_N, jitter_N, strict=True)], limit)
        yield from (batches[index] for index in rng.permutation(len(batches)))


def _train(model: Distillation, lesson: Lesson, folder: Path, options: DistilOptions) -> None:
    optimiser = torch.optim.AdamW(model.parameters(), lr=options.lr, weight_decay=0.01)
    state, history, start = folder / STATE, [], 0
    if state.is_file():
        saved = torch.load(state, weights_only=True)
        model.load_state_dict(saved["model"])
        optimiser.load_state_dict(saved["optimiser"])
        history, start = saved["history"], saved["step"]
    folder.mkdir(parents=True, exist_ok=True)
    begun = time.monotonic()
    for step, rows in enumerate(islice(plan(lesson.length_N, options), start, options.steps), start=start):
        rate = options.lr * min((step + 1) / options.warmup_steps, (options.steps - step) / options.steps)
        for group in optimiser.param_groups:
            group["lr"] = rate
        scalars = model(*lesson.batch(rows, np.random.default_rng([options.seed, 3, step])))
        optimiser.zero_grad(set_to_none=True)
        scalars["loss"].backward()
        norm = torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0, error_if_nonfinite=True)
        optimiser.step()
        history.append([float(scalars[n].detach()) for n in ("loss", "frames", "statistics")] + [float(norm)])
        if (step + 1) % options.save_every == 0 or step + 1 == options.steps:
            m = np.mean(history[-options.save_every :], axis=0)
            say(f"step {step + 1}: {m.round(4)} {time.monotonic() - begun:.0f} s")
            torch.save(
                {
                    "model": model.state_dict(),
                    "optimiser": optimiser.state_dict(),
                    "history": history,
                    "step": step + 1,
                },
                state,
            )
            save_encoder(model.student, folder / f"encoder-{step + 1}")


def _read_clips(pools, corpora):
    clips, lengths = [], []
    for uri in pools:
        pool = open_pool(uri)
        for shard in pool.shards:
            t = pool.read(shard, ["audio", "corpus", "duration_s", "duplicate_of"])
            for a, c, d, u in zip(
                t["audio"],
                t["corpus"].to_pylist(),
                t["duration_s"].to_pylist(),
                t["duplicate_of"].to_pylist(),
                strict=True,
            ):
                if (not corpora or c in corpora) and u is None:
                    clips.append(a.as_py())
                    lengths.append(d)
    return clips, lengths
