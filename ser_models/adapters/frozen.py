"""No adapter at all: the pretrained encoder as it is, only what sits on top of it learns."""

from __future__ import annotations

from dataclasses import dataclass

from ser_models.adapters.parameters import freeze_all_but_adapters
from ser_models.encoders import SpeechEncoder


@dataclass(frozen=True, kw_only=True)
class FrozenOptions:
    """A frozen encoder has nothing to choose."""


def attach_frozen(encoder: SpeechEncoder, options: FrozenOptions, *, seed: int) -> SpeechEncoder:
    """Freeze the whole encoder in place."""
    freeze_all_but_adapters(encoder)
    return encoder
