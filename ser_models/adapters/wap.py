"""The WAP-Transformer: a few transformer layers on the frames of a frozen encoder, their outputs averaged by weight.

Song et al. 2025, arXiv 2509.23795 (weighted average pooling of three transformer layers).
"""

# B batch · T frames · D features · L layers of the adapter · N frames of a sample
from __future__ import annotations

import json
import os
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Literal

import torch
from safetensors.torch import load_file, save_file
from torch import Tensor, nn
from torch.nn.functional import gelu, scaled_dot_product_attention

from ser_models.encoders.encoder import attention_bias
from ser_models.heads import SCALE_FLOOR
from ser_models.pooling import weighted_layer_sum

DESCRIPTION, WEIGHTS = "wap.json", "wap.safetensors"


@dataclass(frozen=True, kw_only=True)
class WapOptions:
    """The size of the adapter, and what it gives out."""

    layers: int = 3
    """Transformer layers."""
    heads: int = 4
    """Attention heads of each; they share the encoder's width."""
    feedforward: int = 1024
    """Inner width of the feed-forward part."""
    dropout: float = 0.1
    """Dropout after attention and feed-forward, in training only."""
    output: Literal["weighted", "last"] = "weighted"
    """weighted: all layers' outputs under learned weights; last: the last layer's alone."""

    def __post_init__(self) -> None:
        for name in ("layers", "heads", "feedforward"):
            if getattr(self, name) < 1:
                raise ValueError(f"{name} must be at least 1, got {getattr(self, name)}")
        if not 0 <= self.dropout < 1:
            raise ValueError(f"dropout must lie in [0, 1), got {self.dropout}")
        if self.output not in ("weighted", "last"):
            raise ValueError(f"output must be weighted or last, got {self.output!r}")


class WapLayer(nn.Module):
    """One pre-norm transformer layer. What it adds to its input is zero at the start."""

    def __init__(self, width: int, options: WapOptions, generator: torch.Generator) -> None:
        super().__init__()
        self.heads = options.heads
        self.attention_norm, self.feedforward_norm = nn.LayerNorm(width), nn.LayerNorm(width)
        self.query_key_value = random_linear(width, 3 * width, generator)
        self.out = zero_linear(width, width)
        self.up = random_linear(width, options.feedforward, generator)
        self.down = zero_linear(options.feedforward, width)
        self.dropout = nn.Dropout(options.dropout)

    def forward(self, hidden_BTD: Tensor, bias: Tensor | None) -> Tensor:
        hidden_BTD = hidden_BTD + self.dropout(self._attend(self.attention_norm(hidden_BTD), bias))
        inner: Tensor = self.dropout(self.down(gelu(self.up(self.feedforward_norm(hidden_BTD)))))
        return hidden_BTD + inner

    def _attend(self, hidden_BTD: Tensor, bias: Tensor | None) -> Tensor:
        batch, frames, width = hidden_BTD.shape
        parts = self.query_key_value(hidden_BTD).reshape(batch, frames, 3, self.heads, width // self.heads)
        query, key, value = parts.permute(2, 0, 3, 1, 4)
        attended = scaled_dot_product_attention(query, key, value, attn_mask=bias)
        mixed: Tensor = self.out(attended.transpose(1, 2).reshape(batch, frames, width))
        return mixed


class WapTransformer(nn.Module):
    """`X_l = Layer_l(X_{l-1})`, `Z = Σ_l softmax(w)_l X_l`, (B, T, D), (B, T) -> (B, T, D); w starts uniform.

    X_0 is the encoder's hidden state, standardised per feature with statistics of unlabelled speech (`fit`), because
    a few features of a transformer's residual stream are a hundred times larger than the others. Every layer starts as
    the identity, so an untrained adapter hands on X_0. What padded frames hold has no influence.

    Differs from the paper: pre-norm layers that start as the identity, where it says nothing of either.
    """

    centre_D: Tensor
    scale_D: Tensor

    def __init__(self, width: int, options: WapOptions, generator: torch.Generator) -> None:
        super().__init__()
        if width % options.heads:
            raise ValueError(f"heads must divide the width {width}, got {options.heads}")
        self.options = options
        self.layers = nn.ModuleList(WapLayer(width, options, generator) for _ in range(options.layers))
        # Without an average there is no weight: DDP wants a gradient for every parameter.
        self.weight_L = nn.Parameter(torch.zeros(options.layers)) if options.output == "weighted" else None
        self.register_buffer("centre_D", torch.zeros(width))
        self.register_buffer("scale_D", torch.ones(width))

    @property
    def width(self) -> int:
        """Features D of a frame, in and out."""
        return len(self.centre_D)

    @torch.no_grad()
    def fit(self, mean_D: Tensor, std_D: Tensor) -> None:
        """Set the standardisation: mean and deviation of every feature over many frames."""
        if mean_D.shape != self.centre_D.shape or std_D.shape != self.scale_D.shape:
            raise ValueError(f"expected {self.width} means and deviations, got {len(mean_D)} and {len(std_D)}")
        self.centre_D.copy_(mean_D)
        self.scale_D.copy_(std_D.clamp_min(SCALE_FLOOR * float(std_D.median())).clamp_min(1e-8))

    def standardise(self, hidden_BTD: Tensor, mask_BT: Tensor) -> Tensor:
        """X_0 of the encoder's frames; padded frames become zero."""
        standard = (hidden_BTD.float() - self.centre_D) / self.scale_D
        return standard.masked_fill(~mask_BT[..., None], 0.0)

    def transform(self, standard_BTD: Tensor, mask_BT: Tensor) -> Tensor:
        """Z of standardised frames."""
        bias = attention_bias(mask_BT, standard_BTD.dtype)
        states = [standard_BTD]
        for layer in self.layers:
            states.append(layer(states[-1], bias))
        return states[-1] if self.weight_L is None else weighted_layer_sum(torch.stack(states[1:]), self.weight_L)

    def forward(self, hidden_BTD: Tensor, mask_BT: Tensor) -> Tensor:
        return self.transform(self.standardise(hidden_BTD, mask_BT), mask_BT)


def random_linear(in_width: int, out_width: int, generator: torch.Generator) -> nn.Linear:
    """A linear layer with Xavier's weights from a generator and no bias to begin with."""
    linear = zero_linear(in_width, out_width)
    nn.init.xavier_uniform_(linear.weight, generator=generator)
    return linear


def zero_linear(in_width: int, out_width: int) -> nn.Linear:
    """A linear layer that starts at zero and draws nothing from the global generator."""
    linear = nn.Linear(in_width, out_width, device="meta").to_empty(device="cpu")
    nn.init.zeros_(linear.weight)
    nn.init.zeros_(linear.bias)
    return linear


def save_wap(wap: WapTransformer, folder: str | Path) -> None:
    """Write weights as safetensors and sizes as JSON, the JSON last: where it exists, all exists."""
    target = Path(folder)
    target.mkdir(parents=True, exist_ok=True)
    save_file({name: value.detach().cpu().contiguous() for name, value in wap.state_dict().items()}, target / WEIGHTS)
    partial = target / f"{DESCRIPTION}.partial"
    partial.write_text(json.dumps({"width": wap.width, "options": asdict(wap.options)}, indent=2) + "\n")
    os.replace(partial, target / DESCRIPTION)


def load_wap(folder: str | Path) -> WapTransformer:
    """The adapter saved in a folder."""
    source = Path(folder)
    if not (source / DESCRIPTION).is_file():
        raise ValueError(f"no complete WAP-Transformer in {source}: {DESCRIPTION} is missing")
    facts = json.loads((source / DESCRIPTION).read_text())
    # Every weight is overwritten, so the seed of the start does not matter.
    wap = WapTransformer(facts["width"], WapOptions(**facts["options"]), torch.Generator().manual_seed(0))
    wap.load_state_dict(load_file(source / WEIGHTS))
    return wap
