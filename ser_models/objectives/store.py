"""A pretraining objective on disk beside its encoder: what it takes to measure its loss later, elsewhere."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import torch
from safetensors.torch import load_file, save_file
from torch import Tensor

from ser_models.encoders import SpeechEncoder
from ser_models.objectives.contrastive import Wav2Vec2Objective
from ser_models.objectives.masked_clusters import ClusterObjective
from ser_models.objectives.objective import Objective
from ser_models.objectives.options import TaptOptions

CENTROIDS = "targets.centroid_KD"


def save_objective(objective: Objective, file: str | Path, *, teacher: bool = False) -> None:
    """Heads, mask frame and clusters; with `teacher`, also the encoder whose states are clustered."""
    save_file(_kept(objective, teacher), str(file))


def load_objective(
    kind: type[Wav2Vec2Objective] | type[ClusterObjective],
    encoder: SpeechEncoder,
    options: TaptOptions,
    file: str | Path,
    *,
    teacher: SpeechEncoder | None = None,
) -> Objective:
    """The objective around a pretrained encoder, in evaluation mode.

    `teacher` is the encoder before pretraining, whose states were clustered, where the file does not hold one.
    """
    state = load_file(str(file))
    if CENTROIDS in state:
        options = replace(options, clusters=len(state[CENTROIDS]))
    objective = kind(encoder, options, torch.Generator().manual_seed(0))
    if teacher is not None and isinstance(objective, ClusterObjective):
        objective.targets.teacher.load_state_dict(teacher.state_dict())
    expected, found = set(_kept(objective, teacher=False)), set(state)
    if missing := sorted(expected - found):
        raise ValueError(f"{file} holds no {', '.join(missing)}: it is of another objective than {kind.__name__}")
    objective.load_state_dict(state, strict=False)
    return objective.eval()


def _kept(objective: Objective, teacher: bool) -> dict[str, Tensor]:
    left_out = ("encoder.",) if teacher else ("encoder.", "targets.teacher.")
    state = objective.state_dict()
    return {name: value.detach().cpu().clone() for name, value in state.items() if not name.startswith(left_out)}
