"""The steps of an adaptation by labels: batches of one corpus each, from cached frames, resumed where they stopped."""

# N clips · B clips · T frames · L hidden states · D features · C classes
from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from ser_models.adaptation import MIN_CLIPS, AdaptationOptions, LabelledAdaptation
from ser_models.adapters import ADAPTERS
from ser_models.adapters.composition import attach_adapters
from ser_models.adapters.merge import merge_adapters
from ser_models.adapters.parameters import dead_adapters
from ser_models.encoders import load_encoder, save_encoder
from ser_models.losses import class_distributions, expected_class_weights
from ser_models.training import MAX_GRAD_NORM, rate_scale, shuffled_batches
from seral.cluster import ClusterOptions
from seral.errors import OptionError, TrainError
from seral.features.batches import Frames
from seral.features.store import FeatureStore
from seral.pretraining.layout import ENCODER
from seral.pretraining.plans import PlannedBatch
from seral.pretraining.trainer import Batch, Course, Pretraining
from seral.task.examples import Targets, Utterances
from seral.training.model import frame_batch

LOG_EVERY = 10


@dataclass(frozen=True, kw_only=True)
class LabelledClips:
    """Clips of one pool whose class is known, or what shares of votes the classes have."""

    store: FeatureStore
    ids: tuple[str, ...]
    targets: Targets
    corpus_N: NDArray[np.str_]

    def without(self, corpus: str) -> LabelledClips:
        """The clips of all other corpora."""
        keep_N = self.corpus_N != corpus
        rows = keep_N.nonzero()[0].tolist()
        ids = tuple(self.ids[row] for row in rows)
        return replace(self, ids=ids, targets=self.targets.rows(rows), corpus_N=self.corpus_N[keep_N])

    def utterances(self) -> Utterances:
        """Pooled features of the clips."""
        return Utterances.of(self.store, self.store.index(), self.ids)

    def distributions(self, num_classes: int) -> Tensor:
        """Targets of the clips for training, (N, C): one-hot, or the shares of the votes."""
        soft_NC = self.targets.soft_NC
        label_N = torch.from_numpy(self.targets.label_N)
        return class_distributions(label_N, num_classes, None if soft_NC is None else torch.from_numpy(soft_NC))


@dataclass(frozen=True, kw_only=True)
class AdaptationSpec:
    """Everything a worker needs; features are read from storage."""

    encoder: str
    adapters: Mapping[str, Any]
    """Kinds of adapters and their options."""
    clips: tuple[LabelledClips, ...]
    """One entry a pool."""
    layer: int
    """Training starts from the cached frames of this hidden state."""
    classes: tuple[str, ...]
    options: AdaptationOptions
    epochs: int
    batch_size: int
    checkpoint_every: int
    seed: int
    on: ClusterOptions
    state: str
    """Folder in which a training inside this process keeps what it takes to go on."""

    def identity(self) -> list[Any]:
        """Plain values of whatever decides the outcome."""
        clips = [
            [part.store.fingerprint, list(part.ids), part.distributions(len(self.classes)).tolist()]
            for part in self.clips
        ]
        adapters = {kind: repr(options) for kind, options in self.adapters.items()}
        numbers = [self.layer, list(self.classes), asdict(self.options), self.epochs, self.batch_size, self.seed]
        return [clips, adapters, numbers]

    def pretraining(self, device: torch.device) -> Pretraining:
        """The training of this specification."""
        return CorpusTraining(self, device)


class CorpusTraining(Pretraining):
    """Adapters that learn from batches of one corpus after the other, in an order drawn from (seed, epoch)."""

    def __init__(self, spec: AdaptationSpec, device: torch.device) -> None:
        self.spec, self.device = spec, device
        if unfit := [kind for kind in spec.adapters if not ADAPTERS[kind].mergeable]:
            names = ", ".join(kind for kind, one in ADAPTERS.items() if one.mergeable and one.trains)
            raise OptionError(f"{unfit[0]} cannot be merged into an encoder's weights; adapters that can: {names}")
        encoder = attach_adapters(load_encoder(spec.encoder), dict(spec.adapters), seed=spec.seed)
        generator = torch.Generator().manual_seed(spec.seed)
        self.model = LabelledAdaptation(
            encoder, len(spec.classes), start=spec.layer, options=spec.options, generator=generator
        ).to(device)
        self.optimiser = torch.optim.AdamW(self.model.trained().values(), lr=spec.options.lr, weight_decay=0.0)
        self.groups = [
            _Group.of(part, number, corpus, len(spec.classes))
            for number, part in enumerate(spec.clips)
            for corpus in np.unique(part.corpus_N).tolist()
        ]
        steps = spec.epochs * sum(group.batches(spec.batch_size) for group in self.groups)
        self.course = Course(
            name="adaptation",
            steps=steps,
            lr_at=lambda step: spec.options.lr * rate_scale(step / steps),
            checkpoint_every=spec.checkpoint_every,
            log_every=LOG_EVERY,
            eval_every=steps,
            shown=("loss", "accuracy"),
            averaged=True,
            weighed_by="clips",
            max_norm=MAX_GRAD_NORM,
        )

    @cached_property
    def _units(self) -> list[Utterances]:
        return [part.utterances() for part in self.spec.clips]

    @cached_property
    def _frames(self) -> list[Frames]:
        return [part.store.frames(self.spec.layer, part.ids) for part in self.spec.clips]

    def plan(self) -> Iterator[PlannedBatch]:
        """Batches without end: in an epoch every corpus once, its batches among those of the others."""
        epoch, size = 0, self.spec.batch_size
        while True:
            rng = np.random.default_rng([self.spec.seed, epoch])
            batches = list[tuple[int, list[str]]]()
            for number, group in enumerate(self.groups):
                drawn = shuffled_batches(group.ids, dict(self._frames[group.part]), size, rng)
                batches += [(number, ids) for ids in drawn if len(ids) >= MIN_CLIPS]
            for turn, at in enumerate(rng.permutation(len(batches)).tolist()):
                number, ids = batches[at]
                yield PlannedBatch(shard=str(number), ids=ids, epoch=epoch, number=turn)
            epoch += 1

    def read(self, step: int, planned: PlannedBatch, rank: int) -> Batch:
        """Frames and classes of clips of one corpus."""
        rng = np.random.default_rng([self.spec.seed, step, 0, rank])
        torch.manual_seed(int(rng.integers(2**31)))  # of dropout
        group = self.groups[int(planned.shard)]
        part = group.part
        source_B = np.zeros(len(planned.ids), dtype=bool)
        batch = frame_batch(planned.ids, self._units[part], self._frames[part], self.spec.layer, self.device, source_B)
        target_BC = torch.stack([group.target_of[name] for name in planned.ids]).to(self.device)
        inputs: tuple[Tensor, ...] = (batch.hidden_BTD, batch.mask_BT, batch.below_mean_LBD, batch.below_std_LBD)
        return Batch(names=planned.ids, inputs=(*inputs, target_BC, group.weight_C.to(self.device)), rng=rng)

    def scalars(self, step: int, batch: Batch) -> Mapping[str, Tensor]:
        """Loss and accuracy of a batch."""
        return self.model(*batch.inputs)  # type: ignore[no-any-return]  # torch's __call__

    def after_update(self, step: int) -> None:
        """Refuse adapters that the first step has not reached."""
        if step == 0 and (dead := dead_adapters(self.model.encoder)):
            raise TrainError(f"{len(dead)} adapters get no gradient and would never learn, e.g. {dead[0]}")

    def write(self, folder: Path) -> None:
        """Write the encoder with the adapters merged into its weights."""
        save_encoder(merge_adapters(self.model.encoder), folder / ENCODER)


@dataclass(frozen=True, kw_only=True)
class _Group:
    """The clips of a corpus, from one pool."""

    part: int
    ids: Sequence[str]
    target_of: Mapping[str, Tensor]
    """Target of each clip, (C,)."""
    weight_C: Tensor
    """Weights of the classes, 0 of those without a label."""

    @staticmethod
    def of(part: LabelledClips, number: int, corpus: str, num_classes: int) -> _Group:
        own_N = part.corpus_N == corpus
        ids = [name for name, own in zip(part.ids, own_N.tolist(), strict=True) if own]
        target_NC = part.distributions(num_classes)[torch.from_numpy(own_N)]
        weight_C = expected_class_weights(target_NC)
        present = int((weight_C > 0).sum())
        if len(ids) < MIN_CLIPS or present < 2:
            raise OptionError(
                f"{corpus} has {len(ids)} clips of {present} of the classes: to learn from it takes {MIN_CLIPS} clips "
                "of two; leave it out"
            )
        return _Group(
            part=number,
            ids=ids,
            target_of=dict(zip(ids, target_NC, strict=True)),
            weight_C=weight_C,
        )

    def batches(self, size: int) -> int:
        """Number of batches in an epoch."""
        return len(self.ids) // size + (len(self.ids) % size >= MIN_CLIPS)


def corpora_of(parts: Sequence[LabelledClips]) -> list[str]:
    """Names of all corpora."""
    return sorted({name for part in parts for name in part.corpus_N.tolist()})
