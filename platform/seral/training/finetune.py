"""Fine-tuning on the labels so far: a head on cached features, or adapters in the encoder through Ray Train.

The head is always fitted first, on frozen pooled features; adapters are then trained from that point on, with the head
("linear probe, then fine-tune", Kumar et al. 2022, arXiv 2202.10054). Most adapters change nothing at the start, so the
first model of a fine-tune is the probe, and the best-dev checkpoint is at least as good on dev. Layers below the lowest
adapter are never run again: training starts from the cached frames of the hidden state beneath it.
"""

# N rows · C classes · L encoder layers (L+1 hidden states) · D features
from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from ser_models.adapters import attach_adapters, lowest_trainable_layer
from ser_models.anchoring import AnchorOptions, fit_anchored
from ser_models.audio_text import TextInput, make_pool
from ser_models.encoders import load_encoder
from ser_models.fitting import (
    FitResult,
    PooledSet,
    ProbeOptions,
    RatedSet,
    fit_best_head,
    fit_dimensions,
    fit_head,
    predict_pooled,
)
from ser_models.heads import LayerPool, stack_heads
from ser_models.metrics import uar
from seral import storage
from seral.cluster import ClusterOptions
from seral.errors import OptionError, TrainError
from seral.features.store import FeatureStore
from seral.pretraining.layout import pretrained_adapters
from seral.task.examples import Targets, Utterances, pooled_rows
from seral.task.ray_train import OnReport
from seral.training.adapters import AdapterSpec, train_adapters
from seral.training.alignment import AnchoringOptions, Carry
from seral.training.augmented import with_copies
from seral.training.finetune_options import FinetuneOptions, HeadOptions, check_anchored
from seral.training.model import adapted_features, replace_head, save_probe
from seral.training.pretrained import adapters_on, write_start


def frames_layer(encoder: str, options: FinetuneOptions) -> int | None:
    """The hidden state whose frames training starts from; None when pooled features are enough."""
    if options.frozen:
        return None
    # Looked for in a copy: what the options say of layers is for the adapters to know.
    lowest = lowest_trainable_layer(attach_adapters(load_encoder(encoder), adapters_on(encoder, options), seed=0))
    if lowest < 0:
        raise OptionError(f"{options.adapter!r} trains the convolutions, and training starts above them: stem=false")
    return lowest


def finetune(
    train: Utterances,
    target: Targets,
    dev: Utterances,
    dev_target: Targets,
    *,
    unlabelled: Utterances,
    store: FeatureStore,
    classes: Sequence[str],
    dimensions: Sequence[str] = (),
    folder: str,
    seed: int,
    options: FinetuneOptions,
    on: ClusterOptions,
    start: str | None = None,
    freeze: Sequence[str] = (),
    refit_head: bool = False,
    source: Utterances | None = None,
    anchor: AnchoringOptions | None = None,
    on_report: OnReport | None = None,
) -> dict[str, Any]:
    """Train on labelled utterances and write the best model on dev to `folder`/model; returns the training's history.

    `unlabelled` gives the statistics that standardise each layer: training audio only, no labels. `start` is a model
    whose head and adapters go on learning, less those of the tags in `freeze`; its head is fitted anew on what its
    adapters make of the training clips with `refit_head`. Without `start` a head is fitted on the encoder as it is.

    `source` is speech of another language, some of it among the labelled: it is brought to the mean and spread of
    `unlabelled`, counts as much as the target's labels in total, and with `anchor` is held together with the target's
    speech (seral.training.alignment). The model is one for the target.

    With `options.augment` labelled clips of the target come with copies, which have their labels and weights.

    `on_report` hears of every epoch of adapters that train in this process (cluster.train_workers = 0).
    """
    for part, given in (("training", target), ("dev", dev_target)):
        _check_targets(part, given, classes, dimensions)
    if options.head.hidden and classes and dimensions:
        raise OptionError("head.hidden is for classes or for dimensions, not for both on one embedding")
    layer = frames_layer(store.encoder, options)
    history: dict[str, Any] = {}
    if options.augment is not None:
        besides = () if source is None else source.row_of
        clips = len(train.ids)
        store, train, target = with_copies(
            store, train, target, options.augment, besides=besides, frames_layer=layer, on=on
        )
        history["copies"] = len(train.ids) - clips
    carry = None
    if source is not None:
        if start is not None or dimensions or not classes:
            raise OptionError("speech of another language is carried over for classes, in a training from the start")
        if anchor is not None:
            check_anchored(options)
        carry = Carry.between(source, unlabelled, anchor)
        target = carry.weighed(train, target)
    model = storage.join(folder, "model")
    pretrained = storage.join(folder, ".pretrained")
    if start is None and not options.frozen and pretrained_adapters(store.encoder):
        pool = _fitted_pool(store, unlabelled, options)
        start, refit_head = write_start(pretrained, store, pool, options, classes, dimensions, seed), True
    if start is None or refit_head:
        heard = (train, dev, unlabelled) if start is None else adapted_features(start, store, train, dev, unlabelled)
        pool = _fitted_pool(store, heard[2], options)
        probe = _fit_head((heard[0], target), (heard[1], dev_target), pool, len(classes), options.head, carry)
        history["head"] = {name: getattr(probe, name) for name in ("layer", "dev_uar", "loss", "steps")}
        history["head"]["trainable"] = sum(p.numel() for part in (probe.pool, probe.head) for p in part.parameters())
        fitted = model if options.frozen else storage.join(folder, ".head")
        if start is None:
            save_probe(fitted, probe, store, classes, options.head.dropout, dimensions)
        else:
            replace_head(start, probe, store, fitted)
        start = fitted
    if options.frozen:
        if freeze or start != model:
            raise OptionError(f"{options.adapter!r} has nothing to go on with from {start}: choose an adapter")
        return history
    spec = AdapterSpec(
        store=store,
        start=start,
        freeze=_frozen_tags(options, freeze),
        train=train,
        target=target,
        dev=dev,
        dev_target=dev_target,
        classes=tuple(classes),
        layer=layer or 0,
        seed=seed,
        options=options,
        on=on,
        carry=None if carry is None else carry.in_training(pool, seed),
    )
    work = storage.join(folder, ".train")
    name = f"train-{_digest(spec)}"
    history["adapter"] = train_adapters(spec, name=name, work=work, target=model, on_report=on_report)
    for left in (storage.join(folder, ".head"), pretrained):
        storage.remove(left)
    return history


def _fitted_pool(store: FeatureStore, unlabelled: Utterances, options: FinetuneOptions) -> LayerPool:
    """The standardisation of the training audio, and of its transcripts where they are read."""
    text = None
    if options.modalities != "audio":
        if unlabelled.text_NE is None:
            raise OptionError(f"modalities={options.modalities} needs a text_encoder for the transcripts")
        width, alone = unlabelled.text_NE.shape[1], options.modalities == "text"
        text = TextInput(width=width, alone=alone, gain=1.0 if alone else options.head.text_gain)
    pool = make_pool(store.num_layers + 1, store.width, std_gain=options.head.std_gain, text=text)
    mean_NLD, std_NLD = (torch.from_numpy(array) for array in (unlabelled.mean_NLD, unlabelled.std_NLD))
    try:
        pool.fit(mean_NLD, std_NLD, unlabelled.texts(slice(None)))
    except ValueError as error:
        raise TrainError(f"{len(unlabelled.ids)} training utterances: {error}") from error
    return pool


def _check_targets(part: str, target: Targets, classes: Sequence[str], dimensions: Sequence[str]) -> None:
    if classes and not target.labelled_N.any():
        raise TrainError(f"none of the {len(target.label_N)} {part} utterances has one of the classes {list(classes)}")
    if dimensions and (rated := int(target.rated_N.sum())) < 2:
        raise TrainError(f"{rated} of the {len(target.label_N)} {part} utterances have ratings; CCC needs two or more")


def _fit_head(
    train: tuple[Utterances, Targets],
    dev: tuple[Utterances, Targets],
    pool: LayerPool,
    num_classes: int,
    options: HeadOptions,
    carry: Carry | None = None,
) -> FitResult:
    """A head for classes, for dimensions, or for both on the layer weights of the classes."""
    if carry is not None:
        train, dev = ((carry.moved(units), targets) for units, targets in (train, dev))
    settings = ProbeOptions(
        l2=options.l2, std_gain=options.std_gain, learn_layers=options.layers == "sum", hidden=options.hidden
    )
    if options.layers == "last":
        pool.use_only(pool.centre_mean.shape[0] - 1)
    if not num_classes:
        return fit_dimensions(_rated_rows(*train), pool=pool, options=settings)
    if carry is not None and carry.options is not None:
        return _fit_anchored(_labelled_rows(*train), _labelled_rows(*dev), pool, num_classes, settings, carry)
    fit = fit_best_head if settings.learn_layers else fit_head
    fitted = fit(_labelled_rows(*train), num_classes, pool=pool, dev=_labelled_rows(*dev), options=settings)
    if not train[1].value_NK.shape[1]:
        return fitted
    rated = fit_dimensions(_rated_rows(*train), pool=fitted.pool, options=replace(settings, learn_layers=False))
    return replace(fitted, head=stack_heads(fitted.head, rated.head))


def _fit_anchored(
    train: PooledSet, dev: PooledSet, pool: LayerPool, num_classes: int, settings: ProbeOptions, carry: Carry
) -> FitResult:
    chosen = carry.options or AnchoringOptions()
    source, target = (pooled_rows(part) for part in (carry.moved(carry.source), carry.target))
    options = AnchorOptions(weight=chosen.weight, projection=chosen.projection)
    anchors = carry.anchors()
    fitted = fit_anchored(
        train, source, target, num_classes, anchors=anchors, pool=pool, options=options, probe=settings
    )
    told_N = predict_pooled(fitted, dev.mean_NLD, dev.std_NLD, dev.text_NE).argmax(1)
    return replace(fitted, dev_uar=uar(dev.label_N.numpy(), told_N.numpy()))


def _frozen_tags(options: FinetuneOptions, freeze: Sequence[str]) -> tuple[str, ...]:
    """What does not learn: a model that hears the last layer alone keeps it that way."""
    return tuple({*freeze, "layer_sum"} if options.head.layers == "last" else freeze)


def _labelled_rows(units: Utterances, target: Targets) -> PooledSet:
    keep_N = target.labelled_N
    weight_N, soft_NC = (
        None if part is None else torch.from_numpy(part[keep_N]) for part in (target.weight_N, target.soft_NC)
    )
    label_N = torch.from_numpy(target.label_N[keep_N])
    return PooledSet(**_rows(units, keep_N), label_N=label_N, weight_N=weight_N, soft_NC=soft_NC)


def _rated_rows(units: Utterances, target: Targets) -> RatedSet:
    return RatedSet(**_rows(units, target.rated_N), target_NK=torch.from_numpy(target.value_NK[target.rated_N]))


def _rows(units: Utterances, keep_N: NDArray[np.bool_]) -> dict[str, Any]:
    audio = {name: torch.from_numpy(getattr(units, name)[keep_N]) for name in ("mean_NLD", "std_NLD")}
    return {**audio, "text_NE": units.texts(keep_N)}


def _digest(spec: AdapterSpec) -> str:
    """What decides the outcome of a training, so that two different ones never share a Ray Train run name."""
    text = [spec.store.fingerprint, spec.train.ids, spec.target.label_N.tolist(), spec.target.value_NK.tolist()]
    text += [None if part is None else part.tolist() for part in (spec.target.weight_N, spec.target.soft_NC)]
    text += [spec.seed, spec.options.model_dump_json(), spec.start, spec.freeze]
    if spec.carry is not None:
        text.append(spec.carry.digest())
    return hashlib.sha256(repr(text).encode()).hexdigest()[:16]
