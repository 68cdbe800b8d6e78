"""Labels that were bought as their own development set: speakers left out in turn."""

# N clips · M labelled rows · C classes · K rated dimensions
from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import numpy as np
import torch
from numpy.typing import NDArray

from ser_models.fitting import FitOptions, FitResult, fit_dimensions, fit_head, predict_pooled
from seral.task.examples import pooled_rows
from seral.training.data import Labelled, TrainingData
from seral.training.finetune_options import FinetuneOptions
from seral.training.head import fit_options, labelled_rows, rated_rows
from seral.training.normalisation import FOLDS, deal
from seral.training.scoring import Outputs
from seral.training.views import View, own_models, view_of, without_source

Float = NDArray[np.float32]


def cross_validated(
    data: TrainingData, options: FinetuneOptions, voices: Sequence[str], normalise: str
) -> Outputs | None:
    """Outputs for the target's labelled clips by heads that have not heard their speakers, M rows.

    Layer weights stay at their prior, which saves most of the time. `voices`: the speaker of each. NaN in all
    probabilities where labels are of one class, and in all values where a part has two different ratings of a dimension
    no more; None where speakers are fewer than two, or both are so: nothing can be left out then.
    """
    train, models = without_source(data), own_models(data)
    group_M = np.unique(voices, return_inverse=True)[1]
    part_M = deal(group_M, FOLDS)
    parts = [part_M == part for part in np.unique(part_M).tolist()]
    tells_classes = len(np.unique(train.targets.label_N[train.targets.decided_N])) > 1
    rates = len(parts) > 1 and all(train.targets.rows(np.flatnonzero(~out_M).tolist()).varies for out_M in parts)
    if len(parts) < 2 or not (tells_classes or rates):
        return None
    view = view_of(data, options, normalise, models)
    if options.head.layers == "last":
        view.pool.use_only(len(view.pool.layer_weight) - 1)
    settings = replace(fit_options(options), learn_layers=False)
    clips = Labelled(view.of(train.units), train.targets)
    probability_MC = np.full((len(part_M), len(data.classes)), np.nan, np.float32)
    value_MK = np.full((len(part_M), len(data.dimensions)), np.nan, np.float32)
    for out_M in parts:
        if tells_classes:
            fitted = _head_of_classes(clips, ~out_M, len(data.classes), view, settings)
            probability_MC[out_M] = _predict(fitted, clips, out_M).softmax(1).numpy()
        if rates:
            learnt = Labelled(clips.units.rows(~out_M), clips.targets.rows(np.flatnonzero(~out_M).tolist()))
            fitted = fit_dimensions(rated_rows(*learnt), pool=view.pool, options=settings)
            value_MK[out_M] = _predict(fitted, clips, out_M).numpy()
    return Outputs(probability_NC=probability_MC, value_NK=value_MK)


def _head_of_classes(
    clips: Labelled, learnt_M: NDArray[np.bool_], num_classes: int, view: View, settings: FitOptions
) -> FitResult:
    labelled_M = clips.targets.labelled_N
    rows = labelled_rows(*clips).only(torch.from_numpy(learnt_M[labelled_M]))
    return fit_head(rows, num_classes, pool=view.pool, prior=view.prior, options=settings)


def _predict(fitted: FitResult, clips: Labelled, out_M: NDArray[np.bool_]) -> torch.Tensor:
    """Outputs of a fitted head for the clips that were left out."""
    left = pooled_rows(clips.units.rows(out_M))
    return predict_pooled(fitted, left.mean_NLD, left.std_NLD, left.text_NE)
