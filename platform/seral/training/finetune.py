"""Fine-tuning on the labels so far: a head on cached features, or adapters in the encoder through Ray Train.

The head is always fitted first, on frozen pooled features; adapters are then trained from that point on, with the head
("linear probe, then fine-tune", Kumar et al. 2022, arXiv 2202.10054). Most adapters change nothing at the start, so the
first model of a fine-tune is the fitted head, and the best-dev checkpoint is at least as good on dev. Layers below the
lowest adapter are never run again: training starts from the cached frames of the hidden state beneath it.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from ser_models.adapters.composition import attach_adapters
from ser_models.adapters.parameters import adapter_buffers, adapter_parameters, lowest_trainable_layer
from ser_models.build import build_model, use_pooling
from ser_models.defaults import MEAN_STD
from ser_models.encoders import SpeechEncoder, load_encoder
from ser_models.fitting import FitResult
from seral import storage
from seral.cluster import ClusterOptions
from seral.errors import OptionError, TrainError
from seral.features.frames import keep_frames
from seral.features.precomputed import need_network
from seral.features.speakers import SpeakerShifts
from seral.pretraining.layout import pretrained_adapters
from seral.task.examples import Unlabelled
from seral.task.ray_train import WORK, OnReport
from seral.training.adapter_effect import effect_of
from seral.training.adapter_training import AdapterSpec, train_adapters
from seral.training.alignment import DomainAdaptation
from seral.training.augmented import with_copies
from seral.training.data import Labelled, TrainingData
from seral.training.finetune_options import AugmentOptions, FinetuneOptions, check_anchored
from seral.training.head import fit_training_head, random_head, standardised_pool
from seral.training.model import model_of_head, read_normalisation, replace_head, save_model
from seral.training.pretrained import adapters_on, write_start
from seral.training.raters import learn_raters
from seral.training.scoring import adapted_features, repooled_features
from seral.training.views import choose_view, normalisations, own_models, view_of, without_source
from seral.training.waves import AUDIO

PRETRAINED = ".pretrained"
"""Folder of the model that a training with pretrained adapters starts from."""


@dataclass(frozen=True, kw_only=True)
class Start:
    """A model whose head and adapters go on learning."""

    model: str
    """Folder of the model."""
    freeze: Sequence[str] = ()
    """Tags of its parts that stay as they are."""
    refit_head: bool = False
    """Fit the head anew on what the adapters make of the training clips."""


def start_layer(encoder: str, options: FinetuneOptions) -> int | None:
    """The hidden state whose frames training starts from, or AUDIO; None when pooled features are enough."""
    if options.frozen:
        return None
    need_network(encoder, f"finetune.adapter={options.adapter}")
    # Looked for in a copy: what the options say of layers is for the adapters to know.
    return lowest_trainable_layer(attach_adapters(load_encoder(encoder), adapters_on(encoder, options), seed=0))


def cached_layer(encoder: str, options: FinetuneOptions) -> int | None:
    """The hidden state whose frames are cached for a training; None when it starts from pooled features or audio."""
    layer = start_layer(encoder, options)
    return None if layer == AUDIO else layer


def frames_layer(encoder: str, options: FinetuneOptions) -> int | None:
    """`cached_layer` of trainings that cannot start from audio. Raises OptionError where they would have to."""
    layer = start_layer(encoder, options)
    if layer == AUDIO:
        raise OptionError(f"{options.adapter!r} trains the convolutions, and training starts above them: stem=false")
    return layer


def model_bytes(encoder: SpeechEncoder, options: FinetuneOptions, outputs: int) -> int:
    """Bytes of the weights that a model of so many outputs has on storage, beside the encoder; its adapters are put
    onto that in place. Transcripts are left out of account."""
    if not options.frozen:
        attach_adapters(encoder, options.adapters(), seed=0)
    model = build_model(encoder, [str(number) for number in range(outputs)], hidden=options.head.hidden)
    tensors = [*model.pool.state_dict().values(), *model.head.state_dict().values()]
    adapters = adapter_parameters(encoder) | adapter_buffers(encoder)
    return sum(tensor.nbytes for tensor in [*tensors, *adapters.values()])


def finetune(
    data: TrainingData,
    options: FinetuneOptions,
    folder: str,
    *,
    seed: int,
    on: ClusterOptions,
    start: Start | None = None,
    on_report: OnReport | None = None,
) -> dict[str, Any]:
    """Train on labelled utterances and write the best model on dev to `folder`/model; returns the training's history.

    Without `start` a head is fitted on the encoder as it is, else that model goes on learning. With `options.augment`
    labelled clips of the target come with corrupted copies. Votes of named raters are weighed (seral.training.raters).

    Speech of another language in `data.source` is brought to the mean and spread of `data.unlabelled`, counts as much
    as the target's labels in total, and with `anchor` is held together with the target's speech
    (seral.training.alignment). The model is one for the target.

    `on_report` is called after every epoch of adapters that train in this process (cluster.train_workers = 0).
    """
    _check(data, options)
    layer = _with_frames(data, options, start, on)
    data, history = learn_raters(data, options)
    if options.augment is not None:
        clips, data = len(data.train.units.ids), _augmented(data, options.augment, layer, on)
        history["copies"] = len(data.train.units.ids) - clips
    data, adaptation = _adapted(data, options, start)
    start = start or _pretrained(data, options, folder, seed)
    model, begin, head = storage.join(folder, "model"), None if start is None else start.model, None
    if start is None or start.refit_head:
        head = _fit_head(data, options, layer, begin, adaptation, seed)
        history["head"] = _describe(head)
        target = model if options.frozen else storage.join(folder, ".head")
        _save_head(head, data, options, layer, begin, target)
        begin = target
    if options.frozen:
        if start is not None and (start.freeze or not start.refit_head):
            raise OptionError(f"{options.adapter!r} has nothing to go on with from {begin}: choose an adapter")
        return history
    spec = AdapterSpec(
        store=data.store,
        start=str(begin),
        freeze=_frozen_tags(options, start),
        train=data.train,
        dev=data.dev,
        classes=tuple(data.classes),
        layer=layer or 0,
        seed=seed,
        options=options,
        on=on,
        adaptation=None if adaptation is None or head is None else adaptation.of_batches(head.fitted.pool, seed),
        shifts=_shifts(data, str(begin)),
    )
    name, work = f"train-{_digest(spec)}", storage.join(folder, WORK)
    history["adapter"] = train_adapters(spec, name=name, work=work, target=model, on_report=on_report)
    history["adapter"] |= effect_of(spec, model, history["adapter"]["epochs"])
    for name in (".head", PRETRAINED):
        storage.remove(storage.join(folder, name))
    return history


def _shifts(data: TrainingData, start: str) -> SpeakerShifts | None:
    """The shifts of the clips that adapters train on. Raises TrainError for a model of means that are not there."""
    if (normalise := read_normalisation(start)) == "none":
        return None
    if normalise not in data.centrings:
        raise TrainError(f"the model to start from reads features less the means of a {normalise}, and none are there")
    return data.centrings[normalise].shifts.only([*data.train.units.ids, *data.dev.units.ids])


def _with_frames(data: TrainingData, options: FinetuneOptions, start: Start | None, on: ClusterOptions) -> int | None:
    """The hidden state that training starts from, or None; the frames of all clips that it hears are kept then."""
    layer = start_layer(data.store.encoder, options)
    if layer == AUDIO and (options.augment is not None or data.source is not None):
        raise OptionError("convolutions learn from the clips of the pool alone: leave augment, source and prior out")
    if layer is None or layer == AUDIO:
        return layer
    ids = {*data.train.units.ids, *data.dev.units.ids}
    anchored = data.source is not None and data.source.anchor is not None
    if start is not None or anchored or options.pooling != MEAN_STD or pretrained_adapters(data.store.encoder):
        ids |= set(data.unlabelled.some.ids)
    keep_frames(data.store, layer, ids, on)
    return layer


def _pretrained(data: TrainingData, options: FinetuneOptions, folder: str, seed: int) -> Start | None:
    """The start of a training whose encoder comes with adapters that were pretrained; None where it has none."""
    if options.frozen or not pretrained_adapters(data.store.encoder):
        return None
    return Start(model=write_start(storage.join(folder, PRETRAINED), data, options, seed), refit_head=True)


def _check(data: TrainingData, options: FinetuneOptions) -> None:
    """Raise before anything is computed: TrainError where labels are missing, OptionError for a head that cannot be."""
    data.check()
    if options.head.hidden and options.head.start == "fitted" and data.classes and data.dimensions:
        raise OptionError("head.hidden is for classes or for dimensions, not for both on one embedding")


def _augmented(data: TrainingData, options: AugmentOptions, layer: int | None, on: ClusterOptions) -> TrainingData:
    """The data with corrupted copies of the target's labelled clips."""
    besides = () if data.source is None else data.source.units.row_of
    store, units, targets = with_copies(data.store, *data.train, options, besides=besides, frames_layer=layer, on=on)
    return replace(data, store=store, train=Labelled(units, targets))


def _adapted(
    data: TrainingData, options: FinetuneOptions, start: Start | None
) -> tuple[TrainingData, DomainAdaptation | None]:
    """The data with weights and the adaptation of the source to the target, where there is a source.

    Raises OptionError where a source cannot be adapted.
    """
    source = data.source
    if source is None or not source.units.ids or (options.frozen and own_models(data) is not None):
        return data, None  # a frozen head has the source as its prior
    if start is not None or data.dimensions or not data.classes:
        raise OptionError("speech of another language is adapted for classes, in a training from the start")
    if options.pooling != MEAN_STD:
        raise OptionError(
            "speech of another language is aligned by the means and standard deviations of cached features: set "
            f"finetune.pooling={MEAN_STD}, got {options.pooling}"
        )
    if source.anchor is not None:
        check_anchored(options)
    adaptation = DomainAdaptation.between(source.units, data.unlabelled, source.anchor)
    return replace(data, train=Labelled(data.train.units, adaptation.weighed(*data.train))), adaptation


@dataclass(frozen=True, kw_only=True)
class _TrainingHead:
    """A fitted head, and what is taken from the features before it reads them."""

    fitted: FitResult
    normalise: str = "none"
    losses: Mapping[str, float] = field(default_factory=dict)
    """Normalisation -> mean loss on speakers left out, where it was chosen by that."""


def _fit_head(
    data: TrainingData,
    options: FinetuneOptions,
    layer: int | None,
    start: str | None,
    adaptation: DomainAdaptation | None,
    seed: int,
) -> _TrainingHead:
    """The head of what the encoder, or the model to start from, makes of the training clips."""
    drawn, outputs = options.head.start == "random", len(data.classes) + len(data.dimensions)
    if drawn and start is None and (options.pooling == MEAN_STD or not options.head.standardise):
        pool = standardised_pool(data.store, data.unlabelled.moments, options)
        return _TrainingHead(fitted=random_head(pool, outputs, options, seed))
    if start is not None or (layer is not None and options.pooling != MEAN_STD):
        parts = (data.train.units, data.dev.units, data.unlabelled.some)
        if start is not None:
            units, dev, some = adapted_features(start, data.store, *parts)
        else:
            units, dev, some = repooled_features(data.store, options.pooling, max(layer or 0, 0), *parts)
        pool = standardised_pool(data.store, Unlabelled.of(some).moments, options)
        if drawn:
            return _TrainingHead(fitted=random_head(pool, outputs, options, seed))
        labelled = Labelled(units, data.train.targets), Labelled(dev, data.dev.targets)
        return _TrainingHead(fitted=fit_training_head(*labelled, pool, len(data.classes), options, adaptation))
    models = own_models(data)
    train = data.train if models is None else without_source(data)
    views = {name: view_of(data, options, name, models) for name in normalisations(data, options)}
    name, losses = next(iter(views)), dict[str, float]()
    if len(views) > 1:
        name, losses = choose_view(views, train, data, models, options)
    view, moved = views[name], None if models is not None else adaptation
    learnt, dev_part = (Labelled(view.of(part.units), part.targets) for part in (train, data.dev))
    fitted = fit_training_head(learnt, dev_part, view.pool, len(data.classes), options, moved, view.prior)
    return _TrainingHead(fitted=fitted, normalise=name, losses=losses)


def _save_head(
    head: _TrainingHead,
    data: TrainingData,
    options: FinetuneOptions,
    layer: int | None,
    start: str | None,
    folder: str,
) -> None:
    """Write the fitted head as a model: on the encoder as it is, or in place of the head of the model to start from."""
    if start is not None:
        replace_head(start, head.fitted, data.store, folder)
        return
    model = model_of_head(head.fitted, data.store, data.classes, options.head.dropout, data.dimensions)
    if layer is not None:
        use_pooling(model, options.pooling, start=max(layer, 0))
    save_model(folder, model, data.store, layer=data.store.num_layers, normalise=head.normalise)


def _describe(head: _TrainingHead) -> dict[str, Any]:
    """Facts of a fitted head for the history."""
    fitted = head.fitted
    facts = {name: getattr(fitted, name) for name in ("dev_uar", "loss", "steps")}
    facts |= {} if fitted.steps else {"loss": None}  # a head that is yet to be learnt
    facts |= {"normalise": head.normalise, "normalise_losses": dict(head.losses)}
    return facts | {"trainable": sum(p.numel() for part in (fitted.pool, fitted.head) for p in part.parameters())}


def _frozen_tags(options: FinetuneOptions, start: Start | None) -> tuple[str, ...]:
    """Tags of the parts that do not learn: a model on the last hidden state alone keeps it that way."""
    freeze = () if start is None else start.freeze
    return tuple({*freeze, "layer_sum"} if options.head.layers == "last" else freeze)


def _digest(spec: AdapterSpec) -> str:
    """A name of what decides the outcome, so that two different trainings never share a Ray Train run name."""
    units, targets = spec.train
    text = [spec.store.fingerprint, units.ids, targets.label_N.tolist(), targets.value_NK.tolist()]
    text += [None if part is None else part.tolist() for part in (targets.weight_N, targets.soft_NC)]
    text += [spec.seed, spec.options.model_dump_json(), spec.start, spec.freeze, read_normalisation(spec.start)]
    if spec.adaptation is not None:
        text.append(spec.adaptation.digest())
    return hashlib.sha256(repr(text).encode()).hexdigest()[:16]
