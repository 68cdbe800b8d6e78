"""(IA)³: keys, values and feed-forward activations are scaled by learned vectors, through the peft library.

Liu et al. 2022 (arXiv 2205.05638).
"""

from __future__ import annotations

from dataclasses import dataclass

from ser_models.adapters.injection import PeftOptions, default_targets, inject, target_pattern
from ser_models.encoders import SpeechEncoder


@dataclass(frozen=True, kw_only=True)
class Ia3Options(PeftOptions):
    """Options of (IA)³: the layers whose vectors are learned."""

    top_layers: int | None = None
    """Only the top n transformer layers are adapted, so the frozen ones below can be cached; None = all."""


def attach_ia3(encoder: SpeechEncoder, options: Ia3Options, *, seed: int) -> SpeechEncoder:
    """Put vectors of ones on an encoder in place and freeze the rest. There is nothing to draw."""
    from peft import IA3Config

    _, keys, values, *_, last = default_targets(encoder, at_least=6)
    targets = (keys, values, last)
    config = IA3Config(
        target_modules=target_pattern(encoder, options.top_layers, targets),
        # Of the feed-forward linear the input is scaled, of keys and values the output.
        feedforward_modules=target_pattern(encoder, options.top_layers, targets[-1:]),
    )
    inject(encoder, "ia3", options, config)
    return encoder
