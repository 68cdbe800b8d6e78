"""Parameter-efficient adapters: a few trained weights on a frozen speech encoder.

A kind of adapter is its options and one function, `attach(encoder, options, seed=...)`, that works in place; everything
else (counting, checking, saving) is generic over modules that name their own adapter parameters.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from ser_models.adapters.frozen import FrozenOptions, attach_frozen
from ser_models.adapters.lora import LoraOptions, attach_lora
from ser_models.adapters.parameters import (
    AdapterModule,
    adapter_modules,
    adapter_parameters,
    count_parameters,
    dead_adapters,
    freeze_all_but_adapters,
    lowest_trainable_layer,
)
from ser_models.adapters.store import load_adapter, save_adapter
from ser_models.encoders import SpeechEncoder

__all__ = [
    "ADAPTERS",
    "Adapter",
    "AdapterModule",
    "FrozenOptions",
    "LoraOptions",
    "adapter_modules",
    "adapter_parameters",
    "attach_frozen",
    "attach_lora",
    "count_parameters",
    "dead_adapters",
    "freeze_all_but_adapters",
    "load_adapter",
    "lowest_trainable_layer",
    "save_adapter",
]


@dataclass(frozen=True, kw_only=True)
class Adapter:
    """One kind of adapter."""

    options: type[Any]
    """The dataclass of its options; without arguments it holds the defaults."""
    attach: Callable[..., SpeechEncoder]
    """(encoder, options, *, seed) -> the same encoder, adapted in place, everything but adapters frozen."""


ADAPTERS: dict[str, Adapter] = {
    "frozen": Adapter(options=FrozenOptions, attach=attach_frozen),
    "lora": Adapter(options=LoraOptions, attach=attach_lora),
}
"""Kinds of adapters by name."""
