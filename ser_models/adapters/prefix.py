"""Prefix tuning: learned keys and values that every frame of a layer may attend to.

Li and Liang 2021 (arXiv 2101.00190). The keys carry no position: they stand outside the clip. They join the attention
through the interface by which transformers chooses an attention function, so the same few lines serve every family.
"""

# B batch · H heads (of keys and values) · P prefix length · T frames · D features per head
from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from ser_models.adapters.injection import default_targets
from ser_models.adapters.parameters import adapted_layers, refuse_second, register
from ser_models.encoders import SpeechEncoder
from ser_models.encoders.encoder import attention_of, head_width

ATTENTION = "sdpa_with_prefix"
START_STD = 0.02


@dataclass(frozen=True, kw_only=True)
class PrefixOptions:
    """Options of prefixes: length and layers."""

    length: int = 16
    """P, learned positions before each layer's frames."""
    hidden: int = 0
    """Width of the hidden layer of the paper's reparametrisation, 512 there: a small network in each layer makes the
    prefix of P learned vectors, which trains more steadily. 0 = keys and values are learned themselves."""
    top_layers: int | None = None
    """Only the top n transformer layers get one, so the frozen ones below can be cached; None = all."""

    def __post_init__(self) -> None:
        if self.length < 1:
            raise ValueError(f"length must be at least 1, got {self.length}")
        if self.hidden < 0:
            raise ValueError(f"hidden must be at least 0, got {self.hidden}")


class Prefix(nn.Module):
    """Learned keys and values of one attention module. Unlike other adapters it changes the output from the start."""

    def __init__(self, heads: int, head_width: int, options: PrefixOptions, generator: torch.Generator) -> None:
        super().__init__()
        _join_attention()
        self.enabled, self.heads = True, heads
        width, hidden = heads * head_width, options.hidden
        shapes: dict[str, tuple[int, ...]] = dict.fromkeys(("key", "value"), (heads, options.length, head_width))
        if hidden:
            shapes = {"source": (options.length, width), "inner": (hidden, width), "outer": (2 * width, hidden)}
        for name, shape in shapes.items():
            std = shape[1] ** -0.5 if hidden else START_STD
            self.register_parameter(name, nn.Parameter(std * torch.randn(shape, generator=generator)))

    def __setstate__(self, state: dict[str, Any]) -> None:
        _join_attention()
        super().__setstate__(state)  # type: ignore[no-untyped-call]

    def adapter_params(self) -> list[str]:
        """All of it."""
        return [name for name, _ in self.named_parameters()]

    def drawn(self) -> tuple[Tensor, Tensor]:
        """Keys and values of the prefix, (H, P, D) each: `outer tanh(inner source)`, or learned themselves."""
        if "key" in self._parameters:
            return self.get_parameter("key"), self.get_parameter("value")
        source, inner, outer = map(self.get_parameter, ("source", "inner", "outer"))
        both = torch.tanh(source @ inner.T) @ outer.T
        key_HPD, value_HPD = both.view(len(both), 2, self.heads, -1).permute(1, 2, 0, 3)
        return key_HPD, value_HPD

    def forward(
        self, key_BHTD: Tensor, value_BHTD: Tensor, bias: Tensor | None
    ) -> tuple[Tensor, Tensor, Tensor | None]:
        """Keys and values with the prefix before them, (B, H, T, D) -> (B, H, P+T, D), and the bias that fits them."""
        if not self.enabled:
            return key_BHTD, value_BHTD, bias
        key, value = (
            torch.cat([own.to(frames).expand(frames.shape[0], *own.shape), frames], dim=2)
            for own, frames in zip(self.drawn(), (key_BHTD, value_BHTD), strict=True)
        )
        return key, value, None if bias is None else nn.functional.pad(bias, (key.shape[2] - key_BHTD.shape[2], 0))


def attach_prefix(encoder: SpeechEncoder, options: PrefixOptions, *, seed: int) -> SpeechEncoder:
    """Put a prefix into the attention of each adapted layer of an encoder in place, and freeze the rest."""
    refuse_second(encoder, "prefix")
    _, keys = default_targets(encoder, at_least=2)[:2]
    generator = torch.Generator().manual_seed(seed)
    device = next(encoder.parameters()).device
    for index in adapted_layers(encoder, options.top_layers):
        attention: Any = attention_of(encoder.layers[index])
        width = head_width(attention)
        heads = getattr(attention, keys).out_features // width
        attention.prefix = Prefix(heads, width, options, generator).to(device)
    encoder.model.config._attn_implementation = ATTENTION
    register(encoder, "prefix", options)
    return encoder


def _attend(
    module: nn.Module, query: Tensor, key: Tensor, value: Tensor, attention_mask: Tensor | None, **settings: Any
) -> tuple[Tensor, None]:
    """transformers' fused attention, with the module's prefix if it has one."""
    prefix = getattr(module, "prefix", None)
    if prefix is not None:
        # The positions of a Conformer: a prefix has none.
        if (position_bias := settings.pop("position_bias", None)) is not None:
            attention_mask = position_bias if attention_mask is None else position_bias + attention_mask
        key, value, attention_mask = prefix(key, value, attention_mask)
    from transformers.integrations.sdpa_attention import sdpa_attention_forward

    outcome: tuple[Tensor, None] = sdpa_attention_forward(module, query, key, value, attention_mask, **settings)
    return outcome


def _join_attention() -> None:
    from transformers import AttentionInterface

    AttentionInterface.register(ATTENTION, _attend)
