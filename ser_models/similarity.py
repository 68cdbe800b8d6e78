"""Similarity of two languages in each hidden state of a speech encoder, and the hidden states that anchor them.

Upadhyay et al. 2024, arXiv 2407.04966. Differs from the paper, where the source is silent: the measures of similarity,
and the sizes of groups.
"""

# N, M clips of the two languages · L hidden states · D features · C classes
from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional

from ser_models.alignment import check_pair, coral
from ser_models.defaults import GROUP_SIZE

BANDWIDTHS = (0.25, 0.5, 1.0, 2.0, 4.0)
"""Widths of MMD's Gaussian kernels, as multiples of the median squared distance."""


def mmd(source_ND: Tensor, target_MD: Tensor) -> Tensor:
    """Squared maximum mean discrepancy, unbiased, under a sum of Gaussian kernels, a scalar that may be below 0.

    Gretton et al. 2012, JMLR 13, equation 3. Widths are BANDWIDTHS times the median squared distance of all clips.
    """
    check_pair(source_ND, target_MD)
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
    mean_CD = torch.stack([row_ND[label_N == label].mean(0) for label in classes])
    return mean_CD - mean_CD.mean(0)


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
    """A measure of likeness of a layer in two languages; larger is more alike."""

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
"""Anchors of two languages by name: the last hidden state, the most alike, the best window, the best few, all."""


def anchor_layers(kind: str, similarity_L: NDArray[np.float64], *, size: int = GROUP_SIZE) -> list[int]:
    """Hidden states to anchor, ascending, from how alike each is; `size` is that of `group` and `top_k`.

    An encoder with fewer hidden states has smaller groups. Ties go to the lower layer.
    """
    if kind not in ANCHOR_SETS:
        raise ValueError(f"no anchor set {kind!r}; known: {', '.join(ANCHOR_SETS)}")
    if size < 1:
        raise ValueError(f"a group has at least 1 layer, got {size}")
    return ANCHOR_SETS[kind](similarity_L, min(size, len(similarity_L)))


def information(probability_MC: Tensor) -> float:
    """Decidedness and variety of a model on unlabelled clips, `H(mean p) - mean H(p)` in nats.

    The label-free criterion by which anchors and λ are chosen; mutual information of clip and class as the model sees
    them. Bridle et al. 1991, Unsupervised Classifiers, Mutual Information and Phantom Targets.
    """
    mean_C = probability_MC.double().mean(0)
    inner = torch.special.entr(probability_MC.double()).sum(1).mean()
    return float(torch.special.entr(mean_C).sum() - inner)
