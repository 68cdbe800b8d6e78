"""Pretraining without labels: self-supervised objectives around a speech encoder or an adapter on one.

Li et al. 2023, AFTER, arXiv 2310.00283 (section 3.1), continue wav2vec 2.0's own objective on the audio of a task.
Differs from the paper: what the other families are pretrained with is of our choosing.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Literal

from torch import nn

from ser_models.objectives.batches import batches_by_seconds, random_crop
from ser_models.objectives.contrastive import ContrastiveObjective, pretraining_heads
from ser_models.objectives.distillation import Distillation, DistillationOptions
from ser_models.objectives.local_attributes import LocalAttributes, LocalAttributesOptions
from ser_models.objectives.masked_clusters import ClusterObjective, ClusterTargets, assign_clusters
from ser_models.objectives.objective import Objective, check_adapter, perplexity
from ser_models.objectives.options import MaskedPredictionOptions, gumbel_temperature_at, learning_rate_at
from ser_models.objectives.store import load_objective, restore_objective, save_objective
from ser_models.objectives.surprisal import surprisal
from ser_models.objectives.training import UpdateOptions, average_gradients, held_out_scores, update
from ser_models.registry import Registry, only

__all__ = [
    "OBJECTIVES",
    "ClusterObjective",
    "ClusterTargets",
    "ContrastiveObjective",
    "Distillation",
    "DistillationOptions",
    "LocalAttributes",
    "LocalAttributesOptions",
    "MaskedPredictionOptions",
    "Objective",
    "ObjectiveKind",
    "UpdateOptions",
    "assign_clusters",
    "average_gradients",
    "batches_by_seconds",
    "check_adapter",
    "find_objective",
    "gumbel_temperature_at",
    "held_out_scores",
    "learning_rate_at",
    "load_objective",
    "perplexity",
    "pretraining_heads",
    "random_crop",
    "restore_objective",
    "save_objective",
    "surprisal",
    "update",
]


@dataclass(frozen=True, kw_only=True)
class ObjectiveKind:
    """One kind of objective."""

    options: type[Any]
    """The dataclass of its options; without arguments it holds the defaults."""
    build: Callable[..., nn.Module]
    """(encoder, options, generator) -> the objective around what it trains, as a module whose forward gives scalars,
    `loss` among them. A distillation also takes the teacher's states on a sample of frames, before the generator."""
    reads: Literal["waves", "frames", "teacher"]
    """waves: clips (B, S) and their lengths. frames: cached frames of a hidden state, (B, T, D). teacher: clips, and
    the hidden states of a larger encoder on them."""
    families: tuple[str, ...] | None = None
    """Families of encoders that it fits; None = all."""
    adapter: str | None = None
    """The adapter that it trains on an encoder which stays as it is; None = the encoder, or any adapter to merge."""

    def fits(self, family: str) -> bool:
        """Whether encoders of a family can be pretrained with it."""
        return self.families is None or family in self.families


OWN: dict[str, ObjectiveKind] = {
    "contrastive": ObjectiveKind(
        options=MaskedPredictionOptions, build=ContrastiveObjective, reads="waves", families=("wav2vec2",)
    ),
    "masked_clusters": ObjectiveKind(options=MaskedPredictionOptions, build=ClusterObjective, reads="waves"),
    "local_attributes": ObjectiveKind(
        options=LocalAttributesOptions, build=LocalAttributes.on, reads="frames", adapter="wap"
    ),
    "distillation": ObjectiveKind(options=DistillationOptions, build=Distillation, reads="teacher"),
}
OBJECTIVES = Registry(OWN, "seral.objectives", only(ObjectiveKind))
"""Objectives by name. An encoder is pretrained with the first that fits its family, unless another one is chosen."""


def find_objective(name: str | None, family: str) -> str:
    """The objective of that name, or the first for a family of encoders. ValueError for one that does not fit."""
    if name is not None and name not in OBJECTIVES:
        raise ValueError(f"no objective {name!r}; known: {', '.join(OBJECTIVES)}")
    if name is not None and OBJECTIVES[name].fits(family):
        return name
    fitting = [kind for kind, objective in OBJECTIVES.items() if objective.fits(family)]
    if name is not None:
        raise ValueError(f"the objective {name!r} does not fit encoders of {family}; these do: {', '.join(fitting)}")
    return fitting[0]
