"""The record of a family of encoders: everything that is known of it."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from importlib import import_module
from typing import Any

from ser_models.encoders.encoder import SpeechEncoder

EncoderClass = Callable[..., SpeechEncoder]
"""(network of transformers, normalise=...) -> the encoder around it."""


@dataclass(frozen=True, kw_only=True)
class Tower:
    """An encoder inside checkpoints of more than itself, of which nothing else is read."""

    network: str
    """Module and name of the class of transformers, which is imported when it is needed."""
    weights: str
    """Regular expression of what comes before its weights' names."""
    config: str | None = None
    """Name of its configuration within the checkpoint's; None = they are one."""

    def network_class(self) -> Any:
        """The class of transformers."""
        module, _, name = self.network.rpartition(".")
        return getattr(import_module(module), name)


@dataclass(frozen=True, kw_only=True)
class Family:
    """One family of encoders, under the `model_type` of its checkpoints."""

    encoder: EncoderClass
    """Class that prepares and pads clips and runs the network; its `targets` say where adapters go by default."""
    licence: str
    """Licence of the checkpoints that are used most; each says its own."""
    preparation: Mapping[str, float] = field(default_factory=dict)
    """Settings of the feature extractor that the class is written for: checkpoints with others are refused."""
    tower: Tower | None = None
    """Place of the encoder in its checkpoints; None = they are the encoder, or such a one with a head."""


def as_family(part: Any) -> Family:
    """The record of a class of encoders of somebody else's. ValueError for anything else."""
    if not (isinstance(part, type) and issubclass(part, SpeechEncoder)):
        raise ValueError(f"{part!r} is no subclass of ser_models.encoders.SpeechEncoder")
    return Family(encoder=part, licence="its package's word")
