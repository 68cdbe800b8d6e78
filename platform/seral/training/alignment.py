"""Labelled speech of another language in a training: brought to the target's mean and spread, weighed, anchored.

The clips of the source count as much as those of the target in total, however few of the target are labelled. Pooled
features of the source are moved, so the model that comes out is one for the target's speech.
"""

# N clips · L hidden states (encoder layers + 1) · D features · U embedding · P directions
from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
import torch
from numpy.typing import NDArray
from pydantic import Field, field_validator
from torch import Tensor

from ser_models.anchoring import (
    ANCHOR_SETS,
    GROUP_SIZE,
    SIMILARITIES,
    CoralQueue,
    Move,
    anchor_layers,
    layer_similarity,
    principal_directions,
)
from ser_models.heads import LayerPool
from seral.options import Options
from seral.task.examples import Targets, Utterances, pooled_rows


class AnchoringOptions(Options):
    """How two languages are held together while a model learns: CORAL over some hidden states."""

    anchors: str = "all"
    """Which hidden states: last, single (the most alike), group (the best window), top_k, all."""
    size: int = Field(default=GROUP_SIZE, ge=1)
    """Layers of `group` and `top_k`."""
    similarity: str = "coral"
    """The label-free measure of how alike a layer is: coral or mmd."""
    weight: float = Field(default=10.0, ge=0)
    """λ, the weight of CORAL beside the cross-entropy."""
    projection: int = Field(default=64, ge=1)
    """Directions whose covariances are brought together."""
    clips: int = Field(default=2000, ge=2)
    """Unlabelled clips of the target that are heard while adapters train, at most: their frames are in memory."""
    queue: int = Field(default=1024, ge=2)
    """Clips of each language that covariances are made of while adapters train: those of the batch and past ones."""

    @field_validator("anchors")
    @classmethod
    def _known(cls, name: str) -> str:
        if name not in ANCHOR_SETS:
            raise ValueError(f"no anchor set {name!r}; known: {', '.join(ANCHOR_SETS)}")
        return name

    @field_validator("similarity")
    @classmethod
    def _label_free(cls, name: str) -> str:
        return label_free(name)


def label_free(similarity: str) -> str:
    """A measure that needs no labels of the target. Raises ValueError for any other."""
    known = [kind for kind, one in SIMILARITIES.items() if not one.of_labels]
    if similarity not in known:
        raise ValueError(f"anchors are found without labels of the target, by {' or '.join(known)}; got {similarity!r}")
    return similarity


@dataclass(frozen=True, kw_only=True)
class Carry:
    """The source's speech, the target's, and the move from one to the other. Holds no label."""

    source: Utterances
    target: Utterances
    move: Move
    options: AnchoringOptions | None
    """None = moved and weighed, not anchored."""

    @staticmethod
    def between(source: Utterances, target: Utterances, options: AnchoringOptions | None) -> Carry:
        """From unlabelled speech of both."""
        move = Move.between(pooled_rows(source), pooled_rows(target))
        return Carry(source=source, target=target, move=move, options=options)

    def is_source(self, ids: Sequence[str]) -> NDArray[np.bool_]:
        """Which utterances are of the source."""
        return np.array([name in self.source.row_of for name in ids], dtype=bool)

    def moved(self, units: Utterances) -> Utterances:
        """The same utterances, those of the source as they would be in the target."""
        from_N = self.is_source(units.ids)
        if not from_N.any():
            return units
        mean_NLD, std_NLD = units.mean_NLD.copy(), units.std_NLD.copy()
        moved = self.move(torch.from_numpy(mean_NLD[from_N]), torch.from_numpy(std_NLD[from_N]))
        mean_NLD[from_N], std_NLD[from_N] = (part.numpy() for part in moved)
        return replace(units, mean_NLD=mean_NLD, std_NLD=std_NLD)

    def weighed(self, units: Utterances, target: Targets) -> Targets:
        """The labels with weights, beside those they have: source and target count the same, a clip 1 on average."""
        from_N, known_N = self.is_source(units.ids), target.labelled_N
        sides = [side_N & known_N for side_N in (from_N, ~from_N)]
        if not all(side_N.any() for side_N in sides):
            return target
        weight_N = np.ones(len(units.ids), np.float32) if target.weight_N is None else target.weight_N.copy()
        for side_N in sides:
            weight_N[side_N] *= known_N.sum() / (2 * weight_N[side_N].sum())
        return replace(target, weight_N=weight_N)

    def anchors(self) -> list[int]:
        """The hidden states that are held together."""
        options = self.options or AnchoringOptions()
        similarity_L = layer_similarity(
            options.similarity, pooled_rows(self.moved(self.source)).mean_NLD, pooled_rows(self.target).mean_NLD
        )
        return anchor_layers(options.anchors, similarity_L, size=options.size)

    def in_training(self, pool: LayerPool, seed: int) -> CarryInTraining:
        """What a training of adapters needs of it; `pool` is the standardisation of the target."""
        anchored = self.options is not None and self.options.weight > 0
        anchoring = self._anchoring(pool, seed) if anchored else None
        return CarryInTraining(source=frozenset(self.source.ids), move=self.move, anchoring=anchoring)

    @torch.no_grad()
    def _anchoring(self, pool: LayerPool, seed: int) -> BatchAnchoring:
        options, anchors = self.options or AnchoringOptions(), self.anchors()
        sides = [pooled_rows(self.moved(self.source)), pooled_rows(self.target)]
        parts: list[Tensor] = [pool.standardise(part.mean_NLD, part.std_NLD)[:, anchors].mean(1) for part in sides]
        basis_UP = principal_directions(torch.cat(parts), options.projection)
        order = np.random.default_rng([seed, len(self.target.ids)]).permutation(len(self.target.ids))
        return BatchAnchoring(
            queue=CoralQueue(basis_UP, anchors, size=options.queue),
            speech=self.target.rows(np.isin(np.arange(len(order)), order[: options.clips])),
            weight=options.weight,
        )


@dataclass(frozen=True, kw_only=True)
class CarryInTraining:
    """The same, small enough to send to a worker."""

    source: frozenset[str]
    """Ids of the source's utterances."""
    move: Move
    anchoring: BatchAnchoring | None
    """None = moved and weighed, not anchored."""

    def is_source(self, ids: Sequence[str]) -> NDArray[np.bool_]:
        """Which utterances are of the source."""
        return np.array([name in self.source for name in ids], dtype=bool)

    def digest(self) -> str:
        """Another text for whatever trains to other weights, given the same labelled clips."""
        parts: list[object] = [sorted(self.source), [part.sum().item() for part in self.move]]
        if self.anchoring is not None:
            anchoring, queue = self.anchoring, self.anchoring.queue
            parts += [anchoring.speech.ids, anchoring.weight, queue.anchors, queue.size, queue.basis_UP.shape[1]]
        return repr(parts)


@dataclass(frozen=True, kw_only=True)
class BatchAnchoring:
    """CORAL of the batches of a training, along the principal directions of what the frozen encoder makes of both."""

    queue: CoralQueue
    speech: Utterances
    """Unlabelled clips of the target that are heard."""
    weight: float

    def draw(self, count: int, rng: np.random.Generator) -> list[str]:
        """As many clips of the target's speech as a batch has labelled ones."""
        return [self.speech.ids[row] for row in rng.permutation(len(self.speech.ids))[:count]]

    def loss(self, standard_BLU: Tensor, from_source_B: Tensor, labelled: int) -> Tensor:
        """λ · CORAL of a batch: labelled clips, those of the source marked, then unlabelled ones of the target."""
        source_B = from_source_B[:labelled]
        coral: Tensor = self.queue(standard_BLU[:labelled][source_B], standard_BLU[labelled:])
        return self.weight * coral
