"""Distillation: a small encoder learns to predict the hidden states of a large one, without any label.

Chang et al. 2022, DistilHuBERT, arXiv 2110.01900 (section 2): one linear head per teacher state on the student's last
hidden state; the heads are dropped afterwards. The student starts as the bottom of its teacher (section 2.2), or as any
other encoder with the same frames a second.
"""

# B batch · T frames · D features · L hidden states of the teacher that are distilled
from __future__ import annotations

import copy
import json
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar

import torch
from torch import Tensor, nn
from torch.nn import functional

from ser_models.encoders import SpeechEncoder
from ser_models.encoders.embedded import FOLDER as EMBEDDED_FOLDER
from ser_models.encoders.encoder import prefix_mask
from ser_models.pooling import masked_mean_std

NOTE = "distillation.json"
"""Beside a student's weights: who its teacher was, and how large."""
CONSTANT_FEATURE = 1e-3
"""Teacher features with less spread than this, over real speech, carry nothing and are only centred."""


@dataclass(frozen=True, kw_only=True)
class DistillationOptions:
    """Weights of the losses."""

    cosine_weight: float = 1.0
    """Weight λ of the cosine part of the loss on frames."""
    statistics_weight: float = 1.0
    """Weight of the loss on the mean and standard deviation of each clip."""


def teacher_states(num_layers: int) -> list[int]:
    """The hidden states a student learns by default, at thirds of the depth: 4, 8 and 12 of 12, as in DistilHuBERT."""
    return sorted({-(-num_layers * thirds // 3) for thirds in (1, 2, 3)})


def student_of(teacher: SpeechEncoder, layers: int) -> SpeechEncoder:
    """A trainable copy of a teacher's stem and first `layers` layers. Raises ValueError if it has fewer."""
    student = copy.deepcopy(teacher).requires_grad_(True)
    student.keep_layers(layers)
    return student


def teacher_parameters(encoder: str) -> int | None:
    """Parameters of the teacher of a distilled encoder; None where no distillation is noted."""
    note = (EMBEDDED_FOLDER if encoder == "seral-tiny" else Path(encoder)) / NOTE
    return int(json.loads(note.read_text(encoding="utf-8"))["teacher_parameters"]) if note.is_file() else None


def distillation_loss(
    predicted_LBTD: Tensor, target_LBTD: Tensor, mask_BT: Tensor, *, cosine_weight: float = 1.0
) -> Tensor:
    """`Σ_l mean_t [ ‖h_t - p_t‖₁ / D - λ log σ(cos(h_t, p_t)) ]` over real frames, -> scalar. DistilHuBERT, equation 1.

    Differs from the paper: the mean over the frames of the batch instead of their sum, so that the size of a batch does
    not scale the gradient.
    """
    if predicted_LBTD.shape != target_LBTD.shape or predicted_LBTD.shape[1:3] != mask_BT.shape:
        shapes = ", ".join(str(tuple(tensor.shape)) for tensor in (predicted_LBTD, target_LBTD, mask_BT))
        raise ValueError(f"expected prediction and target (L, B, T, D) and mask (B, T), got {shapes}")
    predicted_LND, target_LND = predicted_LBTD[:, mask_BT], target_LBTD[:, mask_BT]
    distance_LN = (predicted_LND - target_LND).abs().mean(-1)
    cosine_LN = functional.cosine_similarity(predicted_LND, target_LND, dim=-1)
    return (distance_LN - cosine_weight * functional.logsigmoid(cosine_LN)).mean(1).sum()


def statistics_loss(predicted_LBTD: Tensor, target_LBTD: Tensor, mask_BT: Tensor) -> Tensor:
    """`Σ_l mean over clips of (‖mean - mean'‖₁ + ‖std - std'‖₁) / D` over the real frames of each clip, -> scalar.

    Not in DistilHuBERT: what is used downstream is pooled, and predictions that are right on average over frames can
    still miss the slow differences between clips that speakers and emotions make.
    """
    predicted, target = masked_mean_std(predicted_LBTD, mask_BT), masked_mean_std(target_LBTD, mask_BT)
    distances = [(ours - theirs).abs().mean((1, 2)) for ours, theirs in zip(predicted, target, strict=True)]
    return torch.stack(distances).sum()


class Distillation(nn.Module):
    """A student encoder, which is trained in place, with its prediction heads and the scale of the teacher's states.

    Differs from the paper: teacher states are standardised per feature, because a few features of a transformer's
    residual stream are a hundred times larger than the others and would take the whole L1 distance.
    """

    saved_elsewhere: ClassVar[tuple[str, ...]] = ("student.",)
    """Prefixes of the weights that are saved as the new encoder."""

    def __init__(
        self,
        student: SpeechEncoder,
        options: DistillationOptions,
        generator: torch.Generator,
        *,
        teacher_LND: Tensor,
    ) -> None:
        """`teacher_LND`: the distilled states on a sample of N real frames, which set the scale."""
        super().__init__()
        self.student = student
        self.options = options
        states, _, width = teacher_LND.shape
        self.centre_LD: Tensor
        self.spread_LD: Tensor
        spread_LD = teacher_LND.std(1)
        self.register_buffer("centre_LD", teacher_LND.mean(1))
        self.register_buffer("spread_LD", torch.where(spread_LD > CONSTANT_FEATURE, spread_LD, 1.0))
        limit = student.width**-0.5
        shape = (states, width, student.width)
        self.head_LDE = nn.Parameter(torch.empty(shape).uniform_(-limit, limit, generator=generator))
        self.bias_LD = nn.Parameter(torch.zeros(states, width))

    def forward(self, wave_BS: Tensor, length_B: Tensor, teacher_LBTD: Tensor, teacher_B: Tensor) -> dict[str, Tensor]:
        """Scalars {loss, frames, statistics} for clips and the teacher's states on them, teacher_B real frames each.

        `compared` is how many frames they are a mean over. Frame t of both is taken to be the same moment; the last
        frame or two that only one of them has are left out.
        """
        output = self.student(wave_BS, length_B)
        frames = min(output.mask_BT.shape[1], teacher_LBTD.shape[2])
        mask_BT = output.mask_BT[:, :frames] & prefix_mask(teacher_B, frames)
        predicted = torch.einsum("bte,lde->lbtd", output.hidden_LBTD[-1, :, :frames], self.head_LDE)
        predicted_LBTD = predicted + self.bias_LD[:, None, None]
        target_LBTD = self._standardise(teacher_LBTD[:, :, :frames].to(predicted.dtype))
        by_frame = distillation_loss(predicted_LBTD, target_LBTD, mask_BT, cosine_weight=self.options.cosine_weight)
        by_clip = statistics_loss(predicted_LBTD, target_LBTD, mask_BT)
        loss = by_frame + self.options.statistics_weight * by_clip
        scalars = {"loss": loss, "frames": by_frame.detach(), "statistics": by_clip.detach()}
        return scalars | {"compared": mask_BT.sum()}

    def _standardise(self, teacher_LBTD: Tensor) -> Tensor:
        return (teacher_LBTD - self.centre_LD[:, None, None]) / self.spread_LD[:, None, None]
