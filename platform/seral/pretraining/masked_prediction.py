"""Masked prediction on crops of audio: the contrastive objective of wav2vec 2.0, or clusters, which are made here.

Every step draws its batch, crops and masks from (seed, step) alone, and clusters are part of the checkpoint.
"""

# B batch · S samples · N frames · D features · K clusters
from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

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
    MaskedPredictionOptions,
    Objective,
    find_objective,
    held_out_scores,
    learning_rate_at,
    pretraining_heads,
    save_objective,
)
from ser_models.objectives.masks import MASKS
from seral.cluster import ClusterOptions
from seral.errors import TrainError
from seral.features.batches import pad_clips
from seral.features.speech import Speech
from seral.pool.shards import Pool
from seral.pretraining.crops import CLUSTERED, MASKED, Clip, CropPlan
from seral.pretraining.layout import ENCODER, OBJECTIVE
from seral.pretraining.options import TaptRunOptions
from seral.pretraining.plans import PlannedBatch
from seral.pretraining.trainer import Batch, Course, Pretraining
from seral.progress import say
from seral.schema import SAMPLE_RATE
from seral.vectors.index import kmeans

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
    """Folder in which a training inside this process keeps what it takes to go on."""

    def pretraining(self, device: torch.device) -> Pretraining:
        """The pretraining of this specification."""
        return MaskedPrediction(self, device)


class MaskedPrediction(Pretraining):
    """An encoder, or adapters in it, that learns to tell what spans of its frames hide."""

    def __init__(self, spec: TaptSpec, device: torch.device) -> None:
        options = spec.options
        self.spec, self.device = spec, device
        self.encoder = load_encoder(spec.encoder)
        kind = find_objective(options.objective, self.encoder.family)
        if options.adapter is not None:
            attach_adapters(self.encoder, options.adapter, seed=options.seed)
        self.settings: MaskedPredictionOptions = options.objective_options(kind)
        self.crops = crop_plan(spec, self.encoder)
        if options.clusters is None:
            size = "small" if self.crops.hours <= SMALL_POOL_HOURS else "large"
            self.settings = replace(self.settings, clusters=CLUSTERS[size])
        self.model: Objective = make_objective(kind, spec, self.encoder, self.settings).to(device)
        if options.refresh_every and not isinstance(self.model, ClusterObjective):
            raise TrainError(f"refresh_every makes clusters anew; {self.encoder.family}'s objective has none")
        self.optimiser = torch.optim.Adam(self.model.trained().values(), lr=self.settings.lr)
        self.held_out = [self._tensors(clips) for clips in self.crops.held_out_batches()]
        self.course = Course(
            name="TAPT",
            steps=self.settings.steps,
            lr_at=lambda step: learning_rate_at(step, self.settings),
            checkpoint_every=options.checkpoint_every,
            log_every=LOG_EVERY,
            eval_every=options.eval_every,
            shown=("loss", "accuracy", "perplexity"),
        )

    def plan(self) -> Iterator[PlannedBatch]:
        """Endless batches of training clips."""
        return self.crops.plan()

    def read(self, step: int, planned: PlannedBatch, rank: int) -> Batch:
        """Cropped clips, padded."""
        rng = np.random.default_rng([self.spec.options.seed, step, 0, rank])
        clips = self.crops.read(planned.shard, planned.ids, rng)
        return Batch(names=[name for name, _ in clips], inputs=self._tensors(clips), rng=rng)

    def scalars(self, step: int, batch: Batch) -> Mapping[str, Tensor]:
        """Loss, accuracy and perplexities over the masked frames."""
        return self.model(*batch.inputs, batch.rng, step=step)  # type: ignore[no-any-return]  # torch's __call__

    def begin(self) -> None:
        """Make the first clusters."""
        if isinstance(self.model, ClusterObjective):
            self._cluster(self.model, number=0)

    def refresh(self, step: int, planned: PlannedBatch) -> None:
        """New targets from the encoder as it is now, and a new head for them."""
        every = self.spec.options.refresh_every
        if not every or not step or step % every or not isinstance(self.model, ClusterObjective):
            return
        for parameter in self.model.follow(torch.Generator().manual_seed(self.spec.options.seed + step)):
            self.optimiser.state.pop(parameter, None)
        self._cluster(self.model, number=step)

    def after_update(self, step: int) -> None:
        """Refuse adapters that the first step has not reached."""
        if step == 0 and (dead := dead_adapters(self.encoder)):
            raise TrainError(f"{len(dead)} adapters get no gradient and would never learn, e.g. {dead[0]}")

    def held_out_scores(self) -> dict[str, float]:
        """Scalars on the held-out clips, under the same masks every time."""
        if not self.held_out:
            return {}
        return held_out_scores(self.model, self.held_out, seed=[self.spec.options.seed, 0, MASKED])

    def warning(self, done: int, scores: Mapping[str, float], first: Mapping[str, float]) -> str | None:
        """A collapse, which is none before the warm-up is over."""
        return None if done < self.settings.warmup_steps else collapse_warning(scores, first, self.model.units)

    def write(self, folder: Path) -> None:
        """Write heads and clusters, and the adapted encoder."""
        save_objective(self.model, folder / OBJECTIVE, teacher=self.spec.options.refresh_every is not None)
        save_encoder(merge_adapters(self.encoder) if self.encoder.adapters else self.encoder, folder / ENCODER)

    def _cluster(self, objective: ClusterObjective, *, number: int) -> None:
        """Make the targets' clusters from frames of the training clips; the first worker does so for all."""
        context = ray.train.get_context()
        if context.get_world_rank() == 0:
            self._fit(objective, number)
        if context.get_world_size() > 1:
            for buffer in objective.targets.fitted():
                distributed.broadcast(buffer, src=0)

    def _fit(self, objective: ClusterObjective, number: int) -> None:
        targets, clusters, frames = objective.targets, self.settings.clusters, []
        for clips in self.crops.sample(FRAMES_PER_CLUSTER * clusters / self.encoder.frame_rate_hz, number=number):
            hidden_BTD, mask_BT = targets.hidden(*self._tensors(clips))
            frames.append(hidden_BTD[mask_BT].float().cpu())
        seed = int(np.random.default_rng([self.spec.options.seed, number, CLUSTERED]).integers(2**31))

        def k_means(row_ND: NDArray[np.float32]) -> NDArray[np.float32]:
            return kmeans(row_ND, clusters, seed).centroid_KD

        targets.fit(torch.cat(frames), k_means)
        say(f"TAPT: {clusters} clusters of hidden state {targets.layer}, of {sum(map(len, frames))} frames")

    def _tensors(self, clips: Sequence[Clip]) -> tuple[Tensor, Tensor]:
        wave_BS, length_B = pad_clips([samples for _, samples in clips])
        return wave_BS.to(self.device), length_B.to(self.device)


def crop_plan(spec: TaptSpec, encoder: SpeechEncoder) -> CropPlan:
    """The audio of a specification, as far as a span of this encoder's frames fits into it."""
    options = spec.options
    frames_S = encoder.frames(torch.arange(60 * SAMPLE_RATE))
    shortest = int((frames_S <= MASKS[options.mask].length).sum())
    return CropPlan(
        speech=Speech(parts=((spec.pool, frozenset(spec.ids)),), shortest_s=(shortest + 1) / SAMPLE_RATE),
        held_out_share=options.held_out,
        settings=options.objective_options(find_objective(options.objective, encoder.family)),
        seed=options.seed,
    )


def make_objective(kind: str, spec: TaptSpec, encoder: SpeechEncoder, settings: MaskedPredictionOptions) -> Objective:
    """The objective around the encoder; wav2vec 2.0 goes on with its own heads where it came with them."""
    generator = torch.Generator().manual_seed(spec.options.seed)
    if kind == "contrastive" and spec.encoder not in EMBEDDED:
        return OBJECTIVES[kind].build(encoder, settings, generator, heads=pretraining_heads(spec.encoder))  # type: ignore[return-value]
    return OBJECTIVES[kind].build(encoder, settings, generator)  # type: ignore[return-value]


def collapse_warning(scores: Mapping[str, float], first: Mapping[str, float], units: int) -> str | None:
    """A sentence if the perplexities of an evaluation show a collapse; `first` are those before training."""
    used, targets = scores["perplexity"], scores.get("target_perplexity")
    if targets is None:
        if used < SHRUNK_SHARE * first["perplexity"]:
            return f"the codebook collapses: perplexity {used:.1f}, {first['perplexity']:.1f} at the start"
        return None
    # As few frames as one clip's cannot show more units than there are frames.
    if targets < EMPTY_SHARE * min(units, scores["masked"]):
        return f"nearly all targets are the same: perplexity {targets:.1f} of {units} units; cluster another layer"
    if used < COLLAPSED_SHARE * targets:
        return f"predictions collapse: perplexity {used:.1f}, that of the targets is {targets:.1f}"
    return None
