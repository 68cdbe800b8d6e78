"""Layer anchoring: bring two languages together in the layers of a speech encoder in which they are alike already.

Upadhyay et al. 2024, arXiv 2407.04966; CORAL: Sun and Saenko 2016, Deep CORAL, arXiv 1607.01719.
Differs from the paper, where the source is silent: the measures of similarity, the sizes of groups, and the projection
that keeps covariances of full rank.
"""

# N, M clips of the two languages · L hidden states, A of them anchors · D features · U embedding · P projected features
# C classes · B batch · Q clips remembered
from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn import functional

from ser_models.fitting import FitResult, PooledRows, PooledSet, ProbeOptions, class_loss, minimise
from ser_models.heads import Head, LayerPool

BANDWIDTHS = (0.25, 0.5, 1.0, 2.0, 4.0)
"""Widths of MMD's Gaussian kernels, as multiples of the median squared distance."""
GROUP_SIZE = 4
"""Layers in a `group` or `top_k`, as in the paper."""


def coral(source_ND: Tensor, target_MD: Tensor) -> Tensor:
    """Squared distance of two covariances, `‖C_S - C_T‖²_F / (4 D²)`, a scalar. Deep CORAL, equation 1."""
    width = _check_pair(source_ND, target_MD)
    return (covariance(source_ND) - covariance(target_MD)).square().sum() / (4 * width**2)


def covariance(row_ND: Tensor) -> Tensor:
    """Unbiased covariance of rows, (N, D) -> (D, D)."""
    if len(row_ND) < 2:
        raise ValueError(f"a covariance needs at least 2 clips, got {len(row_ND)}")
    centred_ND = row_ND - row_ND.mean(0)
    return centred_ND.T @ centred_ND / (len(row_ND) - 1)


def mmd(source_ND: Tensor, target_MD: Tensor) -> Tensor:
    """Squared maximum mean discrepancy, unbiased, under a sum of Gaussian kernels, a scalar that may be below 0.

    Gretton et al. 2012, JMLR 13, equation 3. Widths are BANDWIDTHS times the median squared distance of all clips.
    """
    _check_pair(source_ND, target_MD)
    sizes = len(source_ND), len(target_MD)
    if min(sizes) < 2:
        raise ValueError(f"MMD needs at least 2 clips of each, got {sizes[0]} and {sizes[1]}")
    row_ND = torch.cat([source_ND, target_MD])
    square_NN = torch.cdist(row_ND, row_ND).square()
    median = square_NN[*torch.triu_indices(len(row_ND), len(row_ND), 1)].median().clamp_min(1e-12)
    kernel_NN = torch.stack([torch.exp(-square_NN / (factor * median)) for factor in BANDWIDTHS]).sum(0)
    within, across = kernel_NN - torch.diag(kernel_NN.diagonal()), kernel_NN[: sizes[0], sizes[0] :]
    n, m = sizes
    return within[:n, :n].sum() / (n * (n - 1)) + within[n:, n:].sum() / (m * (m - 1)) - 2 * across.mean()


def centroids(row_ND: Tensor, label_N: Tensor, classes: Tensor) -> Tensor:
    """Mean of each class minus the mean of all those means, (N, D), (N,), (C,) -> (C, D)."""
    found = torch.stack([row_ND[label_N == one].mean(0) for one in classes])
    return found - found.mean(0)


def centroid_cosine(source_CD: Tensor, target_CD: Tensor) -> Tensor:
    """Mean over emotions of the cosine of their centred centroids in the two languages, a scalar in [-1, 1]."""
    return functional.cosine_similarity(source_CD, target_CD, dim=1).mean()


def centroid_cka(source_CD: Tensor, target_CD: Tensor) -> Tensor:
    """Linear CKA of two matrices of centred centroids, `‖Yᵀ X‖²_F / (‖Xᵀ X‖_F ‖Yᵀ Y‖_F)`, a scalar in [0, 1].

    Kornblith et al. 2019, arXiv 1905.00414, equation 5, through the C x C Gram matrices. Only how the emotions lie to
    one another counts: either language's space may be turned and scaled.
    """
    gram, other = source_CD @ source_CD.T, target_CD @ target_CD.T
    lengths: Tensor = torch.linalg.norm(gram) * torch.linalg.norm(other)
    return (gram * other).sum() / lengths.clamp_min(1e-12)


class Similarity(NamedTuple):
    """How alike a layer is in two languages; larger is more alike."""

    measure: Callable[[Tensor, Tensor], Tensor]
    """(N, D), (M, D) of the clips, or (C, D) twice of the emotions' centroids -> scalar."""
    of_labels: bool
    """Whether it compares emotions' centroids, and so needs labels in both languages, or pseudo-labels."""


SIMILARITIES: dict[str, Similarity] = {
    "coral": Similarity(lambda source, target: -coral(source, target), of_labels=False),
    "mmd": Similarity(lambda source, target: -mmd(source, target), of_labels=False),
    "centroid_cosine": Similarity(centroid_cosine, of_labels=True),
    "centroid_cka": Similarity(centroid_cka, of_labels=True),
}


def layer_similarity(
    kind: str,
    source_NLD: Tensor,
    target_MLD: Tensor,
    *,
    source_label_N: Tensor | None = None,
    target_label_M: Tensor | None = None,
) -> NDArray[np.float64]:
    """Similarity of every hidden state in two languages, (N, L, D), (M, L, D) -> (L,); larger is more alike.

    Every feature is standardised over both languages together first, so that layers of different scale can be compared.
    Measures of emotions take labels, with pseudo-labels for a language without; only classes that both have count.
    """
    if kind not in SIMILARITIES:
        raise ValueError(f"no similarity {kind!r}; known: {', '.join(SIMILARITIES)}")
    if source_NLD.ndim != 3 or source_NLD.shape[1:] != target_MLD.shape[1:]:
        raise ValueError(
            f"expected clips (N, L, D) of one encoder, got {tuple(source_NLD.shape)} and {tuple(target_MLD.shape)}"
        )
    measure, of_labels = SIMILARITIES[kind]
    if not of_labels:
        return np.array([float(measure(*pair)) for pair in _standard_layers(source_NLD, target_MLD)])
    if source_label_N is None or target_label_M is None:
        raise ValueError(f"{kind} compares emotions: it needs labels, or pseudo-labels, of both languages")
    classes = torch.unique(source_label_N)
    classes = classes[torch.isin(classes, target_label_M)]
    if len(classes) < 2:
        raise ValueError(f"{kind} needs at least 2 classes that both languages have, got {len(classes)}")
    return np.array(
        [
            float(measure(centroids(source, source_label_N, classes), centroids(target, target_label_M, classes)))
            for source, target in _standard_layers(source_NLD, target_MLD)
        ]
    )


def _standard_layers(source_NLD: Tensor, target_MLD: Tensor) -> list[tuple[Tensor, Tensor]]:
    both_NLD = torch.cat([source_NLD, target_MLD]).double()
    if not bool(torch.isfinite(both_NLD).all()):
        raise ValueError("features to compare must be finite")
    both_NLD = (both_NLD - both_NLD.mean(0)) / both_NLD.std(0).clamp_min(1e-8)
    return [(both_ND[: len(source_NLD)], both_ND[len(source_NLD) :]) for both_ND in both_NLD.unbind(1)]


def _last(similarity_L: NDArray[np.float64], _size: int) -> list[int]:
    return [len(similarity_L) - 1]


def _single(similarity_L: NDArray[np.float64], _size: int) -> list[int]:
    return [int(similarity_L.argmax())]


def _group(similarity_L: NDArray[np.float64], size: int) -> list[int]:
    windows = np.lib.stride_tricks.sliding_window_view(similarity_L, size).mean(1)
    begin = int(windows.argmax())
    return list(range(begin, begin + size))


def _top_k(similarity_L: NDArray[np.float64], size: int) -> list[int]:
    return sorted(np.argsort(-similarity_L, kind="stable")[:size].tolist())


def _all(similarity_L: NDArray[np.float64], _size: int) -> list[int]:
    return list(range(len(similarity_L)))


ANCHOR_SETS: dict[str, Callable[[NDArray[np.float64], int], list[int]]] = {
    "last": _last,
    "single": _single,
    "group": _group,
    "top_k": _top_k,
    "all": _all,
}
"""Which hidden states anchor two languages: the last, the most alike, the best window of them, the best few, all."""


def anchor_layers(kind: str, similarity_L: NDArray[np.float64], *, size: int = GROUP_SIZE) -> list[int]:
    """Hidden states to anchor, ascending, from how alike each is; `size` is that of `group` and `top_k`.

    An encoder with fewer hidden states has smaller groups. Ties go to the lower layer.
    """
    if kind not in ANCHOR_SETS:
        raise ValueError(f"no anchor set {kind!r}; known: {', '.join(ANCHOR_SETS)}")
    if size < 1:
        raise ValueError(f"a group has at least 1 layer, got {size}")
    return ANCHOR_SETS[kind](similarity_L, min(size, len(similarity_L)))


@dataclass(frozen=True, kw_only=True)
class AnchorOptions:
    """How a head is fitted to a labelled language and brought to another."""

    weight: float = 10.0
    """λ, the weight of CORAL beside the cross-entropy; 0 = source only."""
    projection: int = 64
    """P: covariances are of so many directions, which are learned with the head; fewer than there are clips."""

    def __post_init__(self) -> None:
        if self.weight < 0:
            raise ValueError(f"weight must be at least 0, got {self.weight}")
        if self.projection < 1:
            raise ValueError(f"projection must be at least 1, got {self.projection}")


class Move(NamedTuple):
    """Gives pooled statistics of one language the mean and the spread that each has in another.

    What is left between the two are covariances.
    """

    factor_LD: Tensor
    shift_LD: Tensor
    std_factor_LD: Tensor
    std_shift_LD: Tensor

    @staticmethod
    def between(own: PooledRows, other: PooledRows) -> Move:
        """The move from a language to another, by unlabelled clips of both, (N, L, D) and (M, L, D)."""
        found = []
        for name in ("mean_NLD", "std_NLD"):
            here, there = (getattr(part, name).float() for part in (own, other))
            factor_LD = there.std(0) / here.std(0).clamp_min(1e-8)
            found += [factor_LD, there.mean(0) - factor_LD * here.mean(0)]
        return Move(*found)

    def __call__(self, mean_BLD: Tensor, std_BLD: Tensor) -> tuple[Tensor, Tensor]:
        """Clips of the one, as they would be in the other, (B, L, D) twice."""
        return mean_BLD * self.factor_LD + self.shift_LD, std_BLD * self.std_factor_LD + self.std_shift_LD

    def to(self, device: torch.device) -> Move:
        """The same on a device."""
        return Move(*(part.to(device) for part in self))


def rescale(rows: PooledRows, own: PooledRows, other: PooledRows) -> PooledRows:
    """Rows of one language with the mean and the spread of another; `own` and `other` are unlabelled clips of both."""
    mean_NLD, std_NLD = Move.between(own, other)(rows.mean_NLD.float(), rows.std_NLD.float())
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
    anchors: Sequence[int],
    pool: LayerPool,
    options: AnchorOptions | None = None,
    probe: ProbeOptions | None = None,
) -> FitResult:
    """Fit a linear head on the anchors of a labelled language so that it holds for one without labels, or with few.

    `CE(softmax(W Qᵀ Σ_{l∈A} w_l x_l)) + λ · mean_{l∈A} CORAL(u_l Q, v_l Q)` with x the labelled clips' standardised
    statistics, of either language, u those of the source's and v those of the target's speech, labelled or not, w =
    softmax over the anchors, Q (U, P) with orthonormal columns. Q keeps the covariances of full rank, and CORAL from
    being lowered by mere shrinking; it comes out as a part of the head's weight. Full batch by L-BFGS from Q's
    principal directions: nothing random. `pool` brings the standardisation and is not changed.
    """
    options, probe = options or AnchorOptions(), probe or ProbeOptions()
    parts = (pool.standardise(part.mean_NLD, part.std_NLD) for part in (labelled, source, target))
    states = pool.centre_mean.shape[0]
    if not anchors or len(set(anchors)) < len(anchors) or not set(anchors) <= set(range(states)):
        raise ValueError(f"anchors must be some of the hidden states 0..{states - 1}, each once, got {list(anchors)}")
    labelled_NAU, source_NAU, target_MAU = (part_NLU[:, list(anchors)] for part_NLU in parts)
    rows_NU = torch.cat([source_NAU, target_MAU]).mean(1)
    basis_UP = principal_directions(rows_NU, options.projection).requires_grad_(True)
    head_PC = torch.zeros(basis_UP.shape[1], num_classes, requires_grad=True)
    bias_C = torch.zeros(num_classes, requires_grad=True)
    weight_A = torch.zeros(len(anchors), requires_grad=True)
    loss_of = class_loss(labelled, num_classes, balanced=probe.balanced)

    def objective() -> Tensor:
        direction_UP = torch.linalg.qr(basis_UP).Q
        mixed_NP = torch.einsum("a,nap->np", torch.softmax(weight_A, 0), labelled_NAU @ direction_UP)
        loss = loss_of(mixed_NP @ head_PC + bias_C)
        if options.weight:
            pairs = zip((source_NAU @ direction_UP).unbind(1), (target_MAU @ direction_UP).unbind(1), strict=True)
            loss = loss + options.weight * torch.stack([coral(*pair) for pair in pairs]).mean()
        return loss + (probe.l2 * head_PC.square().sum() + probe.layer_l2 * weight_A.square().sum()) / 2

    least, steps = minimise(objective, [basis_UP, head_PC, bias_C, weight_A], probe.max_steps)
    with torch.no_grad():
        fitted = LayerPool(*pool.centre_mean.shape, std_gain=pool.std_gain)
        fitted.load_state_dict(pool.state_dict())
        fitted.layer_weight.fill_(-torch.inf)
        fitted.layer_weight[list(anchors)] = weight_A
        head = Head(fitted.out_width, num_classes, dropout=0.0)
        head.output.weight.copy_((torch.linalg.qr(basis_UP).Q @ head_PC).T)
        head.output.bias.copy_(bias_C)
    return FitResult(pool=fitted.eval(), head=head.eval(), loss=least, steps=steps, dev_uar=None)


def information(probability_MC: Tensor) -> float:
    """How decided and how varied a model is on unlabelled clips, `H(mean p) - mean H(p)` in nats.

    The label-free criterion by which anchors and λ are chosen; mutual information of clip and class as the model sees
    them. Bridle et al. 1991, Unsupervised Classifiers, Mutual Information and Phantom Targets.
    """
    mean_C = probability_MC.double().mean(0)
    inner = torch.special.entr(probability_MC.double()).sum(1).mean()
    return float(torch.special.entr(mean_C).sum() - inner)


def principal_directions(row_NU: Tensor, count: int) -> Tensor:
    """The first principal directions of rows, (N, U) -> (U, P), P = count or fewer."""
    count = min(count, row_NU.shape[1], len(row_NU) - 1)
    directions: Tensor = torch.linalg.svd(row_NU - row_NU.mean(0), full_matrices=False).Vh
    return directions[:count].T.contiguous()


def _check_pair(source_ND: Tensor, target_MD: Tensor) -> int:
    if source_ND.ndim != 2 or target_MD.ndim != 2 or source_ND.shape[1] != target_MD.shape[1]:
        raise ValueError(
            f"expected rows (N, D) and (M, D) of one width, got {tuple(source_ND.shape)} and {tuple(target_MD.shape)}"
        )
    return source_ND.shape[1]
