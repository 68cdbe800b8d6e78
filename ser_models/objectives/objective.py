"""Base of all pretraining objectives: an encoder trained in place, spans of frames to hide, a learned mask frame.

A hidden frame is replaced after the convolutional front, before its position (`SpeechEncoder.add_positions`), as in
wav2vec 2.0 and HuBERT. That holds for Whisper too: its positions are added once, to the input of the first layer, so
frames that were replaced after it would all be alike, and the best guess for each of them the same.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections import deque
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import ClassVar

import numpy as np
import torch
from torch import Tensor, nn

from ser_models.adapters import ADAPTERS
from ser_models.adapters.composition import parse_adapters
from ser_models.encoders import SpeechEncoder
from ser_models.encoders.encoder import check_clips, prefix_mask
from ser_models.objectives.masks import MASKS, span_mask
from ser_models.objectives.options import MaskedPredictionOptions

# B clips · S samples · T frames · D encoder width · G codebook groups · V codewords per group


@dataclass(frozen=True, kw_only=True)
class Measures:
    """Scores of an objective on the masked frames of some clips."""

    mean: dict[str, Tensor]
    """Scalars, means over the masked frames; the loss is one of them."""
    share: dict[str, Tensor]
    """Name of a perplexity -> the shares of the codewords it is of, (V,) or (G, V)."""
    masked: Tensor
    """Number of masked frames."""

    def scalars(self) -> dict[str, Tensor]:
        """Means, perplexities and `masked` by name."""
        return self.mean | {name: perplexity(share) for name, share in self.share.items()} | {"masked": self.masked}


def pool_measures(measures: Sequence[Measures]) -> Measures:
    """The measures of several batches as if they had been one."""
    weight_N = torch.stack([one.masked for one in measures]).double()
    weight_N = weight_N / weight_N.sum()

    def pooled(values: Sequence[dict[str, Tensor]]) -> dict[str, Tensor]:
        return {n: torch.stack([w * v[n] for w, v in zip(weight_N, values, strict=True)]).sum(0) for n in values[0]}

    masked = torch.stack([one.masked for one in measures]).sum()
    return Measures(
        mean=pooled([one.mean for one in measures]), share=pooled([one.share for one in measures]), masked=masked
    )


class Objective(nn.Module, ABC):
    """A self-supervised loss around an encoder.

    Trained are the heads, the mask embedding, and of the encoder either its adapters alone, where it carries any, or
    everything but the convolutional front (`freeze_front`).
    """

    saved_elsewhere: ClassVar[tuple[str, ...]] = ("encoder.", "targets.teacher.")
    """Prefixes of the weights that are saved with the encoder."""

    def __init__(self, encoder: SpeechEncoder, options: MaskedPredictionOptions, generator: torch.Generator) -> None:
        super().__init__()
        self.encoder = encoder
        self.options = options
        existing = getattr(encoder.model, "masked_spec_embed", None)
        drawn = torch.rand(encoder.width, generator=generator)
        self.mask_embedding: nn.Parameter = nn.Parameter(drawn) if existing is None else existing
        self.mask_embedding.requires_grad_(True)
        if not encoder.adapters:
            for part in encoder.front:
                part.requires_grad_(not options.freeze_front)

    def forward(
        self,
        wave_BS: Tensor,
        length_B: Tensor,
        rng: np.random.Generator,
        *,
        step: int = 0,
        hidden_BT: Tensor | None = None,
    ) -> dict[str, Tensor]:
        """Scalars {loss, accuracy, perplexity, masked, ...} over the masked frames, whose number is `masked`."""
        return self.measure(wave_BS, length_B, rng, step=step, hidden_BT=hidden_BT).scalars()

    def measure(
        self,
        wave_BS: Tensor,
        length_B: Tensor,
        rng: np.random.Generator,
        *,
        step: int = 0,
        hidden_BT: Tensor | None = None,
    ) -> Measures:
        """Measures of some clips before they are summed up, to be pooled over batches.

        Masks, and whatever else is random, dropout included, come from `rng` alone. `hidden_BT` gives the masks instead
        of drawing them. `step` is for objectives with a schedule of their own.
        """
        check_clips(wave_BS, length_B, self.encoder.minimal_samples)
        frames_B = self.encoder.frames(length_B)
        if hidden_BT is None:
            hidden_BT = self._draw_mask(frames_B, rng)
        _check_mask(hidden_BT, frames_B)
        mean, share = self._loss(wave_BS[:, : int(length_B.max())], length_B, hidden_BT, rng, step)
        return Measures(mean=mean, share=share, masked=hidden_BT.sum())

    @abstractmethod
    def _loss(
        self, wave_BS: Tensor, length_B: Tensor, hidden_BT: Tensor, rng: np.random.Generator, step: int
    ) -> tuple[dict[str, Tensor], dict[str, Tensor]]:
        """Means and shares (see Measures) for checked clips and masks."""

    @property
    @abstractmethod
    def units(self) -> int:
        """Number of kinds of sound that the objective tells apart."""

    @abstractmethod
    def frame_losses(
        self, wave_BS: Tensor, length_B: Tensor, hidden_BT: Tensor, rng: np.random.Generator
    ) -> tuple[Tensor, Tensor]:
        """Loss of every hidden frame (M,), clip by clip in order, and the kinds of sound it is, (M, G)."""

    def trained(self) -> dict[str, nn.Parameter]:
        """The parameters that the optimiser moves, by name."""
        return {name: parameter for name, parameter in self.named_parameters() if parameter.requires_grad}

    def _draw_mask(self, frames_B: Tensor, rng: np.random.Generator) -> Tensor:
        frames = frames_B.tolist()
        hidden_BT = span_mask(frames, MASKS[self.options.mask], rng)
        if not hidden_BT.any():
            raise ValueError(
                f"no clip is long enough for a mask span: the longest of {len(frames)} has {max(frames)} frames, "
                f"a span hides {MASKS[self.options.mask].length} and leaves one"
            )
        return torch.from_numpy(hidden_BT).to(frames_B.device)

    def _contextualise(self, frame_BTD: Tensor, length_B: Tensor, hidden_BT: Tensor) -> Tensor:
        """The encoder's last hidden state when some frames are hidden from it, (B, T, D) -> (B, T, D)."""
        real_BT = prefix_mask(self.encoder.frames(length_B), frame_BTD.shape[1])
        masked_BTD = torch.where(hidden_BT[..., None], self.mask_embedding.to(frame_BTD.dtype), frame_BTD)
        states = self.encoder.states(self.encoder.add_positions(masked_BTD, real_BT), real_BT, start=0)
        return deque(states, maxlen=1)[0]


def check_adapter(spec: str) -> None:
    """Raise ValueError unless an encoder pretrained through these adapters can become a plain encoder again."""
    kinds = parse_adapters(spec)
    fit = ", ".join(kind for kind, adapter in ADAPTERS.items() if adapter.pretrainable)
    for kind in kinds:
        if reason := ADAPTERS[kind].not_pretrained:
            raise ValueError(f"pretraining through {kind!r} is not possible: {reason}; possible: {fit}")
        if not ADAPTERS[kind].mergeable:
            raise ValueError(f"{kind!r} cannot be merged into the encoder that pretraining returns; possible: {fit}")


def perplexity(share_GV: Tensor) -> Tensor:
    """exp of the entropy of each row of shares, summed over the rows: how many codewords are in use, effectively."""
    return torch.exp(-torch.xlogy(share_GV, share_GV).sum(-1)).sum()


@contextmanager
def dropout_from(seed: int, device: torch.device) -> Iterator[None]:
    """Let the encoder's dropout draw from a seed of ours and leave the global generator as it was."""
    with torch.random.fork_rng(devices=[device] if device.type == "cuda" else []):
        torch.default_generator.manual_seed(seed)
        if device.type == "cuda":
            torch.cuda.manual_seed(seed)
        yield


def _check_mask(hidden_BT: Tensor, frames_B: Tensor) -> None:
    """Refuse masks of another shape, on padding, on whole clips, and those that hide nothing."""
    expected = (len(frames_B), int(frames_B.max()))
    if tuple(hidden_BT.shape) != expected:
        raise ValueError(f"expected a mask of {expected} clips and frames, got {tuple(hidden_BT.shape)}")
    if bool((hidden_BT & ~prefix_mask(frames_B, expected[1])).any()):
        raise ValueError("expected masks on real frames only, got some on the padding")
    for index, (count, frames) in enumerate(zip(hidden_BT.sum(1).tolist(), frames_B.tolist(), strict=True)):
        if count >= frames:
            raise ValueError(f"clip {index} is masked whole: expected at most {frames - 1} of its frames, got {count}")
    if not bool(hidden_BT.any()):
        raise ValueError(f"expected masked frames in at least one of {expected[0]} clips, got none")
