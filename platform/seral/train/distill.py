"""Make a small encoder from a large one: seral-tiny learns a teacher's hidden states on the audio of pools.

No label is read. Every step draws from (seed, step), so a run that was stopped goes on to the same weights.
"""

# L distilled teacher states · N frames · D features
from __future__ import annotations

from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
import torch
from pydantic import Field

from ser_models.distill import Distillation
from ser_models.encoders import load_encoder, save_encoder
from ser_models.encoders.embedded import seral_tiny_untrained
from seral import storage
from seral.errors import TrainError
from seral.options import Options, dump
from seral.pool.decode import decode_flac
from seral.progress import say
from seral.train.lesson import Lesson, LessonOptions, read_clips

STATE, ENCODER = "state.pt", "encoder"
SCALE_CLIPS = 256
"""Clips whose frames set the scale of the teacher's states."""
SCALARS = ("loss", "frames", "statistics")


class DistilOptions(Options):
    """From whom, on what and how the student learns."""

    teacher: str
    """A hub id or a folder of an encoder with the student's 50 frames a second."""
    pools: tuple[str, ...]
    """Pools of speech; their compressed audio is held in memory."""
    out: str
    """Local folder of the run: the encoder is in `encoder/`, with fp16 weights."""
    corpora: tuple[str, ...] = ()
    """Only utterances of these corpora; empty = all."""
    noise: str | None = None
    """A pool of noises to mix in; None = no noise."""
    lesson: LessonOptions = LessonOptions()
    steps: int = Field(default=2600, ge=1)
    """Updates."""
    lr: float = Field(default=1e-3, gt=0)
    """Peak learning rate of AdamW."""
    warmup_steps: int = Field(default=150, ge=1)
    """Updates of linear warm-up; the rate is capped by a line to 0 at the last step."""
    statistics_weight: float = Field(default=1.0, ge=0)
    """Weight of the loss on the mean and standard deviation of each clip."""
    save_every: int = Field(default=100, ge=1)
    """Updates between two savings of the state to go on from."""
    threads: int = Field(default=1, ge=1)
    """Threads of torch; more than one, and a run is no longer repeated to the last bit."""
    seed: int = 0


def distil(options: DistilOptions) -> str:
    """Train the student, or go on training it; returns the folder of the encoder."""
    torch.set_num_threads(options.threads)
    folder = Path(options.out)
    storage.write_bytes(folder / "options.yaml", dump(options).encode())
    lesson = _lesson(options)
    model = _model(lesson, options)
    _train(model.train(), lesson, folder / STATE, options)
    save_encoder(model.student.eval().half(), folder / ENCODER)
    return str(folder / ENCODER)


def _lesson(options: DistilOptions) -> Lesson:
    clips, duration_N = read_clips(options.pools, options.corpora)
    length_N = [min(duration_s, options.lesson.crop_s) for duration_s in duration_N]
    say(f"{len(clips)} clips, {sum(length_N) / 60:.0f} min are heard in {options.lesson.versions} versions")
    noises = [] if options.noise is None else [decode_flac(data) for data in read_clips([options.noise])[0]]
    return Lesson(
        clips=clips,
        length_N=length_N,
        noises=noises,
        teacher=load_encoder(options.teacher),
        options=options.lesson,
        seed=options.seed,
    )


def _model(lesson: Lesson, options: DistilOptions) -> Distillation:
    """The student before its first step, with heads scaled to the teacher's states on a sample of the clips."""
    student, teacher = seral_tiny_untrained(), lesson.teacher
    if teacher.frame_rate_hz != student.frame_rate_hz:
        rates = f"{teacher.frame_rate_hz:g} frames a second, the student {student.frame_rate_hz:g}"
        raise TrainError(f"{options.teacher} gives {rates}: choose a teacher with the student's frame rate")
    sample = np.random.default_rng([options.seed, 0]).permutation(len(lesson.clips))[:SCALE_CLIPS]
    frames_LND = torch.cat([lesson.states(int(clip), 0).float() for clip in sample], 1)
    generator = torch.Generator().manual_seed(options.seed)
    return Distillation(student, frames_LND, generator, statistics_weight=options.statistics_weight)


def _train(model: Distillation, lesson: Lesson, state: Path, options: DistilOptions) -> None:
    optimiser = torch.optim.AdamW(model.parameters(), lr=options.lr, weight_decay=0.01)
    start, history = _restore(model, optimiser, state)
    for step, rows in enumerate(islice(lesson.plan(), start, options.steps), start=start):
        for group in optimiser.param_groups:
            group["lr"] = learning_rate_at(step, options)
        scalars = model(*lesson.batch(rows, np.random.default_rng([options.seed, 3, step])))
        optimiser.zero_grad(set_to_none=True)
        scalars["loss"].backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0, error_if_nonfinite=True)
        optimiser.step()
        history.append([float(scalars[name].detach()) for name in SCALARS])
        if (step + 1) % options.save_every == 0 or step + 1 == options.steps:
            recent = np.mean(history[-options.save_every :], axis=0)
            shown = ", ".join(f"{name} {value:.3f}" for name, value in zip(SCALARS, recent, strict=True))
            say(f"step {step + 1}/{options.steps}: {shown}")
            saved = {"step": step + 1, "history": history, "model": model.state_dict()}
            _save(saved | {"optimiser": optimiser.state_dict()}, state)


def learning_rate_at(step: int, options: DistilOptions) -> float:
    """Rate of update `step` (from 0): the lower of the warm-up's line and the one that falls to 0 at the end."""
    return options.lr * min((step + 1) / options.warmup_steps, 1 - step / options.steps)


def _restore(model: Distillation, optimiser: torch.optim.Optimizer, state: Path) -> tuple[int, list[list[float]]]:
    if not state.is_file():
        return 0, []
    saved: dict[str, Any] = torch.load(state, weights_only=True)
    model.load_state_dict(saved["model"])
    optimiser.load_state_dict(saved["optimiser"])
    return saved["step"], saved["history"]


def _save(saved: dict[str, Any], state: Path) -> None:
    """Write the state whole or not at all."""
    unfinished = state.with_suffix(".partial")
    torch.save(saved, unfinished)
    unfinished.replace(state)
