"""Adapters folded into the weights, or switched off for a while."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from torch import nn

from ser_models.adapters import ADAPTERS
from ser_models.adapters.parameters import MARKS, is_of_peft
from ser_models.adapters.prefix import Prefix
from ser_models.encoders import SpeechEncoder


def merge_adapters(encoder: SpeechEncoder, *, leave: bool = False) -> SpeechEncoder:
    """Fold the adapters into the encoder's weights in place: the same function, and a plain encoder again, all frozen.

    Kinds that are no linear update of a weight raise ValueError, or stay as they are with `leave`.
    """
    unfit = [kind for kind in encoder.adapters if not ADAPTERS[kind].mergeable]
    if unfit and not leave:
        mergeable = ", ".join(kind for kind, adapter in ADAPTERS.items() if adapter.mergeable)
        raise ValueError(f"{', '.join(unfit)} cannot be merged into the weights; mergeable: {mergeable}")
    for module in encoder.model.modules():
        if is_of_peft(module):
            module.merge(safe_merge=True)
    carried = {kind: encoder.adapters[kind] for kind in unfit}
    unload_peft(encoder)
    for module in encoder.modules():
        module.__dict__.pop(MARKS, None)
    encoder.adapters = carried
    encoder.requires_grad_(False)
    return encoder


def unload_peft(encoder: SpeechEncoder) -> SpeechEncoder:
    """Take peft's layers off an encoder in place; what is not merged is lost."""
    for name, module in list(encoder.model.named_modules()):
        if is_of_peft(module):
            parent, _, own = name.rpartition(".")
            setattr(encoder.model.get_submodule(parent), own, module.get_base_layer())
    encoder.model.__dict__.pop("peft_config", None)
    encoder.adapters = {kind: options for kind, options in encoder.adapters.items() if ADAPTERS[kind].peft is None}
    return encoder


@contextmanager
def adapters_disabled(encoder: SpeechEncoder) -> Iterator[None]:
    """The pretrained encoder inside the block. Raises ValueError where its own weights were trained."""
    if fixed := [kind for kind in encoder.adapters if not ADAPTERS[kind].switchable]:
        raise ValueError(f"{', '.join(fixed)} trains the encoder's own weights and cannot be switched off")
    layers = [module for module in encoder.model.modules() if is_of_peft(module)]
    trained = [parameter for parameter in encoder.parameters() if parameter.requires_grad]
    after, on_states = encoder.after_layers, encoder.on_states
    encoder.after_layers = nn.ModuleList(nn.Sequential() for _ in after)
    encoder.on_states = nn.ModuleList(nn.ModuleDict() for _ in on_states)
    prefixes = [module for module in encoder.model.modules() if isinstance(module, Prefix)]
    for layer in layers:
        layer.enable_adapters(False)
    for prefix in prefixes:
        prefix.enabled = False
    try:
        yield
    finally:
        encoder.after_layers, encoder.on_states = after, on_states
        for layer in layers:
            layer.enable_adapters(True)
        for prefix in prefixes:
            prefix.enabled = True
        encoder.requires_grad_(False)
        for parameter in trained:
            parameter.requires_grad_(True)
