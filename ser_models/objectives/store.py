"""A pretraining objective on disk beside its encoder: what it takes to measure its loss later, elsewhere."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import torch
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from ser_models.encoders import SpeechEncoder
from ser_models.objectives.masked_clusters import ClusterObjective
from ser_models.objectives.objective import Objective
from ser_models.objectives.options import MaskedPredictionOptions

CENTROIDS = "targets.centroid_KD"


def save_objective(objective: nn.Module, file: str | Path, *, teacher: bool = False) -> None:
    """Write heads, mask frame and clusters; with `teacher`, also the encoder whose states are clustered."""
    save_file(saved_state(objective, teacher=teacher), str(file))


def restore_objective(objective: nn.Module, file: str | Path) -> None:
    """Put saved heads, mask frame and clusters into an objective. Raises ValueError where the file lacks some."""
    state = load_file(str(file))
    if missing := sorted(set(saved_state(objective)) - set(state)):
        kind = type(objective).__name__
        raise ValueError(f"{file} holds no {', '.join(missing)}: it is of another objective than {kind}")
    objective.load_state_dict(state, strict=False)


def load_objective(
    build: Callable[..., nn.Module],
    encoder: SpeechEncoder,
    options: MaskedPredictionOptions,
    file: str | Path,
    *,
    teacher: SpeechEncoder | None = None,
) -> Objective:
    """The objective of masked prediction around a pretrained encoder, in evaluation mode.

    `teacher` is the encoder before pretraining, whose states were clustered, where the file does not hold one.
    """
    state = load_file(str(file))
    if CENTROIDS in state:
        options = replace(options, clusters=len(state[CENTROIDS]))
    objective = build(encoder, options, torch.Generator().manual_seed(0))
    if not isinstance(objective, Objective):
        raise ValueError(f"expected an objective of masked prediction, got {type(objective).__name__}")
    if teacher is not None and isinstance(objective, ClusterObjective):
        objective.targets.teacher.load_state_dict(teacher.state_dict())
    restore_objective(objective, file)
    return objective.eval()


def saved_state(objective: nn.Module, *, teacher: bool = False) -> dict[str, Tensor]:
    """Weights of an objective that are not saved with the encoder or adapter it trains."""
    left_out: tuple[str, ...] = objective.saved_elsewhere  # type: ignore[assignment]  # a ClassVar of every objective
    if teacher:
        left_out = tuple(prefix for prefix in left_out if prefix != "targets.teacher.")
    state = objective.state_dict()
    return {name: value.detach().cpu().clone() for name, value in state.items() if not name.startswith(left_out)}
