"""Domain adaptation: labelled speech of another language, aligned in mean and variance, weighed, held by CORAL.

The clips of the source count as much as those of the target in total, however few of the target are labelled. Pooled
features of the source are aligned with the target's, so the model that comes out is one for the target's speech.
"""

# N clips · L hidden states (encoder layers + 1) · D features · U embedding · P principal directions
from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from ser_models.alignment import Anchors, CoralQueue, MeanVarianceAlignment, principal_directions
from ser_models.heads import LayerPool
from ser_models.similarity import anchor_layers, layer_similarity
from seral.task.examples import Targets, Unlabelled, Utterances, pooled_rows
from seral.training.finetune_options import AnchorOptions


@dataclass(frozen=True, kw_only=True)
class DomainAdaptation:
    """The source's speech, some of the target's, and the alignment of one with the other. Holds no label."""

    source: Utterances
    target: Utterances
    alignment: MeanVarianceAlignment
    options: AnchorOptions | None
    """None = aligned and weighed, not anchored."""

    @staticmethod
    def between(source: Utterances, target: Unlabelled, options: AnchorOptions | None) -> DomainAdaptation:
        """The adaptation of a language to another, from unlabelled speech of both."""
        alignment = MeanVarianceAlignment.of(Unlabelled.of(source).moments, target.moments)
        return DomainAdaptation(source=source, target=target.some, alignment=alignment, options=options)

    def is_source(self, ids: Sequence[str]) -> NDArray[np.bool_]:
        """Whether each utterance is of the source."""
        return np.array([name in self.source.row_of for name in ids], dtype=bool)

    def aligned(self, units: Utterances) -> Utterances:
        """The utterances, those of the source as they would be in the target."""
        source_N = self.is_source(units.ids)
        if not source_N.any():
            return units
        mean_NLD, std_NLD = (part.astype(np.float32) for part in (units.mean_NLD, units.std_NLD))  # copies
        rows = self.alignment(torch.from_numpy(mean_NLD[source_N]), torch.from_numpy(std_NLD[source_N]))
        mean_NLD[source_N], std_NLD[source_N] = (part.numpy() for part in rows)
        return replace(units, mean_NLD=mean_NLD, std_NLD=std_NLD)

    def weighed(self, units: Utterances, targets: Targets) -> Targets:
        """The labels with weights, beside those they have: source and target count the same, a clip 1 on average."""
        source_N, labelled_N = self.is_source(units.ids), targets.labelled_N
        sides = [side_N & labelled_N for side_N in (source_N, ~source_N)]
        if not all(side_N.any() for side_N in sides):
            return targets
        weight_N = np.ones(len(units.ids), np.float32) if targets.weight_N is None else targets.weight_N.copy()
        for side_N in sides:
            weight_N[side_N] *= labelled_N.sum() / (2 * weight_N[side_N].sum())
        return replace(targets, weight_N=weight_N)

    def anchors(self) -> Anchors:
        """The hidden states that are held together, and how."""
        options = self.options or AnchorOptions()
        similarity_L = layer_similarity(
            options.similarity, pooled_rows(self.aligned(self.source)).mean_NLD, pooled_rows(self.target).mean_NLD
        )
        layers = anchor_layers(options.anchors, similarity_L, size=options.size)
        return Anchors(layers=layers, weight=options.weight, projection=options.projection)

    def of_batches(self, pool: LayerPool, seed: int) -> BatchAdaptation:
        """The adaptation as a training of adapters needs it; `pool` is the standardisation of the target."""
        anchored = self.options is not None and self.options.weight > 0
        coral = self._coral(pool, seed) if anchored else None
        return BatchAdaptation(source=frozenset(self.source.ids), alignment=self.alignment, coral=coral)

    @torch.no_grad()
    def _coral(self, pool: LayerPool, seed: int) -> BatchCoral:
        options, layers = self.options or AnchorOptions(), list(self.anchors().layers)
        sides = [pooled_rows(self.aligned(self.source)), pooled_rows(self.target)]
        parts: list[Tensor] = [pool.standardise(part.mean_NLD, part.std_NLD)[:, layers].mean(1) for part in sides]
        basis_UP = principal_directions(torch.cat(parts), options.projection)
        order = np.random.default_rng([seed, len(self.target.ids)]).permutation(len(self.target.ids))
        return BatchCoral(
            queue=CoralQueue(basis_UP, layers, size=options.queue),
            speech=self.target.rows(np.isin(np.arange(len(order)), order[: options.clips])),
            weight=options.weight,
        )


@dataclass(frozen=True, kw_only=True)
class BatchAdaptation:
    """Domain adaptation of the batches of a training, small enough to send to a worker."""

    source: frozenset[str]
    """Ids of the source's utterances."""
    alignment: MeanVarianceAlignment
    coral: BatchCoral | None
    """None = aligned and weighed, not anchored."""

    def is_source(self, ids: Sequence[str]) -> NDArray[np.bool_]:
        """Whether each utterance is of the source."""
        return np.array([name in self.source for name in ids], dtype=bool)

    def digest(self) -> str:
        """A text that differs for whatever trains to other weights from the same labelled clips."""
        parts: list[object] = [sorted(self.source), [part.sum().item() for part in self.alignment]]
        if self.coral is not None:
            coral, queue = self.coral, self.coral.queue
            parts += [coral.speech.ids, coral.weight, queue.anchors, queue.size, queue.basis_UP.shape[1]]
        return repr(parts)


@dataclass(frozen=True, kw_only=True)
class BatchCoral:
    """CORAL of the batches of a training, along the principal directions of what the frozen encoder makes of both."""

    queue: CoralQueue
    speech: Utterances
    """Unlabelled clips of the target that join the batches."""
    weight: float

    def draw(self, count: int, rng: np.random.Generator) -> list[str]:
        """Clips of the target's speech, as many as a batch has labelled ones."""
        return [self.speech.ids[row] for row in rng.permutation(len(self.speech.ids))[:count]]

    def loss(self, standard_BLU: Tensor, from_source_B: Tensor, labelled: int) -> Tensor:
        """λ · CORAL of a batch: labelled clips, those of the source marked, then unlabelled ones of the target."""
        source_B = from_source_B[:labelled]
        coral: Tensor = self.queue(standard_BLU[:labelled][source_B], standard_BLU[labelled:])
        return self.weight * coral
