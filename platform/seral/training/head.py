"""Fitting the head of a training on pooled features: of classes, of dimensions or of both, anchored or not."""

# N rows · C classes · L hidden states · D features
from __future__ import annotations

import math
from dataclasses import replace
from typing import Any

import torch
from numpy.typing import NDArray

from ser_models.alignment import fit_anchored
from ser_models.audio_text import TextInput, make_pool
from ser_models.fitting import (
    FitOptions,
    FitResult,
    PooledSet,
    Prior,
    RatedSet,
    fit_dimensions,
    fit_head,
    middle_layers,
    predict_pooled,
)
from ser_models.heads import Head, LayerPool, stack_heads
from ser_models.metrics import uar
from ser_models.moments import PooledMoments
from seral.errors import OptionError, TrainError
from seral.features.store import FeatureStore
from seral.task.examples import Targets, Utterances, pooled_rows
from seral.training.alignment import DomainAdaptation
from seral.training.data import Labelled
from seral.training.finetune_options import FinetuneOptions


def standardised_pool(store: FeatureStore, moments: PooledMoments, options: FinetuneOptions) -> LayerPool:
    """The standardisation of the training audio, and of its transcripts where they are read."""
    text = None
    if options.modalities != "audio":
        if moments.text is None:
            raise OptionError(f"modalities={options.modalities} needs a text_encoder for the transcripts")
        width, alone = len(moments.text.total), options.modalities == "text"
        text = TextInput(width=width, alone=alone, gain=1.0 if alone else options.head.text_gain)
    head, states = options.head, store.num_layers + 1
    pool = make_pool(states, store.width, std_gain=head.std_gain, standardised=head.standardise, text=text)
    if head.start == "fitted":
        pool.lean_to(middle_layers(states))
    try:
        pool.fit_moments(moments)
    except ValueError as error:
        raise TrainError(f"{moments.mean.count} training utterances: {error}") from error
    return pool


def fit_options(options: FinetuneOptions) -> FitOptions:
    """The options of a fit of the head that a training asks for."""
    head = options.head
    return FitOptions(
        l2=head.l2,
        balanced=options.class_weights == "balanced",
        logit_adjustment=options.logit_adjustment,
        std_gain=head.std_gain,
        learn_layers=head.layers == "sum",
        hidden=head.hidden,
        activation=head.activation,
        loss=options.loss,
    )


def random_head(pool: LayerPool, num_outputs: int, options: FinetuneOptions, seed: int) -> FitResult:
    """A head that is yet to be learnt by steps, on a pool that weighs every layer alike, or the last alone."""
    if options.head.layers == "last":
        pool.use_only(pool.centre_mean.shape[0] - 1)
    generator, head = torch.Generator().manual_seed(seed), options.head
    drawn = Head(pool.out_width, num_outputs, hidden=head.hidden, activation=head.activation, generator=generator)
    drawn.draw(generator)
    return FitResult(pool=pool.eval(), head=drawn.eval(), loss=math.nan, steps=0, dev_uar=None)


def fit_training_head(
    train: Labelled,
    dev: Labelled,
    pool: LayerPool,
    num_classes: int,
    options: FinetuneOptions,
    adaptation: DomainAdaptation | None = None,
    prior: Prior | None = None,
) -> FitResult:
    """A head for classes, for dimensions, or for both on the layer weights of the classes.

    With an adaptation the source's clips among the labelled ones are brought to the target first. With a prior, a head
    of the source, they are left to it.
    """
    if adaptation is not None:
        train, dev = (Labelled(adaptation.aligned(units), targets) for units, targets in (train, dev))
    settings = fit_options(options)
    if options.head.layers == "last":
        pool.use_only(pool.centre_mean.shape[0] - 1)
    judged = labelled_rows(dev.units, dev.targets.decided) if dev.units.ids and num_classes else None
    if not num_classes:
        return fit_dimensions(rated_rows(*train), pool=pool, options=settings)
    if adaptation is not None and adaptation.options is not None:
        return _fit_anchored(labelled_rows(*train), judged, pool, num_classes, settings, adaptation)
    fitted = fit_head(labelled_rows(*train), num_classes, pool=pool, dev=judged, prior=prior, options=settings)
    if not train.targets.value_NK.shape[1]:
        return fitted
    rated = fit_dimensions(rated_rows(*train), pool=fitted.pool, options=replace(settings, learn_layers=False))
    return replace(fitted, head=stack_heads(fitted.head, rated.head))


def _fit_anchored(
    train: PooledSet,
    dev: PooledSet | None,
    pool: LayerPool,
    num_classes: int,
    settings: FitOptions,
    adaptation: DomainAdaptation,
) -> FitResult:
    source, target = (pooled_rows(part) for part in (adaptation.aligned(adaptation.source), adaptation.target))
    fitted = fit_anchored(train, source, target, num_classes, anchors=adaptation.anchors(), pool=pool, options=settings)
    if dev is None:
        return fitted
    predicted_N = predict_pooled(fitted, dev.mean_NLD, dev.std_NLD, dev.text_NE).argmax(1)
    return replace(fitted, dev_uar=uar(dev.label_N.numpy(), predicted_N.numpy()))


def labelled_rows(units: Utterances, targets: Targets) -> PooledSet:
    """The clips that have a class."""
    labelled_N = targets.labelled_N
    weight_N, soft_NC = (
        None if part is None else torch.from_numpy(part[labelled_N]) for part in (targets.weight_N, targets.soft_NC)
    )
    label_N = torch.from_numpy(targets.label_N[labelled_N])
    return PooledSet(**_rows(units, labelled_N), label_N=label_N, weight_N=weight_N, soft_NC=soft_NC)


def rated_rows(units: Utterances, targets: Targets) -> RatedSet:
    """The clips that are rated."""
    return RatedSet(**_rows(units, targets.rated_N), target_NK=torch.from_numpy(targets.value_NK[targets.rated_N]))


def _rows(units: Utterances, keep_N: NDArray[Any]) -> dict[str, Any]:
    chosen = units if keep_N.all() else units.rows(keep_N)  # without a copy where all are
    audio = {name: torch.from_numpy(getattr(chosen, name)) for name in ("mean_NLD", "std_NLD")}
    return {**audio, "text_NE": chosen.texts(slice(None))}
