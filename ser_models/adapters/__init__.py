"""Parameter-efficient adapters: a few trained weights on a frozen speech encoder.

A kind of adapter is its options and one function, `attach(encoder, options, seed=...)`, that works in place; everything
else (counting, checking, freezing parts, saving, merging) is generic over modules that name their own adapter
parameters. Kinds compose: `attach_adapters(encoder, "lora+bottleneck+gate", seed=0)`.
"""

from __future__ import annotations

from ser_models.adapters.adalora import AdaloraOptions, RankSchedule
from ser_models.adapters.bottleneck import BottleneckOptions
from ser_models.adapters.composition import attach_adapters, parse_adapters
from ser_models.adapters.cost import AdapterCost, measure_adapters, render_costs
from ser_models.adapters.frozen import FrozenOptions, attach_frozen
from ser_models.adapters.gate import GateOptions
from ser_models.adapters.ia3 import Ia3Options
from ser_models.adapters.kinds import ADAPTERS, Adapter
from ser_models.adapters.layer_sum import LayerSumOptions
from ser_models.adapters.lora import DoraOptions, LoraOptions, attach_lora
from ser_models.adapters.merge import adapters_disabled, merge_adapters
from ser_models.adapters.parameters import (
    AdapterModule,
    adapter_modules,
    adapter_parameters,
    adapter_tags,
    count_parameters,
    dead_adapters,
    freeze_above,
    freeze_all_but_adapters,
    lowest_trainable_layer,
    set_trainable,
)
from ser_models.adapters.partial import (
    BitfitOptions,
    FullOptions,
    LastBlockOptions,
)
from ser_models.adapters.prefix import PrefixOptions
from ser_models.adapters.store import load_adapter, save_adapter
from ser_models.adapters.wap import WapOptions

__all__ = [
    "ADAPTERS",
    "AdaloraOptions",
    "Adapter",
    "AdapterCost",
    "AdapterModule",
    "BitfitOptions",
    "BottleneckOptions",
    "DoraOptions",
    "FrozenOptions",
    "FullOptions",
    "GateOptions",
    "Ia3Options",
    "LastBlockOptions",
    "LayerSumOptions",
    "LoraOptions",
    "PrefixOptions",
    "RankSchedule",
    "WapOptions",
    "adapter_modules",
    "adapter_parameters",
    "adapter_tags",
    "adapters_disabled",
    "attach_adapters",
    "attach_frozen",
    "attach_lora",
    "count_parameters",
    "dead_adapters",
    "freeze_above",
    "freeze_all_but_adapters",
    "load_adapter",
    "lowest_trainable_layer",
    "measure_adapters",
    "merge_adapters",
    "parse_adapters",
    "render_costs",
    "save_adapter",
    "set_trainable",
]
