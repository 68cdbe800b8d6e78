"""The table of adapters, in the order in which they go onto an encoder."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from ser_models.adapters.adalora import AdaloraOptions, attach_adalora
from ser_models.adapters.bottleneck import BottleneckOptions, attach_bottleneck
from ser_models.adapters.frozen import FrozenOptions, attach_frozen
from ser_models.adapters.gate import GateOptions, attach_gate
from ser_models.adapters.ia3 import Ia3Options, attach_ia3
from ser_models.adapters.layer_sum import LayerSumOptions, attach_layer_sum
from ser_models.adapters.lora import DoraOptions, LoraOptions, attach_dora, attach_lora
from ser_models.adapters.partial import (
    BitfitOptions,
    FullOptions,
    LastBlockOptions,
    attach_bitfit,
    attach_full,
    attach_last_block,
)
from ser_models.adapters.prefix import PrefixOptions, attach_prefix
from ser_models.adapters.wap import WapOptions, attach_wap
from ser_models.encoders import SpeechEncoder


@dataclass(frozen=True, kw_only=True)
class Adapter:
    """One kind of adapter."""

    options: type[Any]
    """The dataclass of its options; without arguments it holds the defaults."""
    attach: Callable[..., SpeechEncoder]
    """(encoder, options, *, seed) -> the same encoder, adapted in place, everything but adapters frozen."""
    identity: bool = True
    """Whether, with its default options, it leaves the output bit for bit unchanged at first."""
    mergeable: bool = True
    """Whether it can be folded into the encoder's weights."""
    switchable: bool = True
    """Whether it can be switched off: not where it trains the encoder's own weights."""
    lr: float = 1e-3
    """A peak learning rate of AdamW that suits it. Weights of the encoder want less, single factors more."""


ADAPTERS: dict[str, Adapter] = {
    "frozen": Adapter(options=FrozenOptions, attach=attach_frozen),
    "layer_sum": Adapter(options=LayerSumOptions, attach=attach_layer_sum),
    "full": Adapter(options=FullOptions, attach=attach_full, switchable=False, lr=1e-4),
    "last_block": Adapter(options=LastBlockOptions, attach=attach_last_block, switchable=False, lr=2e-4),
    "bitfit": Adapter(options=BitfitOptions, attach=attach_bitfit, switchable=False),
    "lora": Adapter(options=LoraOptions, attach=attach_lora),
    "dora": Adapter(options=DoraOptions, attach=attach_dora),
    "adalora": Adapter(options=AdaloraOptions, attach=attach_adalora),
    "ia3": Adapter(options=Ia3Options, attach=attach_ia3, lr=5e-3),
    "prefix": Adapter(options=PrefixOptions, attach=attach_prefix, identity=False, mergeable=False),
    "bottleneck": Adapter(options=BottleneckOptions, attach=attach_bottleneck, mergeable=False),
    "gate": Adapter(options=GateOptions, attach=attach_gate, mergeable=False, lr=5e-3),
    "wap": Adapter(options=WapOptions, attach=attach_wap, mergeable=False, lr=1e-4),
}
"""Kinds of adapters by name. Base weights, then peft's (they rename what they wrap), then what is ours."""
