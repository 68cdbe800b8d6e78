"""Parameter-efficient adapters: a few trained weights on a frozen speech encoder.

`ADAPTERS` is the table of kinds. A kind is its options and one function, `attach(encoder, options, seed=...)`, that
works in place; everything else (counting, checking, freezing parts, saving, merging) is generic over modules that name
their own adapter parameters. Kinds compose: `composition.attach_adapters(encoder, "lora+bottleneck+gate", seed=0)`.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

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
from ser_models.registry import Registry, only

if TYPE_CHECKING:  # peft and transformers take seconds to import: whoever adapts or loads no encoder does without
    from peft import PeftConfig


@dataclass(frozen=True, kw_only=True)
class Adapter:
    """One kind of adapter, and everything that is known of it."""

    options: type[Any]
    """The dataclass of its options; without arguments it holds the defaults."""
    attach: Callable[..., SpeechEncoder]
    """(encoder, options, *, seed) -> the same encoder, adapted in place, everything but adapters frozen."""
    peft: Callable[[PeftConfig], bool] | None = None
    """Tells whether a configuration that peft saved is of this kind; None = its layers are made and stored by us."""
    trains: bool = True
    """Whether anything inside the encoder learns, so that it takes frames instead of pooled features."""
    identity: bool = True
    """Whether, with its default options, it leaves the output bit for bit unchanged at first."""
    mergeable: bool = True
    """Whether it can be folded into the encoder's weights."""
    switchable: bool = True
    """Whether it can be switched off: not where it trains the encoder's own weights."""
    not_pretrained: str = ""
    """Why an encoder cannot be pretrained through it, although it could be merged afterwards; empty = it can."""
    lr: float = 1e-3
    """A peak learning rate of AdamW that suits it. Weights of the encoder want less, single factors more."""

    @property
    def pretrainable(self) -> bool:
        """Whether an encoder that is pretrained through it comes out as a plain encoder."""
        return self.mergeable and not self.not_pretrained


def _is_lora(config: PeftConfig) -> bool:
    return config.peft_type == "LORA" and not config.use_dora


def _is_dora(config: PeftConfig) -> bool:
    return config.peft_type == "LORA" and bool(config.use_dora)


def _is_adalora(config: PeftConfig) -> bool:
    return bool(config.peft_type == "ADALORA")


def _is_ia3(config: PeftConfig) -> bool:
    return bool(config.peft_type == "IA3")


OWN: dict[str, Adapter] = {
    "frozen": Adapter(
        options=FrozenOptions,
        attach=attach_frozen,
        trains=False,
        not_pretrained="it trains nothing",
    ),
    "layer_sum": Adapter(
        options=LayerSumOptions,
        attach=attach_layer_sum,
        trains=False,
        not_pretrained="it weighs layers for a head, and trains nothing in the encoder",
    ),
    "full": Adapter(options=FullOptions, attach=attach_full, switchable=False, lr=1e-4),
    "last_block": Adapter(options=LastBlockOptions, attach=attach_last_block, switchable=False, lr=2e-4),
    "bitfit": Adapter(options=BitfitOptions, attach=attach_bitfit, switchable=False),
    "lora": Adapter(
        options=LoraOptions,
        attach=attach_lora,
        peft=_is_lora,
    ),
    "dora": Adapter(
        options=DoraOptions,
        attach=attach_dora,
        peft=_is_dora,
    ),
    "adalora": Adapter(
        options=AdaloraOptions,
        attach=attach_adalora,
        peft=_is_adalora,
        not_pretrained="its ranks move on a schedule that pretraining does not run",
    ),
    "ia3": Adapter(
        options=Ia3Options,
        attach=attach_ia3,
        peft=_is_ia3,
        lr=5e-3,
    ),
    "prefix": Adapter(options=PrefixOptions, attach=attach_prefix, identity=False, mergeable=False),
    "bottleneck": Adapter(options=BottleneckOptions, attach=attach_bottleneck, mergeable=False),
    "gate": Adapter(options=GateOptions, attach=attach_gate, mergeable=False, lr=5e-3),
    "wap": Adapter(options=WapOptions, attach=attach_wap, mergeable=False, lr=1e-4),
}
ADAPTERS = Registry(OWN, "seral.adapters", only(Adapter))
"""Kinds of adapters by name, in the order in which they go onto an encoder: base weights, then peft's (they rename what
they wrap), then what is ours."""
