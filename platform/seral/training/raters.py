"""Targets of a training whose raters are known by name: classifier and raters learnt from each other."""

# N clips · M labelled rows · C classes
from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from seral.features.store import FeatureStore
from seral.labels.crowd import weighed
from seral.labels.votes import winners
from seral.task.examples import Targets, Unlabelled
from seral.training.cross_validation import cross_validated
from seral.training.data import Labelled, TrainingData
from seral.training.finetune_options import FinetuneOptions
from seral.training.views import normalisations, own_models

STEPS = 4
"""Times that the classifier and the raters are learnt from each other."""


def learn_raters(data: TrainingData, options: FinetuneOptions) -> tuple[TrainingData, dict[str, Any]]:
    """The data with shares of the classes by a classifier and raters' votes; a history with `raters`, how often each is
    right.

    The classifier, the head on frozen features, has not heard the clip, nor its speaker where means of speakers may
    be taken away, so that no vote confirms itself.

    The data as they are, and nothing, where no votes of named raters come with them, or speakers cannot be left out.
    """
    units, targets = data.train
    if targets.votes_N is None:
        return data, {}
    share_NC = np.full((len(units.ids), len(data.classes)), np.nan)
    share_NC[targets.decided_N] = np.eye(len(data.classes))[targets.label_N[targets.decided_N]]
    if targets.soft_NC is not None:
        share_NC = np.where(np.isnan(targets.soft_NC), share_NC, targets.soft_NC)
    others = set() if data.source is None else set(data.source.units.ids)
    own_N = np.array([name not in others for name in units.ids], dtype=bool)
    models, names = own_models(data), normalisations(data, options)
    normalise = models.normalise if models is not None and models.normalise in names else names[0]
    centring = data.centrings.get("speaker")
    groups = range(len(units.ids)) if centring is None else centring.shifts.speakers.rows(units.ids).tolist()
    voices = [str(group) for group, own in zip(groups, own_N.tolist(), strict=True) if own]
    right_of = dict[str, float]()
    for _ in range(STEPS):
        outputs = cross_validated(data, options.head_only, voices, normalise)
        if outputs is None or not np.isfinite(outputs.probability_NC).all():
            break
        share_NC[own_N], confusion_of = weighed(targets.votes_N[own_N], share_NC[own_N], outputs.probability_NC)
        right_of = {name: float(np.diagonal(confusion_CC).mean()) for name, confusion_CC in confusion_of.items()}
        learnt = replace(targets, soft_NC=share_NC.astype(np.float32), label_N=winners(share_NC))
        data = replace(data, train=Labelled(units, learnt))
    return data, {"raters": right_of} if right_of else {}


def raters_of_corpora(
    clips: Labelled, corpus_N: NDArray[np.str_], store: FeatureStore, classes: Sequence[str], options: FinetuneOptions
) -> Targets:
    """Targets of labelled corpora with shares of the classes by a classifier and raters' votes, corpus after corpus.

    Winners stay those of the votes: what is judged by them does not confirm the classifier. As they are where no votes
    of named raters come with them.
    """
    targets = clips.targets
    if targets.votes_N is None or targets.soft_NC is None:
        return targets
    soft_NC = targets.soft_NC.copy()
    alone = FinetuneOptions(head=options.head.model_copy(update={"normalise": "none"}))
    for corpus in np.unique(corpus_N).tolist():
        own_N = corpus_N == corpus
        units, rows = clips.units.rows(own_N), np.flatnonzero(own_N).tolist()
        data = TrainingData(
            train=Labelled(units, targets.rows(rows)),
            dev=Labelled(units.rows(np.zeros(len(rows), dtype=bool)), targets.first(0)),
            unlabelled=Unlabelled.of(units),
            store=store,
            classes=classes,
        )
        soft_NC[rows] = learn_raters(data, alone)[0].train.targets.soft_NC
    return replace(targets, soft_NC=soft_NC)
