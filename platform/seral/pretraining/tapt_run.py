"""Task-adaptive pretraining through Ray Train: one training function, run in this process or by any number of workers.

Every step draws its batch, crops and masks from (seed, step) alone, and clusters are part of the checkpoint, so a run
that was interrupted and restored ends in the same weights.
"""

# B batch · S samples · N frames · D features · K clusters
from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import ray.train
import torch
from numpy.typing import NDArray
from torch import Tensor, distributed

from ser_models.adapters.composition import attach_adapters
from ser_models.adapters.merge import merge_adapters
from ser_models.adapters.parameters import dead_adapters
from ser_models.encoders import EMBEDDED, SpeechEncoder, load_encoder, save_encoder
from ser_models.objectives import (
    OBJECTIVES,
    ClusterObjective,
    Objective,
    TaptOptions,
    Wav2Vec2Objective,
    held_out_scores,
    pretraining_heads,
    save_objective,
    tapt_optimizer,
    tapt_step,
)
from ser_models.objectives.masks import MASKS
from seral.cluster import ClusterOptions
from seral.errors import TrainError
from seral.features.batches import pad_clips
from seral.features.speech import Speech
from seral.pool.shards import Pool
from seral.pretraining.options import TaptRunOptions
from seral.pretraining.tapt_audio import CLUSTERED, MASKED, Clip, TaptAudio
from seral.progress import say
from seral.schema import SAMPLE_RATE
from seral.task.ray_train import StepState
from seral.vectors.index import kmeans

ENCODER, OBJECTIVE = "encoder", "objective.safetensors"
LOG_EVERY = 50
"""Steps between two lines of progress."""
SMALL_POOL_HOURS = 10.0
CLUSTERS = {"small": 100, "large": 500}
"""k-means ids by default for pools of up to SMALL_POOL_HOURS, and for larger ones: HuBERT's two iterations."""
FRAMES_PER_CLUSTER = 200
"""Frames that k-means sees: memory stays bounded (100 000 of 500 clusters), and no cluster lacks examples."""
COLLAPSED_SHARE = 0.1
"""Ids predicted against ids there are, as perplexities. The untrained head of Whisper tiny on EmoDB has 0.18 and rises
from there to a third in 100 steps; one id for all frames, the collapse, is 0.02 there."""
SHRUNK_SHARE = 0.25
"""Codewords in use against those at the start, which a pretrained quantizer has filled: with three quarters of them
gone, distractors are often the target's own codeword and teach little. A choice of ours, not measured."""
EMPTY_SHARE = 0.1
"""Clusters in use on the held-out clips against all: below it, most targets are the same and teach nothing."""


@dataclass(frozen=True, kw_only=True)
class TaptSpec:
    """Everything the training worker needs."""

    pool: Pool
    ids: tuple[str, ...]
    encoder: str
    options: TaptRunOptions
    on: ClusterOptions
    state: str
    """Where a training inside this process keeps what it takes to go on."""


def tapt_worker(config: dict[str, Any]) -> None:
    """One Ray Train worker: all steps, with a checkpoint now and then."""
    Training(config["spec"]).run()


class Training:
    """The state of one pretraining: objective, optimiser, what was seen on the way."""

    def __init__(self, spec: TaptSpec) -> None:
        context, options = ray.train.get_context(), spec.options
        self.spec, self.rank, self.world = spec, context.get_world_rank(), context.get_world_size()
        self.device = torch.device("cuda" if spec.on.use_gpu else "cpu")
        self.encoder = load_encoder(spec.encoder)
        if options.adapter is not None:
            attach_adapters(self.encoder, options.adapter, seed=options.seed)
        self.audio = tapt_audio(spec, self.encoder)
        self.settings = options.settings()
        if options.clusters is None:
            size = "small" if self.audio.hours <= SMALL_POOL_HOURS else "large"
            self.settings = replace(self.settings, clusters=CLUSTERS[size])
        self.objective = make_objective(spec, self.encoder, self.settings).to(self.device)
        if options.refresh_every and not isinstance(self.objective, ClusterObjective):
            raise TrainError(f"refresh_every makes clusters anew; {self.encoder.family}'s objective has none")
        self.optimiser = tapt_optimizer(self.objective)
        self.held_out = [self._tensors(clips) for clips in self.audio.held_out_batches()]
        self.kept = StepState(spec.state, spec.on)
        self.record: dict[str, Any] = {"history": [], "held_out": [], "warnings": []}

    def run(self) -> None:
        """Train from the last checkpoint, or from the start, to the last step."""
        start = self._restore()
        clustered = self.objective if isinstance(self.objective, ClusterObjective) else None
        if start == 0 and clustered:
            self._cluster(clustered, number=0)
        if start == 0 and self.rank == 0:
            self._score_held_out(0)
        self.objective.train()
        every = self.spec.options.refresh_every
        for step, clips, rng in self.audio.steps(start, rank=self.rank, world=self.world):
            if clustered and every and step and step % every == 0:
                self._refresh(clustered, step)
            scalars = self._step(step, clips, rng)
            if self.rank == 0:
                self._look(step + 1, scalars)
            if self._is_due(step + 1, self.spec.options.checkpoint_every):
                self._save(step + 1, scalars)
        if start == self.settings.steps:  # the process died after the last step and before its result was fetched
            self._save(start, {})

    def _step(self, step: int, clips: Sequence[Clip], rng: np.random.Generator) -> dict[str, float]:
        names, (wave_BS, length_B) = [name for name, _ in clips], self._tensors(clips)
        bf16 = self.spec.on.precision == "bf16"
        scalars = tapt_step(
            self.objective, self.optimiser, wave_BS, length_B, step=step, rng=rng, names=names, bf16=bf16
        )
        if step == 0 and (dead := dead_adapters(self.encoder)):
            raise TrainError(f"{len(dead)} adapters get no gradient and would never learn, e.g. {dead[0]}")
        return scalars

    def _look(self, done: int, scalars: Mapping[str, float]) -> None:
        """Note and say how it goes, and warn of a collapse."""
        if self._is_due(done, LOG_EVERY):
            self.record["history"].append(_rounded(done, scalars))
            say(f"TAPT step {done}/{self.settings.steps}: {_shown(scalars)}")
        if not self._is_due(done, self.spec.options.eval_every):
            return
        scores = self._score_held_out(done) or scalars
        first = (self.record["held_out"] or self.record["history"] or [scores])[0]
        if done >= self.settings.warmup_steps and (warning := collapse_warning(scores, first, self.settings.clusters)):
            self.record["warnings"].append({"step": done, "warning": warning})
            say(f"TAPT step {done}/{self.settings.steps}: {warning}")

    def _score_held_out(self, done: int) -> dict[str, float]:
        if not self.held_out:
            return {}
        scores = held_out_scores(self.objective, self.held_out, seed=[self.spec.options.seed, 0, MASKED])
        self.record["held_out"].append(_rounded(done, scores))
        say(f"TAPT step {done}/{self.settings.steps}, held out: {_shown(scores)}")
        return scores

    def _refresh(self, objective: ClusterObjective, step: int) -> None:
        """New targets from the encoder as it is now, and a new head for them."""
        for parameter in objective.follow(torch.Generator().manual_seed(self.spec.options.seed + step)):
            self.optimiser.state.pop(parameter, None)
        self._cluster(objective, number=step)

    def _cluster(self, objective: ClusterObjective, *, number: int) -> None:
        """Make the targets' clusters from frames of the training clips; the first worker does so for all."""
        if self.rank == 0:
            self._fit(objective, number)
        if self.world > 1:
            for buffer in objective.targets.fitted():
                distributed.broadcast(buffer, src=0)

    def _fit(self, objective: ClusterObjective, number: int) -> None:
        targets, clusters, frames = objective.targets, self.settings.clusters, []
        for clips in self.audio.sample(FRAMES_PER_CLUSTER * clusters / self.encoder.frame_rate_hz, number=number):
            hidden_BTD, mask_BT = targets.hidden(*self._tensors(clips))
            frames.append(hidden_BTD[mask_BT].float().cpu())
        seed = int(np.random.default_rng([self.spec.options.seed, number, CLUSTERED]).integers(2**31))

        def k_means(row_ND: NDArray[np.float32]) -> NDArray[np.float32]:
            return kmeans(row_ND, clusters, seed).centroid_KD

        targets.fit(torch.cat(frames), k_means)
        say(f"TAPT: {clusters} clusters of hidden state {targets.layer}, of {sum(map(len, frames))} frames")

    def _save(self, done: int, scalars: Mapping[str, float]) -> None:
        """Keep what it takes to go on; at the end also the adapted encoder. All workers call it."""

        def state() -> dict[str, Any]:
            parts = {"objective": self.objective.state_dict(), "optimiser": self.optimiser.state_dict()}
            return {"step": done, "record": self.record, **parts}

        self.kept.save(state, scalars, result=self._write if done == self.settings.steps else None)

    def _write(self, folder: Path) -> None:
        save_objective(self.objective, folder / OBJECTIVE, teacher=self.spec.options.refresh_every is not None)
        save_encoder(merge_adapters(self.encoder) if self.encoder.adapters else self.encoder, folder / ENCODER)

    def _restore(self) -> int:
        state = self.kept.load()
        if state is None:
            return 0
        self.objective.load_state_dict(state["objective"])
        self.optimiser.load_state_dict(state["optimiser"])
        self.record = state["record"]
        say(f"TAPT goes on from step {state['step']}")
        return int(state["step"])

    def _is_due(self, done: int, every: int) -> bool:
        return done % every == 0 or done == self.settings.steps

    def _tensors(self, clips: Sequence[Clip]) -> tuple[Tensor, Tensor]:
        wave_BS, length_B = pad_clips([samples for _, samples in clips])
        return wave_BS.to(self.device), length_B.to(self.device)


def tapt_audio(spec: TaptSpec, encoder: SpeechEncoder) -> TaptAudio:
    """The audio of a specification, as far as a span of this encoder's frames fits into it."""
    settings = spec.options.settings()
    frames_S = encoder.frames(torch.arange(60 * SAMPLE_RATE))
    shortest = int((frames_S <= MASKS[settings.mask].length).sum())
    return TaptAudio(
        speech=Speech(parts=((spec.pool, frozenset(spec.ids)),), shortest_s=(shortest + 1) / SAMPLE_RATE),
        held_out_share=spec.options.held_out,
        settings=settings,
        seed=spec.options.seed,
    )


def make_objective(spec: TaptSpec, encoder: SpeechEncoder, settings: TaptOptions) -> Objective:
    """The family's objective around the encoder; wav2vec 2.0 goes on with its own heads where it came with them."""
    generator = torch.Generator().manual_seed(spec.options.seed)
    kind = OBJECTIVES[encoder.family]
    if kind is Wav2Vec2Objective and spec.encoder not in EMBEDDED:
        return Wav2Vec2Objective(encoder, settings, generator, pretraining_heads(spec.encoder))
    return kind(encoder, settings, generator)


def collapse_warning(scores: Mapping[str, float], first: Mapping[str, float], clusters: int) -> str | None:
    """What is wrong with the perplexities of an evaluation, if anything; `first` is the one before training."""
    used, targets = scores["perplexity"], scores.get("target_perplexity")
    if targets is None:
        if used < SHRUNK_SHARE * first["perplexity"]:
            return f"the codebook collapses: perplexity {used:.1f}, {first['perplexity']:.1f} at the start"
        return None
    # As few frames as one clip's cannot show more clusters than there are frames.
    if targets < EMPTY_SHARE * min(clusters, scores["masked"]):
        return f"nearly all targets are the same: perplexity {targets:.1f} of {clusters} clusters; try another layer"
    if used < COLLAPSED_SHARE * targets:
        return f"predictions collapse: perplexity {used:.1f}, that of the targets is {targets:.1f}"
    return None


def _rounded(done: int, scalars: Mapping[str, float]) -> dict[str, float]:
    return {"step": done, **{name: round(value, 5) for name, value in scalars.items()}}


def _shown(scalars: Mapping[str, float]) -> str:
    return ", ".join(f"{name} {scalars[name]:.3f}" for name in ("loss", "accuracy", "perplexity"))
