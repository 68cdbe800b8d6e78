"""Parameter-efficient adapters: a few trained weights on a frozen speech encoder.

A kind of adapter is its options and one function, `attach(encoder, options, seed=...)`, that works in place; everything
else (counting, checking, freezing parts, saving, merging) is generic over modules that name their own adapter
parameters. Kinds compose: `attach_adapters(encoder, "lora+bottleneck+gate", seed=0)`.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from ser_models.adapters.adalora import AdaloraOptions, RankSchedule, attach_adalora
from ser_models.adapters.bottleneck import BottleneckOptions, attach_bottleneck
from ser_models.adapters.frozen import FrozenOptions, attach_frozen
from ser_models.adapters.gate import GateOptions, attach_gate
from ser_models.adapters.ia3 import Ia3Options, attach_ia3
from ser_models.adapters.kinds import ADAPTERS, Adapter
from ser_models.adapters.lora import DoraOptions, LoraOptions, attach_dora, attach_lora
from ser_models.adapters.merge import adapters_disabled, merge_adapters
from ser_models.adapters.parameters import (
    AdapterModule,
    adapter_modules,
    adapter_parameters,
    adapter_tags,
    count_parameters,
    dead_adapters,
    freeze_all_but_adapters,
    lowest_trainable_layer,
    set_trainable,
)
from ser_models.adapters.partial import (
    BitfitOptions,
    FullOptions,
    LastBlockOptions,
    attach_bitfit,
    attach_full,
    attach_last_block,
)
from ser_models.adapters.prefix import PrefixOptions, attach_prefix
from ser_models.adapters.store import load_adapter, save_adapter
from ser_models.encoders import SpeechEncoder

__all__ = [
    "ADAPTERS",
    "AdaloraOptions",
    "Adapter",
    "AdapterModule",
    "BitfitOptions",
    "BottleneckOptions",
    "DoraOptions",
    "FrozenOptions",
    "FullOptions",
    "GateOptions",
    "Ia3Options",
    "LastBlockOptions",
    "LoraOptions",
    "PrefixOptions",
    "RankSchedule",
    "adapter_modules",
    "adapter_parameters",
    "adapter_tags",
    "adapters_disabled",
    "attach_adalora",
    "attach_adapters",
    "attach_bitfit",
    "attach_bottleneck",
    "attach_dora",
    "attach_frozen",
    "attach_full",
    "attach_gate",
    "attach_ia3",
    "attach_last_block",
    "attach_lora",
    "attach_prefix",
    "count_parameters",
    "dead_adapters",
    "freeze_all_but_adapters",
    "load_adapter",
    "lowest_trainable_layer",
    "merge_adapters",
    "parse_adapters",
    "save_adapter",
    "set_trainable",
]


def parse_adapters(spec: str) -> dict[str, Any]:
    """`"lora+gate"` -> the kinds with their default options. Raises ValueError for an unknown or repeated kind."""
    kinds = [kind.strip() for kind in spec.split("+")]
    for kind in kinds:
        if kind not in ADAPTERS:
            raise ValueError(f"no adapter {kind!r} in {spec!r}; known: {', '.join(ADAPTERS)}")
    if len(set(kinds)) < len(kinds):
        raise ValueError(f"an adapter is named twice in {spec!r}")
    return {kind: ADAPTERS[kind].options() for kind in kinds}


def attach_adapters(encoder: SpeechEncoder, spec: str | Mapping[str, Any], *, seed: int) -> SpeechEncoder:
    """Put one adapter or several on an encoder in place, and freeze everything else.

    `spec` is `"lora+gate"`, or kind -> options. The order in which kinds are named means nothing: weights of the
    encoder come first, then what replaces its linears, then what joins its attention or follows a layer.
    """
    options = parse_adapters(spec) if isinstance(spec, str) else dict(spec)
    if unknown := sorted(set(options) - set(ADAPTERS)):
        raise ValueError(f"no adapter {unknown[0]!r}; known: {', '.join(ADAPTERS)}")
    for kind, adapter in ADAPTERS.items():
        if kind in options:
            adapter.attach(encoder, options[kind], seed=seed)
    return encoder
