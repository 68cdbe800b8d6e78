"""Questions one may ask of any model that carries adapters, whatever their kind.

An adapter module names its own parameters: peft's layers do through `adapter_layer_names`, ours through
`adapter_params()`, and weights of the encoder itself that are trained are marked. Freezing, counting, saving and
checking are then generic. A tag names the parameters of one part of a method, for freezing some and training others:
`lora_A`, `lora_B`, `bottleneck`, `gate`, `bitfit`, ...
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import TYPE_CHECKING, Any, Protocol, TypeGuard, runtime_checkable

from torch import Tensor, nn

from ser_models.encoders import SpeechEncoder

if TYPE_CHECKING:
    from peft.tuners.tuners_utils import BaseTunerLayer

MARKS = "trained_as"
"""Attribute of a module: which of its own weights are trained, and their tag."""


@runtime_checkable
class AdapterModule(Protocol):
    """A module that belongs to an adapter, wholly or in part."""

    def adapter_params(self) -> list[str]:
        """Names of the adapter's parameters, relative to this module."""
        ...


def is_of_peft(module: nn.Module) -> TypeGuard[BaseTunerLayer]:
    """Whether peft made a layer; asked without importing peft, which takes seconds."""
    return hasattr(module, "adapter_layer_names")


def mark_as_adapter(module: nn.Module, names: Iterable[str], tag: str) -> None:
    """Let a module's own weights be trained as part of an adapter, frozen or not before."""
    marks: dict[str, str] = module.__dict__.setdefault(MARKS, {})
    for name in names:
        marks[name] = tag
        module.get_parameter(name).requires_grad_(True)


def refuse_second(encoder: SpeechEncoder, *kinds: str) -> None:
    """Raise ValueError if the encoder carries one of these kinds."""
    if present := [kind for kind in kinds if kind in encoder.adapters]:
        raise ValueError(f"this encoder already carries {present[0]}: load it afresh before attaching another")


def register(encoder: SpeechEncoder, kind: str, options: Any) -> None:
    """Note an adapter that was just attached, and freeze what belongs to none."""
    refuse_second(encoder, kind)
    encoder.adapters[kind] = options
    freeze_all_but_adapters(encoder)


def put_after(encoder: SpeechEncoder, index: int, name: str, module: nn.Module) -> None:
    """Put a module behind a layer, after those that are there."""
    refuse_second(encoder, name)
    encoder.after_layers[index].add_module(name, module.to(next(encoder.parameters()).device))


def put_on(encoder: SpeechEncoder, state: int, name: str, module: nn.Module) -> None:
    """Let a module change a hidden state before anything else is given it."""
    refuse_second(encoder, name)
    modules: Any = encoder.on_states[state]
    modules[name] = module.to(next(encoder.parameters()).device).train(encoder.training)


def adapted_layers(encoder: SpeechEncoder, top_layers: int | None) -> range:
    """Numbers of the top so many layers, or of all. Raises ValueError when there are not as many."""
    top = encoder.num_layers if top_layers is None else top_layers
    if not 1 <= top <= encoder.num_layers:
        raise ValueError(f"top_layers must be 1..{encoder.num_layers} for this encoder, got {top}")
    return range(encoder.num_layers - top, encoder.num_layers)


def adapter_modules(model: nn.Module) -> dict[str, dict[str, nn.Parameter]]:
    """Every adapter module by name, with its own parameters by their full names."""
    modules = {}
    for prefix, module in model.named_modules():
        own = {f"{prefix}.{name}": module.get_parameter(name) for name in _own_params(module)}
        if own:
            modules[prefix] = own
    return modules


def adapter_parameters(model: nn.Module) -> dict[str, nn.Parameter]:
    """Every adapter parameter by its full name."""
    return {name: parameter for own in adapter_modules(model).values() for name, parameter in own.items()}


def adapter_buffers(model: nn.Module) -> dict[str, Tensor]:
    """Buffers of adapters beside their parameters, such as the scale of their input, by full name."""
    modules, prefixes = dict(model.named_modules()), list(adapter_modules(model))
    return {f"{prefix}.{name}": buffer for prefix in prefixes for name, buffer in _own_buffers(modules[prefix])}


def adapter_tags(model: nn.Module) -> dict[str, dict[str, nn.Parameter]]:
    """Adapter parameters by tag, then by their full name."""
    modules = dict(model.named_modules())
    tagged: dict[str, dict[str, nn.Parameter]] = {}
    for prefix, own in adapter_modules(model).items():
        for name, parameter in own.items():
            tag = _tag(prefix, modules[prefix], name.removeprefix(f"{prefix}."))
            tagged.setdefault(tag, {})[name] = parameter
    return tagged


def set_trainable(model: nn.Module, tags: Iterable[str], trainable: bool) -> None:
    """Train or freeze the parameters of some tags, leaving the others as they are."""
    tagged = adapter_tags(model)
    for tag in tags:
        if tag not in tagged:
            raise ValueError(
                f"no adapter parameters are tagged {tag!r}; there are: {', '.join(sorted(tagged)) or 'none'}"
            )
        for parameter in tagged[tag].values():
            parameter.requires_grad_(trainable)


def freeze_all_but_adapters(model: nn.Module) -> None:
    """Stop the gradient of everything that is not an adapter; adapters stay as they are."""
    adapters = set(adapter_parameters(model))
    for name, parameter in model.named_parameters():
        if name not in adapters:
            parameter.requires_grad_(False)


def count_parameters(module: nn.Module) -> tuple[int, int]:
    """Count of the numbers that are trained, and of all; shared weights count once."""
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


def freeze_above(encoder: SpeechEncoder, state: int) -> int:
    """Stop the training of what comes after a hidden state, where nothing higher is heard; how many weights that were.

    Raises ValueError where nothing is left to train, and for AdaLoRA, which deals its ranks among all layers.
    """
    above = [*encoder.layers[state:], *encoder.after_layers[state:], *encoder.on_states[state + 1 :]]
    if encoder.final_norm is not None and state < encoder.num_layers:
        above.append(encoder.final_norm)
    unheard = [p for part in above for p in part.parameters() if p.requires_grad]
    if unheard and ("adalora" in encoder.adapters or not _trained(encoder) - {id(p) for p in unheard}):
        raise ValueError(
            f"hidden states are heard up to {state} of {encoder.num_layers}, and {'+'.join(encoder.adapters)} would "
            "train above it: let a higher state be heard (anchors: last or all), or adapt lower layers (top_layers)"
        )
    for parameter in unheard:
        parameter.requires_grad_(False)
    return sum(parameter.numel() for parameter in unheard)


def _trained(module: nn.Module) -> set[int]:
    return {id(parameter) for parameter in module.parameters() if parameter.requires_grad}


def lowest_trainable_layer(encoder: SpeechEncoder) -> int:
    """The hidden state up to which nothing is trained: cache it, and run `upper` from there.

    num_layers when everything is frozen; -1 when the stem itself is trained, so that not even hidden state 0 may be
    cached.
    """
    parts = (encoder.layers, encoder.after_layers, encoder.on_states, encoder.final_norm)
    above = {id(p) for part in parts if part is not None for p in part.parameters()}
    if any(p.requires_grad and id(p) not in above for p in encoder.parameters()):
        return -1
    # A state is cached as its frozen network gives it, before an adapter on it: training starts with the adapter.
    parts_of = zip(encoder.layers, encoder.after_layers, encoder.on_states[:-1], strict=True)
    for index, layer_parts in enumerate(parts_of):
        if any(p.requires_grad for part in layer_parts for p in part.parameters()):
            return index
    # The cached last hidden state has already passed the final norm.
    norm_trained = encoder.final_norm is not None and any(p.requires_grad for p in encoder.final_norm.parameters())
    return encoder.num_layers - 1 if norm_trained else encoder.num_layers


def _own_params(module: nn.Module) -> Iterator[str]:
    if isinstance(module, AdapterModule):
        yield from module.adapter_params()
    elif is_of_peft(module):
        for name, _ in module.named_parameters():
            if name.partition(".")[0] in module.adapter_layer_names:
                yield name
    yield from module.__dict__.get(MARKS, ())


def _own_buffers(module: nn.Module) -> Iterator[tuple[str, Tensor]]:
    """Buffers of a module that is an adapter as a whole; those of peft's layers and of the encoder's own stay out."""
    if isinstance(module, AdapterModule):
        yield from module.named_buffers()


def _tag(prefix: str, module: nn.Module, name: str) -> str:
    """The mark of a trained base weight, peft's name of the matrix, or the name of our module."""
    if name in module.__dict__.get(MARKS, {}):
        return str(module.__dict__[MARKS][name])
    return name.partition(".")[0] if is_of_peft(module) else prefix.rpartition(".")[2]


def _has_gradient(parameter: nn.Parameter) -> bool:
    return parameter.grad is not None and bool(parameter.grad.count_nonzero())
