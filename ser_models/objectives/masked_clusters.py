"""Masked cluster prediction: the k-means id of every hidden frame, for encoders without an objective of their own here.

HuBERT, Hsu et al. 2021, arXiv 2106.07447, section II; WavLM, Chen et al. 2022, 2110.13900. The ids come from a frozen
copy of the encoder that hears the whole clip, as in HuBERT's second iteration.
Differs from the papers: every family learns it, Whisper, Moonshine and data2vec-audio too; features are standardised
per dimension before k-means, since single dimensions of deep layers can be many times larger than all others and would
make the clusters alone; no loss on visible frames and no added noise.
"""

from __future__ import annotations

import copy
from collections.abc import Callable
from itertools import islice

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn import functional

from ser_models.encoders import SpeechEncoder
from ser_models.objectives.objective import Objective, dropout_from
from ser_models.objectives.options import MaskedPredictionOptions

# B clips · S samples · T frames · M masked frames · N frames of a sample · D encoder width · K clusters · P projection

DEPTH = 0.75
"""Depth of the clustered hidden state by default, as a share of the layers."""
PROJECTION = 256
"""P, as in HuBERT base."""
SMALLEST_STD = 1e-6

KMeans = Callable[[NDArray[np.float32]], NDArray[np.float32]]
"""Rows (N, D) -> centroids (K, D)."""


def assign_clusters(hidden_BTD: Tensor, centroid_KD: Tensor) -> Tensor:
    """The number of the nearest centroid of every frame, (B, T, D), (K, D) -> (B, T); ties to the lower number."""
    # |x - c|² without |x|², which is the same for every c.
    half_K = centroid_KD.square().sum(-1) / 2
    return (hidden_BTD @ centroid_KD.T - half_K).argmax(-1)


class ClusterTargets(nn.Module):
    """A frozen encoder and the clusters of one of its hidden states; never in training mode."""

    def __init__(self, encoder: SpeechEncoder, *, layer: int, clusters: int) -> None:
        super().__init__()
        if not 0 <= layer <= encoder.num_layers:
            raise ValueError(f"layer must be a hidden state 0..{encoder.num_layers} of this encoder, got {layer}")
        self.teacher = copy.deepcopy(encoder).requires_grad_(False)
        self.layer = layer
        self.mean_D: Tensor
        self.std_D: Tensor
        self.centroid_KD: Tensor
        self.register_buffer("mean_D", torch.zeros(encoder.width))
        self.register_buffer("std_D", torch.ones(encoder.width))
        # Not a number until `fit`: clusters that were never made must not pass for some.
        self.register_buffer("centroid_KD", torch.full((clusters, encoder.width), torch.nan))
        self.eval()

    def train(self, mode: bool = True) -> ClusterTargets:
        """Dropout stays off, whatever the objective around it does."""
        super().train(False)
        return self

    @torch.no_grad()
    def forward(self, wave_BS: Tensor, length_B: Tensor) -> Tensor:
        """Cluster of every frame of the whole clips, (B, S), (B,) -> (B, T)."""
        if not bool(torch.isfinite(self.centroid_KD).all()):
            raise ValueError(f"expected {len(self.centroid_KD)} finite centroids, got none: call fit first")
        hidden_BTD, _ = self.hidden(wave_BS, length_B)
        return assign_clusters(self._standardise(hidden_BTD), self.centroid_KD)

    @torch.no_grad()
    def hidden(self, wave_BS: Tensor, length_B: Tensor) -> tuple[Tensor, Tensor]:
        """The hidden state that is clustered and its mask, (B, T, D), (B, T); the layers above it are not run."""
        stem_BTD, mask_BT = self.teacher.stem(wave_BS, length_B)
        states = self.teacher.states(stem_BTD, mask_BT, start=0)
        return next(islice(states, self.layer, None)), mask_BT

    @torch.no_grad()
    def fit(self, frame_ND: Tensor, k_means: KMeans) -> None:
        """Take scale and centroids from a sample of frames."""
        clusters = len(self.centroid_KD)
        if len(frame_ND) < clusters:
            raise ValueError(f"expected at least {clusters} frames for {clusters} clusters, got {len(frame_ND)}")
        if broken := int((~frame_ND.isfinite()).any(1).sum()):
            raise ValueError(f"expected finite frames to cluster, got {broken} others of {len(frame_ND)}")
        self.mean_D.copy_(frame_ND.mean(0))
        self.std_D.copy_(frame_ND.std(0, correction=0).clamp_min(SMALLEST_STD))
        rows_ND = self._standardise(frame_ND.to(self.mean_D.device)).cpu().numpy()
        self.centroid_KD.copy_(torch.from_numpy(k_means(rows_ND)))

    def fitted(self) -> list[Tensor]:
        """Tensors that `fit` sets, for workers that are given the clusters of another."""
        return [self.mean_D, self.std_D, self.centroid_KD]

    def _standardise(self, hidden_BTD: Tensor) -> Tensor:
        return (hidden_BTD.float() - self.mean_D) / self.std_D


class ClusterObjective(Objective):
    """Masked cluster prediction. The head is HuBERT's: `softmax_k(cos(A c_t, e_k) / τ)` with a learned code e_k.

    `targets.fit` has to be called before the first step, and again after `follow`.
    """

    def __init__(self, encoder: SpeechEncoder, options: MaskedPredictionOptions, generator: torch.Generator) -> None:
        super().__init__(encoder, options, generator)
        layer = int(DEPTH * encoder.num_layers) if options.layer is None else options.layer
        self.targets = ClusterTargets(encoder, layer=layer, clusters=options.clusters)
        with torch.random.fork_rng(devices=[]):  # the constructor draws from the global generator; replaced below
            self.projection = nn.Linear(encoder.width, PROJECTION)
        self.code_KP = nn.Parameter(torch.empty(options.clusters, PROJECTION))
        self._draw_head(generator)

    def follow(self, generator: torch.Generator) -> list[nn.Parameter]:
        """Let the targets come from the encoder as it is now, and start the head anew; returns the head's parameters.

        New clusters have other numbers, so what the old head knew of them means nothing. Fit the targets next, and drop
        what the optimiser remembers of the head.
        """
        self.targets.teacher.load_state_dict(self.encoder.state_dict())
        self._draw_head(generator)
        return [*self.projection.parameters(), self.code_KP]

    def _loss(
        self, wave_BS: Tensor, length_B: Tensor, hidden_BT: Tensor, rng: np.random.Generator, step: int
    ) -> tuple[dict[str, Tensor], dict[str, Tensor]]:
        """Cross-entropy over the masked frames; perplexities of the ids that are predicted and of those there are."""
        logits_MK, target_M = self._predict(wave_BS, length_B, hidden_BT, rng)
        predicted_M = logits_MK.argmax(1)
        mean = {
            "loss": functional.cross_entropy(logits_MK, target_M),
            "accuracy": (predicted_M == target_M).float().mean(),
        }
        return mean, {"perplexity": self._share(predicted_M), "target_perplexity": self._share(target_M)}

    @property
    def units(self) -> int:
        """Clusters."""
        return self.options.clusters

    def frame_losses(
        self, wave_BS: Tensor, length_B: Tensor, hidden_BT: Tensor, rng: np.random.Generator
    ) -> tuple[Tensor, Tensor]:
        """Cross-entropy of every hidden frame (M,) and its cluster (M, 1)."""
        logits_MK, target_M = self._predict(wave_BS, length_B, hidden_BT, rng)
        return functional.cross_entropy(logits_MK, target_M, reduction="none"), target_M[:, None]

    def _predict(
        self, wave_BS: Tensor, length_B: Tensor, hidden_BT: Tensor, rng: np.random.Generator
    ) -> tuple[Tensor, Tensor]:
        """Logits of the clusters (M, K) and the cluster (M,) of every hidden frame."""
        target_M = self.targets(wave_BS, length_B)[hidden_BT]
        with dropout_from(int(rng.integers(2**62)), wave_BS.device):
            context_BTD = self._contextualise(self.encoder.project(wave_BS, length_B), length_B, hidden_BT)
        unit_MP = functional.normalize(self.projection(context_BTD[hidden_BT]).float(), dim=-1)
        return unit_MP @ functional.normalize(self.code_KP, dim=-1).T / self.options.logit_temperature, target_M

    def _share(self, id_M: Tensor) -> Tensor:
        return torch.bincount(id_M, minlength=self.options.clusters) / len(id_M)

    @torch.no_grad()
    def _draw_head(self, generator: torch.Generator) -> None:
        limit = self.projection.in_features**-0.5
        for parameter in self.projection.parameters():
            parameter.copy_(torch.empty(parameter.shape).uniform_(-limit, limit, generator=generator))
        self.code_KP.copy_(torch.empty(self.code_KP.shape).normal_(generator=generator))
