"""Bottleneck adapter: h <- h + W_up ReLU(W_down h) after every adapted layer. Houlsby et al. 2019 (arXiv 1902.00751).

As used for speech emotion recognition by Lashkarashvili et al. 2024 (arXiv 2402.11747).
"""

# B batch · T frames · D features
from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from ser_models.adapters.parameters import adapted_layers, put_after, register
from ser_models.encoders import SpeechEncoder


@dataclass(frozen=True, kw_only=True)
class BottleneckOptions:
    """Options of bottlenecks: width and layers."""

    width: int = 64
    """Features between the two linears. 64 in Lashkarashvili et al. 2024."""
    top_layers: int | None = None
    """Only the top n transformer layers are adapted, so the frozen ones below can be cached; None = all."""

    def __post_init__(self) -> None:
        if self.width < 1:
            raise ValueError(f"width must be at least 1, got {self.width}")


class Bottleneck(nn.Module):
    """h + W_up ReLU(W_down h); W_up starts at zero, so at first nothing changes."""

    def __init__(self, width: int, bottleneck: int, generator: torch.Generator) -> None:
        super().__init__()
        self.down = nn.Linear(width, bottleneck, device="meta").to_empty(device="cpu")
        self.up = nn.Linear(bottleneck, width, device="meta").to_empty(device="cpu")
        nn.init.kaiming_uniform_(self.down.weight, a=math.sqrt(5), generator=generator)
        for start_at_zero in (self.down.bias, self.up.weight, self.up.bias):
            nn.init.zeros_(start_at_zero)

    def adapter_params(self) -> list[str]:
        """All of it."""
        return [name for name, _ in self.named_parameters()]

    def forward(self, hidden_BTD: Tensor) -> Tensor:
        update_BTD: Tensor = self.up(torch.relu(self.down(hidden_BTD)))
        return hidden_BTD + update_BTD


def attach_bottleneck(encoder: SpeechEncoder, options: BottleneckOptions, *, seed: int) -> SpeechEncoder:
    """Put a bottleneck after each adapted layer of an encoder in place, and freeze the rest."""
    generator = torch.Generator().manual_seed(seed)
    for index in adapted_layers(encoder, options.top_layers):
        put_after(encoder, index, "bottleneck", Bottleneck(encoder.width, options.width, generator))
    register(encoder, "bottleneck", options)
    return encoder
