"""Adapters on disk, nothing pickled: what peft made in peft's layout, the rest beside it.

adapter_config.json adapter_model.safetensors    kinds whose layers peft makes, as peft reads and writes them
adapters.json adapters.safetensors               kinds and options of the others and of packages, and their weights
"""

from __future__ import annotations

import json
from collections.abc import Iterable
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from safetensors.torch import load_file, save_file
from torch import Tensor

from ser_models.adapters import ADAPTERS
from ser_models.adapters.composition import attach_one
from ser_models.adapters.injection import inject
from ser_models.adapters.parameters import adapter_buffers, adapter_modules, adapter_parameters
from ser_models.encoders import SpeechEncoder

if TYPE_CHECKING:
    from peft import PeftConfig

WEIGHTS, CONFIG = "adapter_model.safetensors", "adapter_config.json"
OWN_WEIGHTS, OWN_CONFIG = "adapters.safetensors", "adapters.json"


def save_adapter(encoder: SpeechEncoder, folder: str | Path) -> None:
    """Write an encoder's adapters so that `load_adapter` reads them back; peft's also `PeftModel.from_pretrained`."""
    if not adapter_parameters(encoder):
        raise ValueError("this encoder carries no adapter: there is nothing to save")
    folder = Path(folder)
    folder.mkdir(parents=True, exist_ok=True)
    peft, own = _by_maker(encoder)
    if peft:
        _write(folder / WEIGHTS, {_peft_name(name): parameter for name, parameter in peft.items()})
        encoder.model.peft_config["default"].save_pretrained(folder)
    kinds = {kind: asdict(options) for kind, options in encoder.adapters.items() if not _told_by_peft(kind)}
    if kinds:
        _write(folder / OWN_WEIGHTS, {_own_name(name): parameter for name, parameter in own.items()})
        (folder / OWN_CONFIG).write_text(json.dumps(kinds, indent=2) + "\n", encoding="utf-8")


def load_adapter(encoder: SpeechEncoder, folder: str | Path) -> SpeechEncoder:
    """Put saved adapters on their encoder in place, trainable and everything else frozen.

    An encoder that already carries adapters of the same shapes takes over the saved weights.
    """
    folder = Path(folder)
    saved = _read_weights(folder)
    if not encoder.adapters:
        _attach_saved(encoder, folder)
    peft, own = _by_maker(encoder)
    parameters = {_peft_name(name): parameter for name, parameter in peft.items()}
    parameters |= {_own_name(name): parameter for name, parameter in own.items()}
    _check_fit(folder, saved, parameters)
    with torch.no_grad():
        for name, parameter in parameters.items():
            parameter.copy_(saved[name])
    return encoder


def _by_maker(encoder: SpeechEncoder) -> tuple[dict[str, Tensor], dict[str, Tensor]]:
    """Adapter parameters by full name: peft's, and all others with what they carry beside them."""
    peft: dict[str, Tensor] = {}
    own: dict[str, Tensor] = adapter_buffers(encoder)
    modules = dict(encoder.named_modules())
    for prefix, parameters in adapter_modules(encoder).items():
        (peft if hasattr(modules[prefix], "base_layer") else own).update(parameters)
    return peft, own


def _told_by_peft(kind: str) -> bool:
    """Whether a configuration of peft says which kind it is: of a package's, a kind of seral's could say it too."""
    return kind in ADAPTERS.own and ADAPTERS[kind].peft is not None


def _read_weights(folder: Path) -> dict[str, Tensor]:
    pairs = [(CONFIG, WEIGHTS), (OWN_CONFIG, OWN_WEIGHTS)]
    present = [pair for pair in pairs if any((folder / name).is_file() for name in pair)] or pairs[:1]
    for name in (name for pair in present for name in pair):
        if not (folder / name).is_file():
            raise FileNotFoundError(f"{folder} holds no {name}: it is not a saved adapter")
    return {name: weight for _, weights in present for name, weight in load_file(folder / weights).items()}


def read_kinds(folder: str | Path) -> dict[str, Any]:
    """Kinds and options of the saved adapters, without those of seral's that peft made."""
    path = Path(folder) / OWN_CONFIG
    own: dict[str, Any] = json.loads(path.read_text(encoding="utf-8")) if path.is_file() else {}
    if unknown := [kind for kind in own if kind not in ADAPTERS]:
        raise ValueError(f"{folder} holds an adapter {unknown[0]!r}; known: {', '.join(ADAPTERS)}")
    return {kind: ADAPTERS[kind].options(**options) for kind, options in own.items()}


def take_over(encoder: SpeechEncoder, folder: str | Path) -> SpeechEncoder:
    """Put saved weights into adapters that an encoder carries, among others or alone, in place."""
    folder = Path(folder)
    saved = _read_weights(folder)
    _, own = _by_maker(encoder)
    present = {_own_name(name): parameter for name, parameter in own.items() if _own_name(name) in saved}
    _check_fit(folder, saved, present)
    with torch.no_grad():
        for name, weight in saved.items():
            present[name].copy_(weight)
    return encoder


def _attach_saved(encoder: SpeechEncoder, folder: Path) -> None:
    options = read_kinds(folder)
    config = _read_config(folder) if (folder / CONFIG).is_file() else None
    of_peft = None if config is None else _kind_of_peft(folder, config, options)
    for kind in ADAPTERS.own_first([*options, *([of_peft] if of_peft else [])]):
        if kind == of_peft:
            inject(encoder, kind, options.get(kind) or ADAPTERS[kind].options(), config)
        else:
            attach_one(encoder, kind, options[kind], seed=0)


def _kind_of_peft(folder: Path, config: PeftConfig, named: Iterable[str]) -> str:
    """The kind whose layers peft made: one that is named beside them, or the first that the configuration fits."""
    readable = {kind: adapter.peft for kind, adapter in ADAPTERS.items() if adapter.peft is not None}
    kinds = [kind for kind in named if ADAPTERS[kind].peft]
    kinds += [kind for kind, is_kind in readable.items() if is_kind(config)]
    if not kinds:
        raise ValueError(f"{folder} holds a {config.peft_type} adapter; only {', '.join(readable)} can be loaded")
    return kinds[0]


def _read_config(folder: Path) -> PeftConfig:
    from peft import PeftConfig

    config = PeftConfig.from_pretrained(str(folder))
    # Saved adapters say inference_mode, which would freeze them.
    config.inference_mode = False
    return config


def _check_fit(folder: Path, saved: dict[str, Tensor], parameters: dict[str, Tensor]) -> None:
    expected = {name: tuple(parameter.shape) for name, parameter in parameters.items()}
    actual = {name: tuple(weight.shape) for name, weight in saved.items()}
    wrong = sorted(name for name in expected.keys() | actual.keys() if expected.get(name) != actual.get(name))
    if wrong:
        raise ValueError(
            f"adapter {folder} was made for another encoder or other options: {len(wrong)} weights differ, first "
            f"{wrong[0]} is {actual.get(wrong[0], 'missing')}, expected {expected.get(wrong[0], 'none')}"
        )


def _write(path: Path, weights: dict[str, Tensor]) -> None:
    plain = {name: weight.detach().cpu().contiguous() for name, weight in weights.items()}
    save_file(plain, path, metadata={"format": "pt"})


def _peft_name(name: str) -> str:
    """peft's name of a weight: `model.x.lora_A.default.weight` -> `base_model.model.x.lora_A.weight`."""
    return "base_model.model." + name.removeprefix("model.").replace(".default", "")


def _own_name(name: str) -> str:
    """The name of a weight of ours or of the encoder, whether or not peft has wrapped its module."""
    return name.replace(".base_layer.", ".")
