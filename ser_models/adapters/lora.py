"""Low-rank adaptation: W x <- W x + (alpha / r) B A x, through the peft library. Hu et al. 2021 (arXiv 2106.09685).

As used for speech emotion recognition by Lashkarashvili et al. 2024 (arXiv 2402.11747).
"""

from __future__ import annotations

import math
import re
from dataclasses import dataclass

import torch
from peft import LoraConfig, inject_adapter_in_model
from torch import nn

from ser_models.adapters.parameters import adapter_modules, adapter_parameters, freeze_all_but_adapters
from ser_models.encoders import SpeechEncoder

DEFAULT_TARGETS: dict[str, tuple[str, ...]] = {
    "wav2vec2": ("q_proj", "k_proj", "v_proj", "out_proj", "intermediate_dense", "output_dense"),
    "hubert": ("q_proj", "k_proj", "v_proj", "out_proj", "intermediate_dense", "output_dense"),
    "wavlm": ("q_proj", "k_proj", "v_proj", "out_proj", "intermediate_dense", "output_dense"),
    "data2vec-audio": ("q_proj", "k_proj", "v_proj", "out_proj", "intermediate_dense", "output_dense"),
    "whisper": ("q_proj", "k_proj", "v_proj", "out_proj", "fc1", "fc2"),
    "moonshine": ("q_proj", "k_proj", "v_proj", "o_proj", "fc1", "fc2"),
}
"""The four attention projections and both feed-forward linears of every family."""


@dataclass(frozen=True, kw_only=True)
class LoraOptions:
    """Where low-rank updates go and how large they are."""

    rank: int = 8
    """r, the rank of every update. 8 in Lashkarashvili et al. 2024."""
    alpha: float = 1.0
    """Updates are scaled by alpha / rank. 1 in Lashkarashvili et al. 2024; other work often takes rank or 2·rank."""
    dropout: float = 0.0
    """Dropout on the input of A, in training only."""
    targets: tuple[str, ...] | None = None
    """Last names of the linear layers to adapt; None = attention and feed-forward (DEFAULT_TARGETS)."""
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


def attach_lora(encoder: SpeechEncoder, options: LoraOptions, *, seed: int) -> SpeechEncoder:
    """Put low-rank updates on an encoder in place and freeze the rest; at first the output is bit for bit unchanged.

    Differs from the paper: the feed-forward linears are adapted too by default, which is what its 2-3 % of trainable
    parameters amount to; `targets` narrows it to attention.
    """
    _check_plain(encoder)
    targets = options.targets or DEFAULT_TARGETS[encoder.family]
    layers = _adapted_layers(encoder, options.top_layers)
    _check_targets(encoder, targets)
    config = LoraConfig(
        r=options.rank,
        # peft takes any number here; its annotation says int.
        lora_alpha=options.alpha,
        lora_dropout=options.dropout,
        target_modules=_pattern(layers, targets),
    )
    inject(encoder, config)
    draw_lora(encoder, seed)
    return encoder


def inject(encoder: SpeechEncoder, config: LoraConfig) -> None:
    """Replace the targeted linears by peft's, in place, and freeze the rest, without touching global random state."""
    _check_plain(encoder)
    with torch.random.fork_rng(devices=[]):
        inject_adapter_in_model(config, encoder.model)
    freeze_all_but_adapters(encoder)


@torch.no_grad()
def draw_lora(encoder: SpeechEncoder, seed: int) -> None:
    """A uniform as a linear layer's weights, B zero; the same numbers on every device. Hu et al. 2021, section 4.1."""
    generator = torch.Generator().manual_seed(seed)
    for own in adapter_modules(encoder).values():
        for name, parameter in sorted(own.items()):
            fresh = torch.zeros(parameter.shape)
            if ".lora_A." in name:
                nn.init.kaiming_uniform_(fresh, a=math.sqrt(5), generator=generator)
            parameter.copy_(fresh)


def _check_plain(encoder: SpeechEncoder) -> None:
    if adapter_parameters(encoder):
        raise ValueError("this encoder already carries adapters: load it afresh before attaching others")


def _adapted_layers(encoder: SpeechEncoder, top_layers: int | None) -> range:
    top = encoder.num_layers if top_layers is None else top_layers
    if top > encoder.num_layers:
        raise ValueError(f"top_layers is {top}, but this encoder has {encoder.num_layers} layers")
    return range(encoder.num_layers - top, encoder.num_layers)


def _check_targets(encoder: SpeechEncoder, targets: tuple[str, ...]) -> None:
    modules = encoder.layers[0].named_modules()
    known = sorted({name.rpartition(".")[2] for name, module in modules if isinstance(module, nn.Linear)})
    unknown = sorted(set(targets) - set(known))
    if unknown:
        raise ValueError(f"no linear layer {unknown[0]!r} in {encoder.family}'s layers; known: {', '.join(known)}")


def _pattern(layers: range, targets: tuple[str, ...]) -> str:
    """The regular expression of full module names that peft matches; positional `layers` outside are not linears."""
    numbers = "|".join(str(layer) for layer in layers)
    return rf"(.*\.)?layers\.({numbers})\.(.*\.)?({'|'.join(re.escape(target) for target in targets)})"
