"""Adapters on disk in the peft layout: adapter_config.json and adapter_model.safetensors, nothing pickled."""

from __future__ import annotations

from pathlib import Path

import torch
from peft import LoraConfig, PeftConfig
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from ser_models.adapters.lora import inject
from ser_models.adapters.parameters import adapter_parameters
from ser_models.encoders import SpeechEncoder

WEIGHTS = "adapter_model.safetensors"
CONFIG = "adapter_config.json"


def save_adapter(encoder: SpeechEncoder, folder: str | Path) -> None:
    """Write an encoder's adapter so that `load_adapter`, or `PeftModel.from_pretrained`, reads it back."""
    parameters = adapter_parameters(encoder)
    if not parameters:
        raise ValueError("this encoder carries no adapter: there is nothing to save")
    folder = Path(folder)
    folder.mkdir(parents=True, exist_ok=True)
    weights = {_stored_name(name): parameter.detach().cpu().contiguous() for name, parameter in parameters.items()}
    save_file(weights, folder / WEIGHTS, metadata={"format": "pt"})
    encoder.model.peft_config["default"].save_pretrained(folder)


def load_adapter(encoder: SpeechEncoder, folder: str | Path) -> SpeechEncoder:
    """Put a saved adapter on its encoder in place, trainable and everything else frozen.

    An encoder that already carries an adapter of the same shape takes over the saved weights.
    """
    folder = Path(folder)
    for name in (CONFIG, WEIGHTS):
        if not (folder / name).is_file():
            raise FileNotFoundError(f"{folder} holds no {name}: it is not a saved adapter")
    if not adapter_parameters(encoder):
        inject(encoder, _read_config(folder))
    saved, parameters = load_file(folder / WEIGHTS), adapter_parameters(encoder)
    _check_fit(folder, saved, parameters)
    with torch.no_grad():
        for name, parameter in parameters.items():
            parameter.copy_(saved[_stored_name(name)])
    return encoder


def _read_config(folder: Path) -> LoraConfig:
    config = PeftConfig.from_pretrained(str(folder))
    if not isinstance(config, LoraConfig):
        raise ValueError(f"{folder} holds a {config.peft_type} adapter; only LORA can be loaded")
    # Saved adapters say inference_mode, which would freeze them.
    config.inference_mode = False
    return config


def _check_fit(folder: Path, saved: dict[str, Tensor], parameters: dict[str, nn.Parameter]) -> None:
    expected = {_stored_name(name): tuple(parameter.shape) for name, parameter in parameters.items()}
    actual = {name: tuple(weight.shape) for name, weight in saved.items()}
    wrong = sorted(name for name in expected.keys() | actual.keys() if expected.get(name) != actual.get(name))
    if wrong:
        raise ValueError(
            f"adapter {folder} was made for another encoder or other options: {len(wrong)} weights differ, first "
            f"{wrong[0]} is {actual.get(wrong[0], 'missing')}, expected {expected.get(wrong[0], 'none')}"
        )


def _stored_name(name: str) -> str:
    """peft's name of a weight: `model.x.lora_A.default.weight` -> `base_model.model.x.lora_A.weight`."""
    return "base_model.model." + name.removeprefix("model.").replace(".default", "")
