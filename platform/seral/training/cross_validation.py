"""Labels that were bought as their own development set: speakers left out in turn."""

# N clips · M labelled rows · C classes
from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import numpy as np
import torch
from numpy.typing import NDArray

from ser_models.fitting import fit_head, predict_pooled
from seral.training.data import TrainingData
from seral.training.finetune_options import FinetuneOptions
from seral.training.head import fit_options, labelled_rows
from seral.training.normalisation import FOLDS, deal
from seral.training.views import own_models, view_of, without_source

Float = NDArray[np.float32]


def cross_validated(
    data: TrainingData, options: FinetuneOptions, voices: Sequence[str], normalise: str
) -> Float | None:
    """Probabilities of the target's labelled clips by heads that have not heard their speakers, (M, C).

    Layer weights stay at their prior, which saves most of the time. `voices`: the speaker of each. None where they are
    fewer than two, or all labels of one class: nothing can be left out then.
    """
    train, models = without_source(data), own_models(data)
    group_M = np.unique(voices, return_inverse=True)[1]
    if len(np.unique(group_M)) < 2 or len(np.unique(train.targets.label_N[train.targets.decided_N])) < 2:
        return None
    view, part_M = view_of(data, options, normalise, models), deal(group_M, FOLDS)
    if options.head.layers == "last":
        view.pool.use_only(len(view.pool.layer_weight) - 1)
    settings = replace(fit_options(options), learn_layers=False)
    rows = labelled_rows(view.of(train.units), train.targets)
    probability_MC = np.zeros((len(part_M), len(data.classes)), np.float32)
    for part in np.unique(part_M).tolist():
        out_M = torch.from_numpy(part_M == part)
        left = rows.only(out_M)
        fitted = fit_head(rows.only(~out_M), len(data.classes), pool=view.pool, prior=view.prior, options=settings)
        logits_NC = predict_pooled(fitted, left.mean_NLD, left.std_NLD, left.text_NE)
        probability_MC[part_M == part] = logits_NC.softmax(1).numpy()
    return probability_MC
