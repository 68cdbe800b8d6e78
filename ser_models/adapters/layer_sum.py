"""Learned weights of the hidden states: nothing changes in the encoder, the model's `LayerPool` holds the weights.

H = Σ_l softmax(a)_l h_l, Yang et al. 2021, SUPERB (arXiv 2105.01051), section 3.
"""

from __future__ import annotations

from dataclasses import dataclass

from ser_models.adapters.parameters import freeze_all_but_adapters
from ser_models.encoders import SpeechEncoder


@dataclass(frozen=True, kw_only=True)
class LayerSumOptions:
    """A sum of layers has nothing to choose: it starts uniform."""


def attach_layer_sum(encoder: SpeechEncoder, options: LayerSumOptions, *, seed: int) -> SpeechEncoder:
    """Freeze what is no adapter; every model built on the encoder weighs its layers (`ser_models.heads.LayerPool`)."""
    freeze_all_but_adapters(encoder)
    return encoder
