"""The WAP-Transformer: a few transformer layers on the frames of a frozen encoder, their outputs averaged by weight.

Song et al. 2025, arXiv 2509.23795 (weighted average pooling of three transformer layers).
"""

# B batch · T frames · D features · L hidden states of the adapter, one a layer · N frames of a sample
from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor, nn
from torch.nn.functional import gelu, scaled_dot_product_attention

from ser_models.adapters.parameters import put_on, register
from ser_models.encoders import SpeechEncoder
from ser_models.encoders.encoder import attention_bias
from ser_models.heads import SCALE_FLOOR
from ser_models.pooling import weighted_layer_sum

KIND = "wap"


@dataclass(frozen=True, kw_only=True)
class WapOptions:
    """Place and size of the adapter, and what it gives out."""

    layer: int | None = None
    """The hidden state that the adapter stands on; None = the last, as in the paper."""
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
        states = self._states(standard_BTD, mask_BT)
        return states[-1] if self.weight_L is None else weighted_layer_sum(torch.stack(states[1:]), self.weight_L)

    def adapter_params(self) -> list[str]:
        """All of it."""
        return [name for name, _ in self.named_parameters()]

    def frames(self, hidden_BTD: Tensor, mask_BT: Tensor) -> Tensor:
        """Z of the encoder's frames."""
        return self.transform(self.standardise(hidden_BTD, mask_BT), mask_BT)

    def forward(self, hidden_BTD: Tensor, mask_BT: Tensor) -> Tensor:
        """The hidden state with what the layers add to it, at its own scale: `h + scale · (Z - X_0)`.

        The sum is over what layers add, not over their outputs, so that an untrained adapter changes no bit.
        """
        standard_BTD = self.standardise(hidden_BTD, mask_BT)
        states_LBTD = torch.stack(self._states(standard_BTD, mask_BT)[1:]) - standard_BTD
        added_BTD = states_LBTD[-1] if self.weight_L is None else weighted_layer_sum(states_LBTD, self.weight_L)
        return hidden_BTD + (self.scale_D * added_BTD).to(hidden_BTD.dtype)

    def _states(self, standard_BTD: Tensor, mask_BT: Tensor) -> list[Tensor]:
        bias = attention_bias(mask_BT, standard_BTD.dtype)
        states = [standard_BTD]
        for layer in self.layers:
            states.append(layer(states[-1], bias))
        return states


def attach_wap(encoder: SpeechEncoder, options: WapOptions, *, seed: int) -> SpeechEncoder:
    """Put a WAP-Transformer on a hidden state of an encoder in place, and freeze the rest.

    The layers above it run on what it gives. Differs from the paper, where a classifier is all that is above it.
    """
    state = encoder.num_layers if options.layer is None else options.layer
    if not 0 <= state <= encoder.num_layers:
        raise ValueError(f"layer must be a hidden state 0..{encoder.num_layers} of this encoder, got {state}")
    put_on(encoder, state, KIND, WapTransformer(encoder.width, options, torch.Generator().manual_seed(seed)))
    register(encoder, KIND, options)
    return encoder


def wap_of(encoder: SpeechEncoder) -> tuple[int, WapTransformer]:
    """The hidden state that an encoder's WAP-Transformer stands on, and the adapter. ValueError where it has none."""
    for state, modules in enumerate(encoder.on_states):
        for module in modules.modules():
            if isinstance(module, WapTransformer):
                return state, module
    carried = "+".join(encoder.adapters) or "none"
    raise ValueError(f"expected an encoder with the adapter {KIND!r}, got one with {carried}")


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
