"""Fine-tuning on the labels so far: a head on cached features, or LoRA in the encoder through Ray Train.

The head is always fitted first, on frozen pooled features; adapters are then trained from that point on, with the head
("linear probe, then fine-tune", Kumar et al. 2022, arXiv 2202.10054). LoRA changes nothing at the start, so the first
model of a fine-tune is the probe, and the best-dev checkpoint is at least as good on dev. Layers below the lowest
adapter are never run again: training starts from the cached frames of the hidden state beneath it.
"""

# N rows · C classes · L encoder layers (L+1 hidden states) · D features
from __future__ import annotations

import hashlib
from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from pydantic import Field

from ser_models.adapters import LoraOptions as LoraSettings
from ser_models.heads import LayerPool
from ser_models.probe import PooledSet, ProbeOptions, fit_best_head
from seral import storage
from seral.cluster import ClusterOptions
from seral.features import FeatureStore
from seral.options import Options
from seral.train.lora_run import LoraSpec, train_lora
from seral.train.model import frozen_encoder, save_probe
from seral.train.units import Utterances


class HeadOptions(Options):
    """The head on frozen features: layer weights and a linear classifier, see ser_models.probe."""

    l2: float = Field(default=0.03, ge=0)
    """Ridge penalty on the classifier's weights. More makes a less overconfident start for adapters."""
    std_gain: float = Field(default=0.4, ge=0)
    """Weight of the pooled standard deviations beside the means; 0 = means only."""
    dropout: float = Field(default=0.2, ge=0, lt=1)
    """Dropout before the classifier, while adapters train and in stochastic scoring passes."""


class LoraOptions(Options):
    """Low-rank adapters, see ser_models.adapters.lora."""

    rank: int = Field(default=8, ge=1)
    alpha: float = Field(default=8.0, gt=0)
    """Updates are scaled by alpha / rank."""
    dropout: float = Field(default=0.0, ge=0, lt=1)
    targets: list[str] | None = None
    """Names of the linear layers; None = what suits the encoder's family."""
    top_layers: int | None = Field(default=None, ge=1)
    """Adapters in the top so many layers only, so that the rest is cached; None = in all."""

    def settings(self) -> LoraSettings:
        """The same, as the model library takes it."""
        targets = None if self.targets is None else tuple(self.targets)
        return LoraSettings(**(self.model_dump() | {"targets": targets}))


class FinetuneOptions(Options):
    """How a round's model is trained."""

    adapter: str = Field(default="frozen", pattern="^(frozen|lora)$")
    """frozen: a head on cached features. lora: adapters in the encoder, and the head with them."""
    head: HeadOptions = HeadOptions()
    lora: LoraOptions = LoraOptions()
    epochs: int = Field(default=8, ge=1)
    """Epochs of LoRA training at most."""
    patience: int = Field(default=5, ge=1)
    """Epochs without a lower dev loss after which training ends."""
    lr: float = Field(default=1e-3, gt=0)
    """Peak learning rate of the adapters (AdamW, no weight decay, short warm-up, then linear to 0)."""
    head_lr: float = Field(default=5e-4, gt=0)
    """Peak learning rate of layer weights and head while adapters train."""
    batch_size: int = Field(default=16, ge=1)
    """Utterances in a step, over all workers."""
    mixup: float = Field(default=0.5, ge=0)
    """Alpha of manifold mixup while adapters train; 0 = off. A head that fits its labels perfectly, as on few labels it
    does, would otherwise leave the adapters nothing to learn from but noise."""
    time_mask_prob: float = Field(default=0.08, ge=0, lt=1)
    """Share of frames hidden from training in spans (SpecAugment's time masks)."""
    time_mask_frames: int = Field(default=15, ge=1)
    """Length of a span in frames."""


def frames_layer(encoder: str, options: FinetuneOptions) -> int | None:
    """The hidden state whose frames training starts from; None when pooled features are enough."""
    if options.adapter == "frozen":
        return None
    if options.lora.top_layers is None:
        return 0
    return max(0, frozen_encoder(encoder).num_layers - options.lora.top_layers)


def finetune(
    train: Utterances,
    label_N: NDArray[np.int64],
    dev: Utterances,
    dev_label_N: NDArray[np.int64],
    *,
    unlabelled: Utterances,
    store: FeatureStore,
    classes: Sequence[str],
    folder: str,
    seed: int,
    options: FinetuneOptions,
    on: ClusterOptions,
) -> dict[str, Any]:
    """Train on labelled utterances and write the best model on dev to `folder`/model; returns the training's history.

    `unlabelled` gives the statistics that standardise each layer: training audio only, no labels.
    """
    pool = LayerPool(store.num_layers + 1, store.width, std_gain=options.head.std_gain)
    pool.fit(torch.from_numpy(unlabelled.mean_NLD), torch.from_numpy(unlabelled.std_NLD))
    probe = fit_best_head(
        _pooled_set(train, label_N),
        len(classes),
        pool=pool,
        dev=_pooled_set(dev, dev_label_N),
        options=ProbeOptions(l2=options.head.l2, std_gain=options.head.std_gain),
    )
    target = storage.join(folder, "model")
    facts = {name: getattr(probe, name) for name in ("layer", "dev_uar", "loss", "steps")}
    history: dict[str, Any] = {"head": facts}
    if options.adapter == "frozen":
        save_probe(target, probe, store, classes, options.head.dropout)
        return history
    start = storage.join(folder, ".head")
    save_probe(start, probe, store, classes, options.head.dropout)
    spec = LoraSpec(
        store=store,
        start=start,
        train=train,
        label_N=label_N,
        dev=dev,
        dev_label_N=dev_label_N,
        classes=tuple(classes),
        layer=frames_layer(store.encoder, options) or 0,
        seed=seed,
        options=options,
        on=on,
    )
    work = storage.join(folder, ".train")
    history["lora"] = train_lora(spec, name=f"train-{_digest(spec)}", work=work, target=target)
    storage.remove(start)
    return history


def _pooled_set(units: Utterances, label_N: NDArray[np.int64]) -> PooledSet:
    return PooledSet(
        mean_NLD=torch.from_numpy(units.mean_NLD),
        std_NLD=torch.from_numpy(units.std_NLD),
        label_N=torch.from_numpy(label_N),
    )


def _digest(spec: LoraSpec) -> str:
    """What decides the outcome of a training, so that two different ones never share a Ray Train run name."""
    text = [spec.store.fingerprint, spec.train.ids, spec.label_N.tolist(), spec.seed, spec.options.model_dump_json()]
    return hashlib.sha256(repr(text).encode()).hexdigest()[:16]
