"""Views of a training's clips: features as they are, or less means of speakers or corpora."""

# N rows · M labelled rows
from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace

import numpy as np

from ser_models.fitting import FitOptions, Prior
from ser_models.heads import LayerPool
from seral.errors import OptionError
from seral.features.speakers import SpeakerShifts
from seral.task.examples import Utterances
from seral.training.data import Labelled, SourceModels, TrainingData
from seral.training.finetune_options import FinetuneOptions
from seral.training.head import fit_options, labelled_rows, standardised_pool
from seral.training.model import load_fitted
from seral.training.normalisation import choose_normalisation, lean_by_corpora

ALONE, WITH_SOURCE = 1.0, 2.0
"""Standard errors by which labels must speak for another view, without and with a source that has spoken for one."""


@dataclass(frozen=True, kw_only=True)
class View:
    """Features under one normalisation, their standardisation, and the head of a source on them."""

    shifts: SpeakerShifts | None
    """Taken from every clip; None = nothing."""
    pool: LayerPool
    prior: Prior | None

    def of(self, units: Utterances) -> Utterances:
        """Utterances in this view."""
        return units if self.shifts is None else units.less(self.shifts)


def normalisations(data: TrainingData, options: FinetuneOptions) -> list[str]:
    """Normalisations that a training may choose from: one, or with auto all that are possible.

    Raises OptionError where means are asked for and cannot be taken.
    """
    wanted = options.head.normalise
    # Adapters learn from a source's clips as they were brought to the target's mean and spread.
    alone = data.source is None or (own_models(data) is not None and (options.frozen or not data.source.units.ids))
    fits = options.can_normalise and bool(data.classes) and alone
    possible = list(data.centrings) if fits else []
    if wanted not in ("none", "auto", *possible):
        raise OptionError(
            f"finetune.head.normalise={wanted} is for classes where speakers are known, without augment, anchor, "
            "another pooling, the adapter wap, or adapters that learn from a source: set it to none or auto"
        )
    names: list[str] = ["none", *possible] if wanted == "auto" else [wanted]
    models = own_models(data)
    if models is None:
        return names
    if not (both := [name for name in names if name in models.folders]):
        raise OptionError(f"the prior was made for normalise={', '.join(models.folders)}, not for {names[0]}")
    return both


def own_models(data: TrainingData) -> SourceModels | None:
    """The models of the source whose heads are priors; None where there is no source, or the two are anchored."""
    return None if data.source is None or data.source.anchor is not None else data.source.models


def view_of(data: TrainingData, options: FinetuneOptions, name: str, models: SourceModels | None) -> View:
    """The view under a normalisation."""
    centring = data.centrings.get(name)
    moments = data.unlabelled.moments if centring is None else centring.moments
    pool, prior = standardised_pool(data.store, moments, options), None
    if models is not None:
        fitted = load_fitted(models.folders[name])
        pool.lean_to(fitted.pool.layer_weight.detach())
        prior = Prior(fitted.head, models.labels[name])
    return View(shifts=None if centring is None else centring.shifts, pool=pool, prior=prior)


def choose_view(
    views: Mapping[str, View],
    train: Labelled,
    data: TrainingData,
    models: SourceModels | None,
    options: FinetuneOptions,
) -> tuple[str, dict[str, float]]:
    """The name of the view in which the labels are told best, and the mean loss in each.

    A source has said which it should be, and labels must speak against it clearly. Without one it is features less the
    means of corpora, if there are several and the labels are mixed within them, else features as they are.
    """
    train = Labelled(train.units, train.targets.decided)
    labelled_N = train.targets.labelled_N
    ids = [name for name, is_labelled in zip(train.units.ids, labelled_N.tolist(), strict=True) if is_labelled]
    settings: FitOptions = replace(fit_options(options), learn_layers=False)
    group_of = {name: centring.shifts.speakers.rows(ids) for name, centring in data.centrings.items()}
    if models is not None:
        leaning = (models.normalise, WITH_SOURCE)
    else:
        label_M = train.targets.label_N[labelled_N]
        leaning = (lean_by_corpora(label_M, group_of.get("corpus"), len(data.classes)), ALONE)
    return choose_normalisation(
        {name: labelled_rows(view.of(train.units), train.targets) for name, view in views.items()},
        len(data.classes),
        group_of.get("speaker", np.arange(len(ids))),
        {name: view.pool for name, view in views.items()},
        {name: view.prior for name, view in views.items()},
        leaning,
        settings,
    )


def without_source(data: TrainingData) -> Labelled:
    """The labelled clips of the target alone, their weights 1 on average."""
    if data.source is None:
        return data.train
    source, (units, targets) = set(data.source.units.ids), data.train
    own_N = np.array([name not in source for name in units.ids], dtype=bool)
    own = targets.rows(np.flatnonzero(own_N).tolist())
    if own.weight_N is not None:
        own = replace(own, weight_N=own.weight_N / own.weight_N.mean())
    return Labelled(units.rows(own_N), own)
