"""Weight gating: every feature of a layer's output is scaled by a learned gate.

Lashkarashvili et al. 2024 (arXiv 2402.11747).
"""

# B batch · T frames · D features
from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor, nn

from ser_models.adapters.parameters import adapted_layers, put_after, register
from ser_models.encoders import SpeechEncoder

STARTS = ("identity", "paper")


@dataclass(frozen=True, kw_only=True)
class GateOptions:
    """Options of gates: start and layers."""

    start: str = "identity"
    """identity: `h · 2 sigmoid(g)` with g = 0; paper: `h · sigmoid(g)` with g = 1, which scales layers by 0.731."""
    top_layers: int | None = None
    """Only the top n transformer layers are gated, so the frozen ones below can be cached; None = all."""

    def __post_init__(self) -> None:
        if self.start not in STARTS:
            raise ValueError(f"start must be one of {', '.join(STARTS)}, got {self.start!r}")


class Gate(nn.Module):
    """h · gain · sigmoid(g), one g for every feature."""

    def __init__(self, width: int, start: str) -> None:
        super().__init__()
        self.gain = 2.0 if start == "identity" else 1.0
        self.logit = nn.Parameter(torch.full((width,), 0.0 if start == "identity" else 1.0))

    def adapter_params(self) -> list[str]:
        """All of it."""
        return ["logit"]

    def forward(self, hidden_BTD: Tensor) -> Tensor:
        return hidden_BTD * (self.gain * torch.sigmoid(self.logit))


def attach_gate(encoder: SpeechEncoder, options: GateOptions, *, seed: int) -> SpeechEncoder:
    """Put a gate after each adapted layer of an encoder in place, and freeze the rest. There is nothing to draw.

    Differs from the paper: gates start as the identity, so that a head fitted on the frozen encoder fits at first.
    """
    for index in adapted_layers(encoder, options.top_layers):
        put_after(encoder, index, "gate", Gate(encoder.width, options.start))
    register(encoder, "gate", options)
    return encoder
