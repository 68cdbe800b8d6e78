"""Low-rank adaptation: W x <- W x + (alpha / r) B A x, through the peft library. Hu et al. 2021 (arXiv 2106.09685).

As used for speech emotion recognition by Lashkarashvili et al. 2024 (arXiv 2402.11747).
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import nn

from ser_models.adapters.injection import PeftOptions, default_targets, inject, target_pattern
from ser_models.adapters.parameters import adapter_modules
from ser_models.encoders import SpeechEncoder


@dataclass(frozen=True, kw_only=True)
class LoraOptions(PeftOptions):
    """Options of LoRA: the places and sizes of low-rank updates."""

    rank: int = 8
    """r, the rank of every update. 8 in Lashkarashvili et al. 2024."""
    alpha: float = 8.0
    """Updates are scaled by alpha / rank. 1 in Lashkarashvili et al. 2024, in trainings of 2000 steps."""
    dropout: float = 0.0
    """Dropout on the input of A, in training only."""
    targets: tuple[str, ...] | None = None
    """Last names of the linear layers to adapt; None = attention and feed-forward."""
    top_layers: int | None = None
    """Only the top n transformer layers are adapted, so the frozen ones below can be cached; None = all."""

    def __post_init__(self) -> None:
        if self.rank < 1:
            raise ValueError(f"rank must be at least 1, got {self.rank}")
        if not self.alpha > 0:
            raise ValueError(f"alpha must be positive, got {self.alpha}")
        if not 0 <= self.dropout < 1:
            raise ValueError(f"dropout must lie in [0, 1), got {self.dropout}")
        if self.targets is not None and not self.targets:
            raise ValueError("targets must name at least one linear layer; None takes the family's default")
        if self.top_layers is not None and self.top_layers < 1:
            raise ValueError(f"top_layers must be at least 1, got {self.top_layers}; use the 'frozen' adapter for none")


@dataclass(frozen=True, kw_only=True)
class DoraOptions(LoraOptions):
    """Options of DoRA: the places and sizes of low-rank updates, as for LoRA."""


def attach_lora(encoder: SpeechEncoder, options: LoraOptions, *, seed: int) -> SpeechEncoder:
    """Put low-rank updates on an encoder in place and freeze the rest; at first the output is bit for bit unchanged.

    Differs from the paper: the feed-forward linears are adapted too by default, which is what its 2-3 % of trainable
    parameters amount to (`targets` narrows it to attention), and alpha is the rank.
    """
    _attach(encoder, "lora", options, seed, use_dora=False)
    return encoder


def attach_dora(encoder: SpeechEncoder, options: DoraOptions, *, seed: int) -> SpeechEncoder:
    """Put low-rank updates on an encoder that learn the size of every column apart from its direction, in place.

    Liu et al. 2024, DoRA (arXiv 2402.09353).
    """
    _attach(encoder, "dora", options, seed, use_dora=True)
    return encoder


def _attach(encoder: SpeechEncoder, kind: str, options: LoraOptions, seed: int, *, use_dora: bool) -> None:
    from peft import LoraConfig

    targets = options.targets or default_targets(encoder)
    config = LoraConfig(
        r=options.rank,
        # peft takes any number here; its annotation says int.
        lora_alpha=options.alpha,
        lora_dropout=options.dropout,
        use_dora=use_dora,
        target_modules=target_pattern(encoder, options.top_layers, targets),
    )
    inject(encoder, kind, options, config)
    draw_lora(encoder, seed)


@torch.no_grad()
def draw_lora(encoder: SpeechEncoder, seed: int) -> None:
    """A uniform as a linear layer's weights, B zero; the same numbers on every device. Hu et al. 2021, section 4.1."""
    generator = torch.Generator().manual_seed(seed)
    for own in adapter_modules(encoder).values():
        for name, parameter in sorted(own.items()):
            if ".lora_A." in name:
                fresh = torch.zeros(parameter.shape)
                nn.init.kaiming_uniform_(fresh, a=math.sqrt(5), generator=generator)
                parameter.copy_(fresh)
            elif ".lora_B." in name:
                parameter.zero_()
