"""Adapter training without labels: a masked student, its moving-average teacher, and local attributes of frames.

`L = L_mask + α L_sd + β L_attr`: the student sees clips with spans hidden and predicts, of the teacher that sees them
whole, the hidden frames (L_mask), the clip (L_sd) and which attribute each hidden frame has (L_attr): the nearest of
some prototypes, which are cluster centres of teacher frames. Song et al. 2025, arXiv 2509.23795.
"""

# B batch · T frames · D features · M hidden frames of the batch · N frames that are real
# K prototypes · P projected features of L_sd
from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor, distributed, nn
from torch.nn.functional import cross_entropy, layer_norm, mse_loss

from ser_models.adapters.wap import WapTransformer, random_linear, wap_of
from ser_models.encoders import SpeechEncoder
from ser_models.objectives.teacher import follow, teacher_of
from ser_models.pooling import masked_mean_std

TEACHER_TEMPERATURE, STUDENT_TEMPERATURE = 0.04, 0.1
CENTRE_RATE = 0.9
FLAT_FRAMES = 0.1
"""Mean deviation of teacher frames below which they say nothing; standardised frames have 1."""
FEW_PROTOTYPES = 0.02
"""Share of the prototypes in effective use below which attributes say nothing."""


AT_LEAST = {
    **dict.fromkeys(("alpha", "beta"), 0),
    **dict.fromkeys(("steps", "stride", "mask_frames", "cluster_iterations"), 1),
    **dict.fromkeys(("clusters", "outputs", "cluster_frames"), 2),
}
"""Least values of the options."""


@dataclass(frozen=True, kw_only=True)
class LocalAttributesOptions:
    """Options of the adapter's training: schedule, weights of the losses, sizes."""

    steps: int = 2000
    """Updates."""
    batch_s: float = 40.0
    """Seconds of speech in a step, padding included."""
    crop_s: float = 10.0
    """Longer clips give a random piece of this length."""
    stride: int = 1
    """So many frames in a row are averaged to one before the adapter is given them."""
    mask_prob: float = 0.65
    """Share of frames that would be hidden if spans did not overlap; 0.65 hides about half, as in wav2vec 2.0."""
    mask_frames: int = 10
    """Length of a span. Clips no longer than one are left out."""
    lr: float = 5e-4
    """Peak learning rate of AdamW: warm-up over a tenth of the steps, then linear to 0."""
    weight_decay: float = 0.01
    """Weight decay of AdamW."""
    ema_start: float = 0.99
    """The teacher's share m of its own weights in an update, at the start."""
    ema_end: float = 0.999
    """The teacher's share m of its own weights in an update, at the end."""
    cluster_frames: int = 16_384
    """Frames, of clips drawn at random, that are clustered to prototypes."""
    cluster_iterations: int = 10
    """Iterations of k-means. A later clustering starts from the prototypes there are: they keep their numbers."""
    refresh_every: int | None = None
    """Steps between two clusterings; None = whenever all speech has been heard once more."""
    alpha: float = 1.0
    """Weight of the self-distillation of whole clips; 0 = without it."""
    beta: float = 1.0
    """Weight of the local attributes; 0 = without them."""
    clusters: int = 256
    """Local attributes: prototypes K."""
    outputs: int = 256
    """Outputs P that the self-distillation compares."""

    def __post_init__(self) -> None:
        for name, least in AT_LEAST.items():
            if getattr(self, name) < least:
                raise ValueError(f"{name} must be at least {least}, got {getattr(self, name)}")
        if self.batch_s <= 0 or self.crop_s <= 0:
            raise ValueError(f"batch_s and crop_s must be above 0, got {self.batch_s} and {self.crop_s}")
        if not 0 < self.mask_prob < 1:
            raise ValueError(f"mask_prob must lie in (0, 1), got {self.mask_prob}")
        for name in ("ema_start", "ema_end"):
            if not 0 <= getattr(self, name) <= 1:
                raise ValueError(f"{name} must lie in [0, 1], got {getattr(self, name)}")


class ClipDistillation(nn.Module):
    """L_sd: what a head of the student says of clips against what its teacher's says, centred and sharpened."""

    centre_P: Tensor

    def __init__(self, width: int, outputs: int, generator: torch.Generator) -> None:
        super().__init__()
        hidden, output = random_linear(width, width, generator), random_linear(width, outputs, generator)
        self.student = nn.Sequential(hidden, nn.GELU(), output)
        self.teacher = teacher_of(self.student)
        self.register_buffer("centre_P", torch.zeros(outputs))

    def forward(self, student_BTD: Tensor, teacher_BTD: Tensor, mask_BT: Tensor) -> Tensor:
        student_BP, teacher_BP = (
            head(masked_mean_std(hidden_BTD[None], mask_BT)[0][0])
            for head, hidden_BTD in ((self.student, student_BTD), (self.teacher, teacher_BTD))
        )
        loss = distillation_loss(student_BP, teacher_BP, self.centre_P)
        if self.training:
            self.centre_P.mul_(CENTRE_RATE).add_(mean_of_all_workers(teacher_BP), alpha=1 - CENTRE_RATE)
        return loss


class LocalAttributes(nn.Module):
    """A student adapter, which is trained in place, with its teacher and the heads of the three losses.

    Differs from the paper: it gives neither heads nor normalisations. Ours: linear heads on frames, one hidden layer on
    clips; the teacher's frames are layer-normalised, as in data2vec (Baevski et al. 2022, arXiv 2202.03555), and the
    clip's output is centred and sharpened, as in DINO (Caron et al. 2021, arXiv 2104.14294).
    """

    prototype_KD: Tensor
    saved_elsewhere: ClassVar[tuple[str, ...]] = ("student.",)
    """Prefixes of the weights that are saved as the adapter."""

    def __init__(self, student: WapTransformer, options: LocalAttributesOptions, generator: torch.Generator) -> None:
        super().__init__()
        width = student.width
        self.options = options
        self.student, self.teacher = student, teacher_of(student)
        self.mask_D = nn.Parameter(0.02 * torch.randn(width, generator=generator))
        self.predict = random_linear(width, width, generator)
        # What a weight of 0 switches off is not built: DDP wants a gradient for every parameter.
        self.clips = ClipDistillation(width, options.outputs, generator) if options.alpha else None
        self.attribute = random_linear(width, options.clusters, generator) if options.beta else None
        self.register_buffer("prototype_KD", torch.zeros(options.clusters, width))

    @classmethod
    def on(cls, encoder: SpeechEncoder, options: LocalAttributesOptions, generator: torch.Generator) -> LocalAttributes:
        """The objective of the WAP-Transformer that an encoder carries."""
        return cls(wap_of(encoder)[1], options, generator)

    def train(self, mode: bool = True) -> LocalAttributes:
        """Training mode, without dropout in the teacher."""
        super().train(mode)
        self.teacher.eval()
        return self

    @torch.no_grad()
    def targets(self, hidden_BTD: Tensor, mask_BT: Tensor) -> Tensor:
        """Layer-normalised frames of the teacher on whole clips: `LN(Z_t)`."""
        return layer_norm(self.teacher.frames(hidden_BTD, mask_BT), (self.student.width,))

    @torch.no_grad()
    def set_prototypes(self, prototype_KD: Tensor) -> None:
        """Replace the prototypes by new cluster centres of `targets`."""
        if prototype_KD.shape != self.prototype_KD.shape:
            expected, actual = tuple(self.prototype_KD.shape), tuple(prototype_KD.shape)
            raise ValueError(f"expected prototypes (K, D) = {expected}, got {actual}")
        self.prototype_KD.copy_(prototype_KD)

    def forward(self, hidden_BTD: Tensor, mask_BT: Tensor, hide_BT: Tensor) -> dict[str, Tensor]:
        """Scalars for a batch whose frames `hide_BT` are hidden from the student: `loss`, its parts, and the guards.

        Guards against collapse: `z_std`, mean deviation of the teacher's features over the frames; `perplexity`, how
        many prototypes are in use, `exp(-Σ p log p)`; `centre_norm`, length of the running centre of L_sd.
        """
        if bool((hide_BT & ~mask_BT).any()) or not bool(hide_BT.any()):
            raise ValueError("hide at least one frame of the batch, and real frames only")
        standard_BTD = self.student.standardise(hidden_BTD, mask_BT)
        student_BTD = self.student.transform(torch.where(hide_BT[..., None], self.mask_D, standard_BTD), mask_BT)
        with torch.no_grad():
            teacher_BTD = self.teacher.frames(hidden_BTD, mask_BT)
            target_BTD = layer_norm(teacher_BTD, (self.student.width,))
        mask = mask_loss(self.predict(student_BTD[hide_BT]), target_BTD[hide_BT])
        loss, scalars = mask, {"mask": mask.detach(), "z_std": teacher_BTD[mask_BT].std(0, correction=0).mean()}
        if self.clips is not None:
            distillation = self.clips(student_BTD, teacher_BTD, mask_BT)
            loss = loss + self.options.alpha * distillation
            scalars |= {"distillation": distillation.detach(), "centre_norm": self.clips.centre_P.norm()}
        if self.attribute is not None:
            label_N = nearest_prototype(target_BTD[mask_BT], self.prototype_KD)
            attribute = cross_entropy(self.attribute(student_BTD[hide_BT]), label_N[hide_BT[mask_BT]])
            loss = loss + self.options.beta * attribute
            used = perplexity(label_N, self.options.clusters)
            scalars |= {"attribute": attribute.detach(), "perplexity": used}
        return {"loss": loss, **scalars, "masked": hide_BT.sum()}

    def follow(self, rate: float) -> None:
        """After an update of the student: move the teacher towards it."""
        follow(self.teacher, self.student, rate)
        if self.clips is not None:
            follow(self.clips.teacher, self.clips.student, rate)


def mask_loss(predicted_MD: Tensor, target_MD: Tensor) -> Tensor:
    """Mean square error of the hidden frames, `mean_t ‖p_t - z_t‖² / D`, a scalar.

    Differs from the paper: divided by D, so that the size of the encoder does not decide how the losses are weighed.
    """
    return mse_loss(predicted_MD, target_MD)


def distillation_loss(
    student_BP: Tensor,
    teacher_BP: Tensor,
    centre_P: Tensor,
    *,
    teacher_temperature: float = TEACHER_TEMPERATURE,
    student_temperature: float = STUDENT_TEMPERATURE,
) -> Tensor:
    """`CE(softmax((t - c) / τ_t), softmax(s / τ_s))`, mean over B. Caron et al. 2021, equation 1; no gradient to t."""
    target_BP = torch.softmax((teacher_BP.detach() - centre_P) / teacher_temperature, -1)
    return cross_entropy(student_BP / student_temperature, target_BP)


@torch.no_grad()
def mean_of_all_workers(row_BP: Tensor) -> Tensor:
    """Mean over the rows of all workers, (B, P) -> (P,), as of one batch of all; Caron et al. 2021, algorithm 1."""
    total = torch.cat([row_BP.sum(0).float(), row_BP.new_tensor([len(row_BP)], dtype=torch.float32)])
    if distributed.is_available() and distributed.is_initialized():
        distributed.all_reduce(total)
    return total[:-1] / total[-1]


def nearest_prototype(frame_ND: Tensor, prototype_KD: Tensor) -> Tensor:
    """Index of the nearest prototype of every frame, squared Euclidean, (N, D), (K, D) -> (N,)."""
    # |x|² is the same for all prototypes; the matrix product alone decides.
    return (frame_ND @ prototype_KD.T - prototype_KD.square().sum(1) / 2).argmax(1)


def perplexity(label_N: Tensor, prototypes: int) -> Tensor:
    """Number of prototypes in use: `exp(-Σ p log p)`, from 1 (all frames the same) to K (all alike)."""
    share_K = torch.bincount(label_N, minlength=prototypes).float() / len(label_N)
    entropy: Tensor = torch.special.entr(share_K).sum()
    return entropy.exp()


def collapse_signs(scalars: Mapping[str, float], options: LocalAttributesOptions) -> list[str]:
    """Signs that the teacher no longer tells clips or frames apart, as sentences; empty = none."""
    signs = []
    if scalars["z_std"] < FLAT_FRAMES:
        signs.append(f"frames deviate by {scalars['z_std']:.3f} only (z_std, 1 at the start)")
    if scalars.get("perplexity", options.clusters) < max(2.0, FEW_PROTOTYPES * options.clusters):
        signs.append(f"{scalars['perplexity']:.1f} of {options.clusters} prototypes are in use")
    return signs
