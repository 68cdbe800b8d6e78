"""Questions one may ask of any model that carries adapters, whatever their kind.

An adapter module names its own parameters: peft's layers do through `adapter_layer_names`, ours through
`adapter_params()`. Freezing, counting, saving and checking are then generic.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Protocol, runtime_checkable

from peft.tuners.tuners_utils import BaseTunerLayer
from torch import nn

from ser_models.encoders import SpeechEncoder


@runtime_checkable
class AdapterModule(Protocol):
    """A module that belongs to an adapter, wholly or in part."""

    def adapter_params(self) -> list[str]:
        """Names of the adapter's parameters, relative to this module."""
        ...


def adapter_modules(model: nn.Module) -> dict[str, dict[str, nn.Parameter]]:
    """Every adapter module by name, with its own parameters by their full names."""
    found = {}
    for prefix, module in model.named_modules():
        own = {f"{prefix}.{name}": module.get_parameter(name) for name in _own_params(module)}
        if own:
            found[prefix] = own
    return found


def adapter_parameters(model: nn.Module) -> dict[str, nn.Parameter]:
    """Every adapter parameter by its full name."""
    return {name: parameter for own in adapter_modules(model).values() for name, parameter in own.items()}


def freeze_all_but_adapters(model: nn.Module) -> None:
    """Stop the gradient of everything that is not an adapter; adapters stay as they are."""
    adapters = set(adapter_parameters(model))
    for name, parameter in model.named_parameters():
        if name not in adapters:
            parameter.requires_grad_(False)


def count_parameters(module: nn.Module) -> tuple[int, int]:
    """How many numbers are trained, and how many there are; shared weights count once."""
    sizes = [(parameter.numel(), parameter.requires_grad) for parameter in module.parameters()]
    return sum(size for size, trained in sizes if trained), sum(size for size, _ in sizes)


def dead_adapters(model: nn.Module) -> list[str]:
    """Names of adapter modules that learnt nothing from the last backward pass; frozen ones are not asked.

    Judged per module, because single parameters may rightly have no gradient: LoRA's A has none while B is still zero.
    A network can silently go around a module (transformers#48773), so run this after the first step and fail on any.
    """
    return [
        name
        for name, own in adapter_modules(model).items()
        if any(p.requires_grad for p in own.values()) and not any(_has_gradient(p) for p in own.values())
    ]


def lowest_trainable_layer(encoder: SpeechEncoder) -> int:
    """The hidden state up to which nothing is trained: cache it, and run `upper` from there.

    num_layers when everything is frozen; -1 when the stem itself is trained, so that not even hidden state 0 may be
    cached.
    """
    above = {id(p) for part in (encoder.layers, encoder.final_norm) if part is not None for p in part.parameters()}
    if any(p.requires_grad and id(p) not in above for p in encoder.parameters()):
        return -1
    for index, layer in enumerate(encoder.layers):
        if any(p.requires_grad for p in layer.parameters()):
            return index
    # The cached last hidden state has already passed the final norm.
    norm_trained = encoder.final_norm is not None and any(p.requires_grad for p in encoder.final_norm.parameters())
    return encoder.num_layers - 1 if norm_trained else encoder.num_layers


def _own_params(module: nn.Module) -> Iterator[str]:
    if isinstance(module, AdapterModule):
        yield from module.adapter_params()
    elif isinstance(module, BaseTunerLayer):
        for name, _ in module.named_parameters():
            if name.partition(".")[0] in module.adapter_layer_names:
                yield name


def _has_gradient(parameter: nn.Parameter) -> bool:
    return parameter.grad is not None and bool(parameter.grad.count_nonzero())
