"""Putting peft's layers into an encoder: in place of the linears they adapt, and by name."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch
from torch import nn

from ser_models.adapters.parameters import adapted_layers, adapter_parameters, refuse_second, register
from ser_models.encoders import SpeechEncoder

if TYPE_CHECKING:
    from peft import PeftConfig


@dataclass(frozen=True, kw_only=True)
class PeftOptions:
    """Options of an adapter whose layers peft makes; an encoder carries one such adapter at most."""


def inject(encoder: SpeechEncoder, kind: str, options: PeftOptions, config: PeftConfig) -> None:
    """Replace the targeted linears by peft's, in place, and freeze the rest, without touching global random state."""
    from peft import inject_adapter_in_model

    refuse_second(encoder, *_made_by_peft(encoder))
    # peft freezes everything that is not its own, other adapters too.
    trained = [parameter for parameter in adapter_parameters(encoder).values() if parameter.requires_grad]
    with torch.random.fork_rng(devices=[]):
        inject_adapter_in_model(config, encoder.model)
    for parameter in trained:
        parameter.requires_grad_(True)
    register(encoder, kind, options)


def default_targets(encoder: SpeechEncoder, *, at_least: int = 1) -> tuple[str, ...]:
    """SpeechEncoder.targets. ValueError where they are fewer."""
    if len(encoder.targets) < at_least:
        raise ValueError(
            f"where adapters go into a {encoder.family} encoder is not known: say it in `targets` of its class "
            f"{type(encoder).__name__}, such as ('q_proj', 'k_proj', 'v_proj', 'out_proj', 'fc1', 'fc2')"
        )
    return encoder.targets


def target_pattern(encoder: SpeechEncoder, top_layers: int | None, targets: tuple[str, ...]) -> str:
    """The regular expression of the linears named `targets` in the top layers. Raises ValueError for unknown names."""
    refuse_second(encoder, *_made_by_peft(encoder))
    layers = adapted_layers(encoder, top_layers)
    modules = encoder.layers[0].named_modules()
    linears = sorted({name.rpartition(".")[2] for name, module in modules if isinstance(module, nn.Linear)})
    unknown = sorted(set(targets) - set(linears))
    if unknown:
        raise ValueError(f"no linear layer {unknown[0]!r} in {encoder.family}'s layers; known: {', '.join(linears)}")
    first = next(name for name, module in encoder.model.named_modules() if module is encoder.layers[0])
    folder, numbers = re.escape(first.rpartition(".")[0]), "|".join(str(layer) for layer in layers)
    return rf"(.*\.)?{folder}\.({numbers})\.(.*\.)?({'|'.join(re.escape(target) for target in targets)})"


def _made_by_peft(encoder: SpeechEncoder) -> list[str]:
    return [kind for kind, options in encoder.adapters.items() if isinstance(options, PeftOptions)]
