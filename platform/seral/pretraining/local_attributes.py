"""Training of the adapter `wap` without labels, from cached frames of the frozen encoder (ser_models.objectives).

Batches, crops, masks and dropout are drawn from (seed, epoch, batch) alone. The result is the encoder as it was, with
the adapter in a folder beside its weights, where fine-tuning finds it.
"""

# B batch · T frames · D features · N frames of a sample · K prototypes
from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from itertools import count
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from ser_models.adapters.composition import attach_adapters
from ser_models.adapters.store import save_adapter
from ser_models.adapters.wap import KIND, wap_of
from ser_models.encoders import load_encoder, save_encoder
from ser_models.objectives import LocalAttributes, LocalAttributesOptions, save_objective
from ser_models.objectives.local_attributes import collapse_signs
from ser_models.objectives.masks import SpanMask, span_mask
from ser_models.objectives.teacher import rate_at
from ser_models.training import MAX_GRAD_NORM, rate_scale
from seral.cluster import ClusterOptions
from seral.features.batches import frame_batches, length_sorted_batches, pad_frames
from seral.features.frames import FrameSource, survey
from seral.features.store import FeatureStore
from seral.pretraining.layout import ADAPTER, ENCODER, OBJECTIVE
from seral.pretraining.options import TaptRunOptions
from seral.pretraining.plans import PlannedBatch, length_factors
from seral.pretraining.trainer import Batch, Course, Pretraining
from seral.vectors.index import kmeans

EPOCH, CLUSTERED = 1, 2
"""Uses of a random generator: (seed, epoch, one of these), apart from the (seed, epoch, batch, rank) of the steps."""


@dataclass(frozen=True, kw_only=True)
class LocalAttributesSpec:
    """Everything the training worker needs; frames are read from storage."""

    store: FeatureStore
    """Features of the encoder, with the frames of the hidden state that the adapter stands on."""
    ids: tuple[str, ...]
    options: TaptRunOptions
    on: ClusterOptions
    state: str
    """Folder in which a training inside this process keeps what it takes to go on."""

    def pretraining(self, device: torch.device) -> Pretraining:
        """The pretraining of this specification."""
        return LocalAttributesPretraining(self, device)


class LocalAttributesPretraining(Pretraining):
    """A WAP-Transformer that learns from its own moving average what masked frames hide."""

    def __init__(self, spec: LocalAttributesSpec, device: torch.device) -> None:
        options = spec.options
        self.spec, self.device, self.seed = spec, device, options.seed
        self.settings: LocalAttributesOptions = options.objective_options("local_attributes")
        self.encoder = load_encoder(spec.store.encoder)
        rate_hz = self.encoder.frame_rate_hz / self.settings.stride
        self.batch_frames = round(self.settings.batch_s * rate_hz)
        self.crop_frames = max(2, round(self.settings.crop_s * rate_hz))
        attach_adapters(self.encoder, {KIND: options.adapter_options(KIND)}, seed=self.seed)
        state, wap = wap_of(self.encoder)
        self.source = FrameSource(store=spec.store, layer=state, stride=self.settings.stride)
        self.survey = survey(self.source, spec.ids, minimal_frames=self.settings.mask_frames + 1)
        wap.fit(torch.from_numpy(self.survey.mean_D).float(), torch.from_numpy(self.survey.std_D).float())
        generator = torch.Generator().manual_seed(self.seed)
        self.model: LocalAttributes = LocalAttributes.on(self.encoder, self.settings, generator).to(device)
        self.mask = SpanMask(prob=self.settings.mask_prob, length=self.settings.mask_frames, min_spans=1)
        trained = [parameter for parameter in self.model.parameters() if parameter.requires_grad]
        self.optimiser = torch.optim.AdamW(trained, lr=options.lr, weight_decay=self.settings.weight_decay)
        self.facts = {"frames": self.survey.total}
        self.loaded: tuple[str, dict[str, NDArray[np.float16]]] = ("", {})
        self.course = Course(
            name="adapter",
            steps=options.steps,
            lr_at=lambda step: options.lr * rate_scale(step / options.steps),
            checkpoint_every=options.checkpoint_every,
            log_every=min(options.eval_every, options.checkpoint_every),
            eval_every=min(options.eval_every, options.checkpoint_every),
            shown=("loss", "z_std", "perplexity"),
            averaged=True,
            max_norm=MAX_GRAD_NORM,
        )

    def plan(self) -> Iterator[PlannedBatch]:
        """Endless batches: shards in random order, batches of similar length inside them."""
        for epoch in count():
            rng, number = np.random.default_rng([self.seed, epoch, EPOCH]), count()
            for shard in rng.permutation(sorted(self.survey.length)).tolist():
                names = sorted(self.survey.length[shard])
                length_N = np.minimum([self.survey.length[shard][name] for name in names], self.crop_frames)
                factor_N = length_factors(len(names), rng)
                batches = length_sorted_batches(np.ceil(length_N * factor_N).astype(int).tolist(), self.batch_frames)
                for index in rng.permutation(len(batches)):
                    ids = [names[row] for row in batches[index]]
                    yield PlannedBatch(shard=shard, ids=ids, epoch=epoch, number=next(number))

    def read(self, step: int, planned: PlannedBatch, rank: int) -> Batch:
        """Cropped frames, which of them are real, and which are hidden from the student."""
        if planned.shard != self.loaded[0]:
            self.loaded = (planned.shard, self.source.shard(planned.shard, self.survey.length[planned.shard]))
        rng = np.random.default_rng([self.seed, planned.epoch, planned.number, rank])
        clips = [_crop(self.loaded[1][name], self.crop_frames, rng) for name in planned.ids]
        torch.manual_seed(int(rng.integers(2**31)))  # of dropout
        hidden_BTD, mask_BT = pad_frames(clips)
        hide_BT = torch.zeros_like(mask_BT)
        spans = torch.from_numpy(span_mask([len(clip) for clip in clips], self.mask, rng))
        hide_BT[:, : spans.shape[1]] = spans
        inputs = tuple(tensor.to(self.device) for tensor in (hidden_BTD, mask_BT, hide_BT))
        return Batch(names=planned.ids, inputs=inputs, rng=rng)

    def scalars(self, step: int, batch: Batch) -> Mapping[str, Tensor]:
        """Losses, and the guards against a collapse."""
        return self.model(*batch.inputs)  # type: ignore[no-any-return]  # torch's __call__

    def refresh(self, step: int, planned: PlannedBatch) -> None:
        """New prototypes: k-means of the teacher's frames, from where the old ones are."""
        every = self.settings.refresh_every
        if not self.settings.beta or (planned.number if every is None else step % every):
            return
        start_KD = None if step == 0 else self.model.prototype_KD.cpu().numpy()
        sample_ND, settings = self._teacher_frames(planned.epoch), self.settings
        clustering = kmeans(
            sample_ND, settings.clusters, self.seed, iterations=settings.cluster_iterations, start_KD=start_KD
        )
        self.model.set_prototypes(torch.from_numpy(clustering.centroid_KD).to(self.device))

    def after_update(self, step: int) -> None:
        """Move the teacher towards its student."""
        share = step / self.course.steps
        self.model.follow(rate_at(share, self.settings.ema_start, self.settings.ema_end))

    def warning(self, done: int, scores: Mapping[str, float], first: Mapping[str, float]) -> str | None:
        """Signs that the teacher tells clips or frames apart no longer."""
        signs = collapse_signs(scores, self.settings)
        return f"the adapter's teacher collapses, {'; '.join(signs)}" if signs else None

    def write(self, folder: Path) -> None:
        """Write the encoder as it was, the teacher as the adapter beside it, and the heads."""
        save_objective(self.model, folder / OBJECTIVE)
        save_encoder(load_encoder(self.spec.store.encoder), folder / ENCODER)
        self.model.student.load_state_dict(self.model.teacher.state_dict())
        save_adapter(self.encoder, folder / ENCODER / ADAPTER)

    @torch.inference_mode()
    def _teacher_frames(self, epoch: int) -> NDArray[np.float32]:
        """Targets of clips drawn at random, about `cluster_frames` of them, (N, D)."""
        clips = [(shard, name) for shard, lengths in self.survey.length.items() for name in lengths]
        rng = np.random.default_rng([self.seed, epoch, CLUSTERED])
        chosen, frames = dict[str, list[str]](), 0
        for shard, name in (clips[index] for index in rng.permutation(len(clips))):
            if frames < self.settings.cluster_frames:
                chosen.setdefault(shard, []).append(name)
                frames += self.survey.length[shard][name]
        pieces = []
        for shard in sorted(chosen):
            frames_of = self.source.shard(shard, chosen[shard])
            for ids in frame_batches(sorted(frames_of), frames_of):
                tensors = pad_frames([frames_of[name] for name in ids])
                hidden_BTD, mask_BT = (tensor.to(self.device) for tensor in tensors)
                pieces.append(self.model.targets(hidden_BTD, mask_BT)[mask_BT].cpu().numpy())
        return np.concatenate(pieces)


def _crop(frames_TD: NDArray[np.float16], size: int, rng: np.random.Generator) -> NDArray[np.float16]:
    if len(frames_TD) <= size:
        return frames_TD
    begin = int(rng.integers(len(frames_TD) - size + 1))
    return frames_TD[begin : begin + size]
