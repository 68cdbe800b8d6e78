"""Effect of a training of adapters: the change of their weights, and of what the head reads of some training clips."""

# N clips · L hidden states · D features
from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor

from ser_models.adapters.effect import LEAST_EFFECT, merged_update, parameter_changes, state_distance
from ser_models.build import SerModel
from ser_models.encoders import load_encoder
from seral.task.examples import Utterances
from seral.training.adapter_training import AdapterSpec, starting_model
from seral.training.model import load_model
from seral.training.scoring import pooled_from_frames
from seral.training.waves import reader_of

UNTRAINED = ", and no epoch lowered the dev loss, so that it is as it began"
CLIPS = 32
"""Training clips on which the effect is measured: the first in the order of their ids."""


@torch.inference_mode()
def effect_of(spec: AdapterSpec, folder: str, epochs: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """Measures of the trained model of a folder beside the model that its training began with.

    changes: root mean square change of the parameters of each part since the start. update: norm of the merged update
    in the norm of the weights that it changes; None for adapters that cannot be merged. effect: relative distance of
    the pooled states that the head reads with and without adapters; None with a single clip. warning: a sentence where
    that is below LEAST_EFFECT, else None. `epochs`: the history of the training, the first entry before any step.
    """
    model, plain = load_model(folder), load_encoder(spec.store.encoder).requires_grad_(False)
    trained = model.encoder
    changes = parameter_changes(starting_model(spec).encoder, trained)
    ids = sorted(spec.train.units.ids)[:CLIPS]
    units = spec.train.units.rows(np.isin(spec.train.units.ids, ids))
    adapted = _pooled(spec, model, units)
    model.encoder = plain
    pooled = _pooled(spec, model, units), adapted
    effect = state_distance(*pooled, std_gain=model.pool.std_gain) if len(ids) > 1 else None
    update = merged_update(plain, trained)
    return {"changes": changes, "update": update, "effect": effect, "warning": _warning(spec, effect, epochs)}


def _pooled(spec: AdapterSpec, model: SerModel, units: Utterances) -> tuple[Tensor, Tensor]:
    """Pooled states of some clips, those that the head reads and adapters may change, two (N, L, D)."""
    reader = reader_of(spec.store, spec.layer, model.encoder)
    mean_NLD, std_NLD = pooled_from_frames(model, reader.pieces(units.ids), units, reader.layer)
    read_L = torch.softmax(model.pool.layer_weight, 0) > 0
    read_L[: reader.layer] = False
    return torch.from_numpy(mean_NLD)[:, read_L], torch.from_numpy(std_NLD)[:, read_L]


def _warning(spec: AdapterSpec, effect: float | None, epochs: Sequence[Mapping[str, Any]]) -> str | None:
    if effect is None or effect >= LEAST_EFFECT:
        return None
    losses = [epoch.get("dev_loss", math.inf) for epoch in epochs]
    reason = "" if losses[0] > min(losses[1:], default=math.inf) or losses[0] == math.inf else UNTRAINED
    return (
        f"the adapter {spec.options.adapter} does nothing: it moves the pooled states of training clips by "
        f"{effect:.2%} of their spread, less than {LEAST_EFFECT:.0%}{reason}"
    )
