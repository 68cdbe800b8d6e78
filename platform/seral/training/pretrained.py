"""Training that starts from adapters which were pretrained without labels (seral.pretraining.layout)."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch

from ser_models.adapters.composition import attach_adapters
from ser_models.adapters.parameters import lowest_trainable_layer
from ser_models.adapters.store import take_over
from ser_models.adapters.wap import WapTransformer
from ser_models.audio_text import AudioTextPool
from ser_models.build import SerModel, build_model, use_pooling
from ser_models.encoders import load_encoder
from seral.errors import OptionError
from seral.pretraining.layout import ADAPTER, pretrained_adapters
from seral.training.data import TrainingData
from seral.training.finetune_options import FinetuneOptions
from seral.training.head import standardised_pool
from seral.training.model import save_model


def adapters_on(encoder: str, options: FinetuneOptions) -> dict[str, Any]:
    """Kinds of adapters and their options; of one that was pretrained on the encoder, the options of the pretraining.

    Raises OptionError where such an adapter is left out, or is to have other options.
    """
    adapters, pretrained = options.adapters(), pretrained_adapters(encoder)
    for kind, trained in pretrained.items():
        if kind not in adapters:
            raise OptionError(f"{encoder} was pretrained with the adapter {kind}: name it in finetune.adapter")
        if kind in options.settings and adapters[kind] != trained:
            raise OptionError(f"settings.{kind} are {adapters[kind]}, it was pretrained with {trained}")
        if "adalora" in adapters:
            raise OptionError(f"adalora moves its ranks from the start, and {kind} was pretrained: use lora beside it")
    return adapters | pretrained


def write_start(folder: str, data: TrainingData, options: FinetuneOptions, seed: int) -> str:
    """Write a model with the pretrained adapters of an encoder, fresh others, and a head that is yet to be fitted."""
    encoder = attach_adapters(load_encoder(data.store.encoder), adapters_on(data.store.encoder, options), seed=seed)
    take_over(encoder, Path(data.store.encoder) / ADAPTER)
    pool, head = standardised_pool(data.store, data.unlabelled.moments, options), options.head
    model = build_model(
        encoder,
        data.classes,
        dimensions=data.dimensions,
        text=pool.text if isinstance(pool, AudioTextPool) else None,
        std_gain=head.std_gain,
        standardised=head.standardise,
        hidden=head.hidden,
        activation=head.activation,
        dropout=head.dropout,
    )
    layer = lowest_trainable_layer(encoder)
    use_pooling(model, options.pooling, start=max(layer, 0))
    save_model(folder, model, data.store, layer=layer)
    return folder


@torch.no_grad()
def standardise_adapters(model: SerModel) -> None:
    """Give a fresh WAP-Transformer the scale of its hidden state: means of clips, and deviations inside them."""
    for state, modules in enumerate(model.encoder.on_states):
        for module in modules.modules():
            if isinstance(module, WapTransformer):
                module.fit(model.pool.centre_mean[state], model.pool.centre_std[state])
