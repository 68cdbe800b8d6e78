"""From pooled layer statistics to classes and dimensions: the part of a model that a feature cache can train."""

from __future__ import annotations

import math
from collections.abc import Callable

import torch
from torch import Tensor, nn

from ser_models.defaults import DROPOUT, STD_GAIN
from ser_models.moments import PooledMoments

# N rows of a feature cache · B batch · L hidden states (encoder layers + 1) · D features · U embedding
# O outputs: C class logits, then K rated dimensions (valence, arousal, dominance)

SCALE_FLOOR = 1e-3
"""A dimension's scale is never below this share of its layer's median scale: dead dimensions must not be blown up."""
FARTHEST = 10.0
"""Standard deviations beyond which a statistic says no more: a dimension that is dead on most clips and flares on one
must not decide about that one."""
IN_CACHE = 160_000
"""Numbers that a core computes with at a time in `weigh`: 0.6 MB in fp32."""


ACTIVATIONS: dict[str, Callable[[Tensor], Tensor]] = {"tanh": torch.tanh, "none": lambda hidden: hidden}
"""Functions of a hidden layer by name."""


class LayerPool(nn.Module):
    """Standardise each layer's pooled statistics, then sum the layers with softmax weights.

    `u = [Σ_l w_l (mean_l - μ_l) / σ_l ; gain · Σ_l w_l (std_l - μ'_l) / σ'_l]`, w = softmax(layer_weight), uniform at
    start. Standardising comes first because the scale of hidden states grows several-fold from the first layer to the
    last and would otherwise decide the weights. Layer weights: Yang et al. 2021, SUPERB, section 3, who sum the states
    as they are, as `standardised=False` does.
    """

    centre_mean: Tensor
    scale_mean: Tensor
    centre_std: Tensor
    scale_std: Tensor

    def __init__(self, num_states: int, width: int, *, std_gain: float = STD_GAIN, standardised: bool = True) -> None:
        super().__init__()
        if std_gain < 0:
            raise ValueError(f"std_gain must be at least 0, got {std_gain}")
        self.std_gain, self.standardised = std_gain, standardised
        self.layer_weight = nn.Parameter(torch.zeros(num_states))
        for statistic in ("mean", "std"):
            self.register_buffer(f"centre_{statistic}", torch.zeros(num_states, width))
            self.register_buffer(f"scale_{statistic}", torch.ones(num_states, width))

    @property
    def out_width(self) -> int:
        """Width U of the embedding."""
        return self.centre_mean.shape[1] * (2 if self.std_gain else 1)

    @property
    def farthest(self) -> float:
        """The bound of what `standardise` returns; infinite where statistics stay as they are."""
        return FARTHEST if self.standardised else math.inf

    @torch.no_grad()
    def fit(self, mean_NLD: Tensor, std_NLD: Tensor, text_NE: Tensor | None = None) -> None:
        """Set the standardisation from (unlabelled) training features, (N, L, D) each; text is for a subclass."""
        self._check(mean_NLD, std_NLD)
        self.fit_moments(PooledMoments.of(mean_NLD, std_NLD, text_NE))

    @torch.no_grad()
    def fit_moments(self, moments: PooledMoments) -> None:
        """Set the standardisation from the moments of (unlabelled) training features, whether it is used or not."""
        if moments.mean.count < 2:
            raise ValueError(f"standardisation needs at least 2 clips, got {moments.mean.count}")
        for name, part in (("mean", moments.mean), ("std", moments.std)):
            scale_LD = part.scale()
            floor_L1 = SCALE_FLOOR * scale_LD.median(1, keepdim=True).values
            getattr(self, f"centre_{name}").copy_(part.mean)
            getattr(self, f"scale_{name}").copy_(scale_LD.maximum(floor_L1).clamp_min(1e-8))

    @torch.no_grad()
    def use_only(self, state: int) -> None:
        """Let one hidden state count and no other; freeze `layer_weight` to keep it so."""
        self.layer_weight.fill_(-torch.inf)
        self.layer_weight[state] = 0.0

    @torch.no_grad()
    def lean_to(self, logit_L: Tensor) -> None:
        """Set the layer weights, before the softmax."""
        self.layer_weight.copy_(logit_L)

    def standardise(self, mean_BLD: Tensor, std_BLD: Tensor) -> Tensor:
        """Standardised statistics of every layer side by side, (B, L, U)."""
        self._check(mean_BLD, std_BLD)
        centre_LD, scale_LD = self._standards("mean")
        mean = ((mean_BLD.float() - centre_LD) / scale_LD).clamp(-self.farthest, self.farthest)
        if not self.std_gain:
            return mean
        centre_LD, scale_LD = self._standards("std")
        std = ((std_BLD.float() - centre_LD) / scale_LD).clamp(-self.farthest, self.farthest)
        return torch.cat([mean, self.std_gain * std], -1)

    def _standards(self, name: str) -> tuple[Tensor, Tensor]:
        """Centres and scales of the means or the deviations, (L, D) each; 0 and 1 where these stay as they are."""
        centre_LD, scale_LD = getattr(self, f"centre_{name}"), getattr(self, f"scale_{name}")
        return (centre_LD, scale_LD) if self.standardised else (torch.zeros_like(centre_LD), torch.ones_like(scale_LD))

    def combine(self, standard_BLU: Tensor) -> Tensor:
        """Weighted sum over layers, (B, L, U) -> (B, U)."""
        return torch.einsum("l,blu->bu", torch.softmax(self.layer_weight, 0), standard_BLU)

    @torch.no_grad()
    def weigh(self, mean_BLD: Tensor, std_BLD: Tensor) -> Tensor:
        """`combine` of `standardise` within rounding, a few clips at a time: (B, L, D) twice, fp16 too -> (B, U).

        For the millions: what is computed with stays in the cache of the core, in a quarter of the time.
        """
        self._check(mean_BLD, std_BLD)
        weight_L, columns = torch.softmax(self.layer_weight, 0), list[Tensor]()
        states = torch.nonzero(weight_L).flatten()  # of most heads all
        clips = max(1, IN_CACHE // (len(states) * mean_BLD.shape[2]))
        value_BLD = mean_BLD.new_empty(clips, len(states), mean_BLD.shape[2], dtype=torch.float32)
        for name, part_BLD in (("mean", mean_BLD), ("std", std_BLD))[: 2 if self.std_gain else 1]:
            centre_LD, scale_LD = self._standards(name)
            factor_LD = 1 / scale_LD[states]
            shift_LD = -centre_LD[states] * factor_LD
            sum_BD = factor_LD.new_empty(part_BLD.shape[0], part_BLD.shape[2])
            for own_BLD, own_BD in zip(torch.split(part_BLD, clips), torch.split(sum_BD, clips), strict=True):
                rows_BLD = own_BLD if len(states) == len(weight_L) else own_BLD[:, states]
                standard_BLD = value_BLD[: len(rows_BLD)].copy_(rows_BLD)
                torch.addcmul(shift_LD, standard_BLD, factor_LD, out=standard_BLD)
                standard_BLD.clamp_(-self.farthest, self.farthest)
                torch.matmul(weight_L[states], standard_BLD, out=own_BD)
            columns.append(sum_BD if name == "mean" else sum_BD.mul_(self.std_gain))
        return torch.cat(columns, -1)

    def join(self, audio_BU: Tensor, text_BE: Tensor | None) -> Tensor:
        """The embedding from the combined layers and what else is known of a clip: here, nothing."""
        return audio_BU

    def forward(self, mean_BLD: Tensor, std_BLD: Tensor, text_BE: Tensor | None = None) -> Tensor:
        return self.join(self.combine(self.standardise(mean_BLD, std_BLD)), text_BE)

    def _check(self, mean_BLD: Tensor, std_BLD: Tensor) -> None:
        expected = tuple(self.centre_mean.shape)
        for name, value in (("means", mean_BLD), ("standard deviations", std_BLD)):
            if tuple(value.shape[1:]) != expected:
                raise ValueError(
                    f"pooled {name} must be (clips, {expected[0]}, {expected[1]}), got {tuple(value.shape)}"
                )


class Head(nn.Module):
    """Dropout and a linear layer, (B, U) -> (B, O), optionally with one hidden layer: tanh, or a projection.

    The hidden tanh layer: de Oliveira et al. 2023, arXiv 2305.19184. The projection (`activation="none"`):
    Lashkarashvili et al. 2024, arXiv 2402.11747, who project frames before their mean; the mean of projected frames is
    the projected mean.

    One layer for classes, for dimensions and for both: heads that share their input are rows of one matrix. It starts
    at zero: every class is equally likely before the first step, and no random draw is spent.
    """

    def __init__(
        self,
        in_width: int,
        num_outputs: int,
        *,
        hidden: int = 0,
        activation: str = "tanh",
        dropout: float = DROPOUT,
        generator: torch.Generator | None = None,
    ) -> None:
        super().__init__()
        if hidden < 0:
            raise ValueError(f"hidden must be at least 0, got {hidden}")
        if activation not in ACTIVATIONS:
            raise ValueError(f"no activation {activation!r}; known: {', '.join(ACTIVATIONS)}")
        if not 0 <= dropout < 1:
            raise ValueError(f"dropout must lie in [0, 1), got {dropout}")
        if num_outputs < 1:
            raise ValueError(f"a head needs at least 1 class or dimension, got {num_outputs}")
        self.activation, self.dropout = activation, nn.Dropout(dropout)
        self.hidden = _empty_linear(in_width, hidden) if hidden else None
        self.output = _empty_linear(hidden or in_width, num_outputs)
        nn.init.zeros_(self.output.weight)
        nn.init.zeros_(self.output.bias)
        if self.hidden is not None:
            if generator is None:
                raise ValueError("a hidden layer starts from random weights: pass a torch.Generator")
            nn.init.kaiming_uniform_(self.hidden.weight, nonlinearity="tanh", generator=generator)
            nn.init.zeros_(self.hidden.bias)

    def forward(self, embedding_BU: Tensor) -> Tensor:
        inner = self.dropout(embedding_BU)
        if self.hidden is not None:
            inner = self.dropout(ACTIVATIONS[self.activation](self.hidden(inner)))
        output: Tensor = self.output(inner)
        return output

    def dropped(self, embedding_BU: Tensor, generator: torch.Generator) -> Tensor:
        """Outputs (B, O) of the network that one draw of dropout leaves, the same for all clips.

        So a pass is a function that was sampled, and what it says of a clip does not depend on the others. Gal and
        Ghahramani 2016, arXiv 1506.02142; one mask for all, Kirsch et al. 2019, BatchBALD, arXiv 1906.08158.
        """
        inner = embedding_BU * self._mask(embedding_BU.shape[1], generator)
        if self.hidden is not None:
            inner = ACTIVATIONS[self.activation](self.hidden(inner))
            inner = inner * self._mask(inner.shape[1], generator)
        output: Tensor = self.output(inner)
        return output

    @torch.no_grad()
    def draw(self, generator: torch.Generator) -> None:
        """Set every layer to random weights within `1 / sqrt(inputs)`, in place, as torch's own linear layers start."""
        for layer in (self.hidden, self.output):
            if layer is not None:
                bound = 1 / math.sqrt(layer.in_features)
                for parameter in layer.parameters():
                    nn.init.uniform_(parameter, -bound, bound, generator=generator)

    def _mask(self, width: int, generator: torch.Generator) -> Tensor:
        stays_U = torch.rand(width, generator=generator) >= self.dropout.p
        return stays_U.float() / (1 - self.dropout.p)


@torch.no_grad()
def stack_heads(*heads: Head) -> Head:
    """One linear head with the outputs of several side by side: classes and dimensions fitted one after the other."""
    if any(head.hidden is not None for head in heads):
        raise ValueError("only linear heads can be stacked, got one with a hidden layer")
    widths = [head.output.in_features for head in heads]
    if len(set(widths)) != 1:
        raise ValueError(f"heads to stack must see embeddings of one width, got {widths}")
    stacked = Head(widths[0], sum(head.output.out_features for head in heads), dropout=heads[0].dropout.p)
    stacked.output.weight = nn.Parameter(torch.cat([head.output.weight for head in heads]))
    stacked.output.bias = nn.Parameter(torch.cat([head.output.bias for head in heads]))
    return stacked.eval()


def _empty_linear(in_width: int, out_width: int) -> nn.Linear:
    """A linear layer whose weights the caller sets; nn.Linear's own start would draw from the global generator."""
    return nn.Linear(in_width, out_width, device="meta").to_empty(device="cpu")
