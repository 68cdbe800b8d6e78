"""(IA)³: keys, values and feed-forward activations are scaled by learned vectors, through the peft library.

Liu et al. 2022 (arXiv 2205.05638).
"""

from __future__ import annotations

from dataclasses import dataclass

from peft import IA3Config

from ser_models.adapters.injection import inject, target_pattern
from ser_models.encoders import SpeechEncoder

SCALED_INPUT: dict[str, str] = {
    "wav2vec2": "output_dense",
    "hubert": "output_dense",
    "wavlm": "output_dense",
    "data2vec-audio": "output_dense",
    "whisper": "fc2",
    "moonshine": "fc2",
}
"""The second feed-forward linear, whose input is scaled; of keys and values the output is."""


@dataclass(frozen=True, kw_only=True)
class Ia3Options:
    """Where vectors are learned."""

    top_layers: int | None = None
    """Only the top n transformer layers are adapted, so the frozen ones below can be cached; None = all."""


def attach_ia3(encoder: SpeechEncoder, options: Ia3Options, *, seed: int) -> SpeechEncoder:
    """Put vectors of ones on an encoder in place and freeze the rest. There is nothing to draw."""
    feed_forward = SCALED_INPUT[encoder.family]
    config = IA3Config(
        target_modules=target_pattern(encoder, options.top_layers, ("k_proj", "v_proj", feed_forward)),
        feedforward_modules=target_pattern(encoder, options.top_layers, (feed_forward,)),
    )
    inject(encoder, "ia3", options, config)
    return encoder
