"""Domain alignment: bring the pooled features of two languages together, so that labels of one serve the other.

Means and spreads are matched by `MeanVarianceAlignment`, covariances by CORAL over some hidden states, in a head fitted
on cached features (`fit_anchored`) or batch by batch inside the encoder (`CoralQueue`).

Layer anchoring: Upadhyay et al. 2024, arXiv 2407.04966; CORAL: Sun and Saenko 2016, Deep CORAL, arXiv 1607.01719.
Differs from the paper, where the source is silent: the projection that keeps covariances of full rank.
"""

# N, M clips of the two languages · L hidden states · A anchors, some of them · D features · U embedding
# P projected features · C classes · B batch · Q clips in the queue
from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import NamedTuple

import torch
from torch import Tensor, nn

from ser_models.defaults import CORAL_PROJECTION, CORAL_WEIGHT
from ser_models.fitting import FitOptions, FitResult, PooledRows, PooledSet, class_loss, minimise
from ser_models.heads import Head, LayerPool
from ser_models.moments import PooledMoments


def coral(source_ND: Tensor, target_MD: Tensor) -> Tensor:
    """Squared distance of two covariances, `‖C_S - C_T‖²_F / (4 D²)`, a scalar. Deep CORAL, equation 1."""
    width = check_pair(source_ND, target_MD)
    return (covariance(source_ND) - covariance(target_MD)).square().sum() / (4 * width**2)


def covariance(row_ND: Tensor) -> Tensor:
    """Unbiased covariance of rows, (N, D) -> (D, D)."""
    if len(row_ND) < 2:
        raise ValueError(f"a covariance needs at least 2 clips, got {len(row_ND)}")
    centred_ND = row_ND - row_ND.mean(0)
    return centred_ND.T @ centred_ND / (len(row_ND) - 1)


@dataclass(frozen=True, kw_only=True)
class Anchors:
    """Hidden states in which two languages are held together, and how."""

    layers: Sequence[int]
    """A, the anchored hidden states."""
    weight: float = CORAL_WEIGHT
    """λ, the weight of CORAL beside the cross-entropy; 0 = source only."""
    projection: int = CORAL_PROJECTION
    """P: covariances are of so many directions, which are learned with the head; fewer than there are clips."""

    def __post_init__(self) -> None:
        if self.weight < 0:
            raise ValueError(f"weight must be at least 0, got {self.weight}")
        if self.projection < 1:
            raise ValueError(f"projection must be at least 1, got {self.projection}")


class MeanVarianceAlignment(NamedTuple):
    """Gives pooled statistics of one language the mean and the spread that each has in another.

    What is left between the two are covariances.
    """

    factor_LD: Tensor
    shift_LD: Tensor
    std_factor_LD: Tensor
    std_shift_LD: Tensor

    @staticmethod
    def between(own: PooledRows, other: PooledRows) -> MeanVarianceAlignment:
        """The alignment of a language with another, from unlabelled clips of both, (N, L, D) and (M, L, D)."""
        return MeanVarianceAlignment.of(*(PooledMoments.of(rows.mean_NLD, rows.std_NLD) for rows in (own, other)))

    @staticmethod
    def of(own: PooledMoments, other: PooledMoments) -> MeanVarianceAlignment:
        """The alignment of a language with another, from the moments of unlabelled clips of both."""
        parts = []
        for mine, others in ((own.mean, other.mean), (own.std, other.std)):
            factor_LD = others.scale(1) / mine.scale(1).clamp_min(1e-8)
            parts += [factor_LD, others.mean - factor_LD * mine.mean]
        return MeanVarianceAlignment(*parts)

    def __call__(self, mean_BLD: Tensor, std_BLD: Tensor) -> tuple[Tensor, Tensor]:
        """Clips of the one, as they would be in the other, (B, L, D) twice."""
        return mean_BLD * self.factor_LD + self.shift_LD, std_BLD * self.std_factor_LD + self.std_shift_LD


def align(rows: PooledRows, own: PooledRows, other: PooledRows) -> PooledRows:
    """Rows of one language with the mean and the spread of another; `own` and `other` are unlabelled clips of both."""
    mean_NLD, std_NLD = MeanVarianceAlignment.between(own, other)(rows.mean_NLD.float(), rows.std_NLD.float())
    return PooledRows(mean_NLD=mean_NLD, std_NLD=std_NLD, text_NE=rows.text_NE)


class CoralQueue(nn.Module):
    """Mean CORAL of two languages over the anchors, batch by batch, for training inside the encoder.

    A batch has fewer clips than a covariance has directions. So past clips count beside those of the batch, up to
    `size` of each language, through which no gradient flows, and covariances are of a few fixed directions.
    """

    def __init__(self, basis_UP: Tensor, anchors: Sequence[int], *, size: int = 1024) -> None:
        """`basis_UP`: orthonormal directions, such as `principal_directions` of both languages' cached features."""
        super().__init__()
        if not anchors or size < 1:
            raise ValueError(f"expected anchors and room for clips, got {list(anchors)} and {size}")
        self.anchors, self.size = list(anchors), size
        self.basis_UP: Tensor
        self.register_buffer("basis_UP", basis_UP)
        for side in ("source", "target"):
            self.register_buffer(f"{side}_QAP", basis_UP.new_zeros(0, len(self.anchors), basis_UP.shape[1]))

    def forward(self, source_BLU: Tensor, target_BLU: Tensor) -> Tensor:
        """The loss of standardised statistics of every hidden state, a scalar; training mode remembers the clips.

        Until there are two clips of each language, the loss is 0.
        """
        sides = {}
        for side, rows_BLU in (("source", source_BLU), ("target", target_BLU)):
            past_QAP: Tensor = getattr(self, f"{side}_QAP")
            sides[side] = torch.cat([rows_BLU[:, self.anchors].float() @ self.basis_UP, past_QAP])[: self.size]
            if self.training:
                setattr(self, f"{side}_QAP", sides[side].detach())
        if min(map(len, sides.values())) < 2:
            return source_BLU.new_zeros(())
        pairs = zip(sides["source"].unbind(1), sides["target"].unbind(1), strict=True)
        return torch.stack([coral(*pair) for pair in pairs]).mean()

    def remember(self, saved: Mapping[str, Tensor]) -> None:
        """Go on with the clips of an earlier training, from its `state_dict`."""
        for side in ("source", "target"):
            setattr(self, f"{side}_QAP", saved[f"{side}_QAP"].to(self.basis_UP))


def fit_anchored(
    labelled: PooledSet,
    source: PooledRows,
    target: PooledRows,
    num_classes: int,
    *,
    anchors: Anchors,
    pool: LayerPool,
    options: FitOptions | None = None,
) -> FitResult:
    """Fit a linear head on the anchors of a labelled language so that it holds for one without labels, or with few.

    `CE(softmax(W Qᵀ Σ_{l∈A} w_l x_l)) + λ · mean_{l∈A} CORAL(u_l Q, v_l Q)` with x the labelled clips' standardised
    statistics, of either language, u those of the source's and v those of the target's speech, labelled or not, w =
    softmax over the anchors, Q (U, P) with orthonormal columns. Q keeps the covariances of full rank, and CORAL from
    being lowered by mere shrinking; it comes out as a part of the head's weight. Full batch by L-BFGS from Q's
    principal directions: nothing random. `pool` brings the standardisation and is not changed.
    """
    options, layers = options or FitOptions(), list(anchors.layers)
    parts = (pool.standardise(part.mean_NLD, part.std_NLD) for part in (labelled, source, target))
    states = pool.centre_mean.shape[0]
    if not layers or len(set(layers)) < len(layers) or not set(layers) <= set(range(states)):
        raise ValueError(f"anchors must be some of the hidden states 0..{states - 1}, each once, got {layers}")
    labelled_NAU, source_NAU, target_MAU = (part_NLU[:, layers] for part_NLU in parts)
    rows_NU = torch.cat([source_NAU, target_MAU]).mean(1)
    basis_UP = principal_directions(rows_NU, anchors.projection).requires_grad_(True)
    head_PC = torch.zeros(basis_UP.shape[1], num_classes, requires_grad=True)
    bias_C = torch.zeros(num_classes, requires_grad=True)
    weight_A = torch.zeros(len(layers), requires_grad=True)
    loss_of = class_loss(labelled, num_classes, options)
    l2, layer_l2 = options.class_l2(len(labelled.label_N)), options.layers_l2(len(labelled.label_N))

    def objective() -> Tensor:
        direction_UP = torch.linalg.qr(basis_UP).Q
        mixed_NP = torch.einsum("a,nap->np", torch.softmax(weight_A, 0), labelled_NAU @ direction_UP)
        loss = loss_of(mixed_NP @ head_PC + bias_C)
        if anchors.weight:
            pairs = zip((source_NAU @ direction_UP).unbind(1), (target_MAU @ direction_UP).unbind(1), strict=True)
            loss = loss + anchors.weight * torch.stack([coral(*pair) for pair in pairs]).mean()
        ridge = head_PC.square().sum() + bias_C.square().sum()
        return loss + (l2 * ridge + layer_l2 * weight_A.square().sum()) / 2

    least, steps = minimise(objective, [basis_UP, head_PC, bias_C, weight_A], options.max_steps)
    with torch.no_grad():
        fitted = LayerPool(*pool.centre_mean.shape, std_gain=pool.std_gain)
        fitted.load_state_dict(pool.state_dict())
        fitted.layer_weight.fill_(-torch.inf)
        fitted.layer_weight[layers] = weight_A
        head = Head(fitted.out_width, num_classes, dropout=0.0)
        head.output.weight.copy_((torch.linalg.qr(basis_UP).Q @ head_PC).T)
        head.output.bias.copy_(bias_C)
    return FitResult(pool=fitted.eval(), head=head.eval(), loss=least, steps=steps, dev_uar=None)


def principal_directions(row_NU: Tensor, count: int) -> Tensor:
    """The first principal directions of rows, (N, U) -> (U, P), P = count or fewer."""
    count = min(count, row_NU.shape[1], len(row_NU) - 1)
    directions: Tensor = torch.linalg.svd(row_NU - row_NU.mean(0), full_matrices=False).Vh
    return directions[:count].T.contiguous()


def check_pair(source_ND: Tensor, target_MD: Tensor) -> int:
    """The width D of the clips of two languages. Raises ValueError for shapes that cannot be compared."""
    if source_ND.ndim != 2 or target_MD.ndim != 2 or source_ND.shape[1] != target_MD.shape[1]:
        raise ValueError(
            f"expected rows (N, D) and (M, D) of one width, got {tuple(source_ND.shape)} and {tuple(target_MD.shape)}"
        )
    return source_ND.shape[1]
