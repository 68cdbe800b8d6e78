"""Similarity of layers in two languages: known answers, and the layer that was made alike is found."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import Tensor

from ser_models.alignment import Anchors, CoralQueue, align, coral, fit_anchored
from ser_models.fitting import FitOptions, PooledRows, PooledSet, fit_head, predict_pooled
from ser_models.heads import LayerPool
from ser_models.metrics import uar
from ser_models.similarity import (
    ANCHOR_SETS,
    BANDWIDTHS,
    SIMILARITIES,
    anchor_layers,
    centroid_cka,
    centroid_cosine,
    centroids,
    information,
    layer_similarity,
    mmd,
)

CLIPS, LAYERS, WIDTH, ALIKE = 60, 4, 6, 2


def rows(seed: int, *shape: int) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def turned(row_ND: Tensor, seed: int) -> Tensor:
    """The same rows in a rotated space."""
    return row_ND @ torch.linalg.qr(rows(seed, row_ND.shape[1], row_ND.shape[1]))[0]


def two_languages() -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Clips of four emotions whose features come together in one layer only, (N, L, D) twice, and their labels."""
    label_N = torch.arange(CLIPS) % 4
    stretch_D = torch.tensor([8.0, 4.0, 2.0, 1.0, 0.5, 0.25], dtype=torch.float64)
    emotion_CD = 3 * rows(0, 4, WIDTH)
    source = torch.stack([emotion_CD[label_N] + rows(10 + layer, CLIPS, WIDTH) for layer in range(LAYERS)], 1)
    target = torch.stack([emotion_CD[label_N] + rows(20 + layer, CLIPS, WIDTH) for layer in range(LAYERS)], 1)
    for layer in {*range(LAYERS)} - {ALIKE}:
        target[:, layer] = (turned(emotion_CD.flip(0)[label_N], layer) + rows(30 + layer, CLIPS, WIDTH)) * stretch_D + 5
    return source, target, label_N, label_N


def test_coral_is_zero_on_itself_and_grows_with_the_fourth_power_of_the_scale() -> None:
    source, target = rows(0, 50, 5), 2 * rows(1, 40, 5) + 3
    assert float(coral(source, source)) == 0
    assert float(coral(source, source + 7)) == pytest.approx(0, abs=1e-20)
    assert float(coral(3 * source, 3 * target)) == pytest.approx(81 * float(coral(source, target)))
    apart = np.cov(source.numpy().T) - np.cov(target.numpy().T)
    assert float(coral(source, target)) == pytest.approx(np.square(apart).sum() / (4 * 25))


def test_coral_brings_covariances_together_by_gradient() -> None:
    source, target = rows(0, 80, 3), rows(1, 80, 3) * torch.tensor([3.0, 1.0, 0.3], dtype=torch.float64)
    scale = torch.ones(3, dtype=torch.float64, requires_grad=True)
    optimiser = torch.optim.Adam([scale], lr=0.05)
    for _ in range(300):
        optimiser.zero_grad()
        coral(source, target * scale).backward()
        optimiser.step()
    torch.testing.assert_close((target * scale).std(0), source.std(0), rtol=0.1, atol=0)


def test_mmd_is_the_mean_of_kernels_without_the_diagonal() -> None:
    source, target = rows(0, 5, 3), rows(1, 4, 3) + 1
    every = torch.cat([source, target])
    median = float(np.sort([float((a - b).square().sum()) for i, a in enumerate(every) for b in every[:i]])[17])

    def mean(left: Tensor, right: Tensor, skip: bool) -> float:
        kernels = [
            sum(np.exp(-float((a - b).square().sum()) / (factor * median)) for factor in BANDWIDTHS)
            for i, a in enumerate(left)
            for j, b in enumerate(right)
            if not (skip and i == j)
        ]
        return float(np.mean(kernels))

    wanted = mean(source, source, True) + mean(target, target, True) - 2 * mean(source, target, False)
    assert float(mmd(source, target)) == pytest.approx(wanted)
    assert abs(float(mmd(rows(2, 300, 3), rows(3, 300, 3)))) < 0.02 < float(mmd(rows(2, 300, 3), rows(3, 300, 3) + 1))


def test_cosine_of_centroids_minds_a_rotation_and_cka_does_not() -> None:
    label_N = torch.arange(40) % 4
    source = 5 * rows(0, 4, 6)[label_N] + rows(1, 40, 6)
    emotions = centroids(source, label_N, torch.arange(4))
    torch.testing.assert_close(emotions.mean(0), torch.zeros(6, dtype=torch.float64))
    moved = 2 * turned(source, 2) + 1
    there = centroids(moved, label_N, torch.arange(4))
    assert float(centroid_cosine(emotions, centroids(3 * source - 1, label_N, torch.arange(4)))) == pytest.approx(1)
    assert float(centroid_cosine(emotions, there)) < 0.8
    assert float(centroid_cka(emotions, there)) == pytest.approx(1)
    other = rows(3, 4, 6) - rows(3, 4, 6).mean(0)
    x, y = emotions.numpy(), other.numpy()
    wanted = np.square(y.T @ x).sum() / (np.linalg.norm(x.T @ x) * np.linalg.norm(y.T @ y))
    assert float(centroid_cka(emotions, other)) == pytest.approx(wanted)


@pytest.mark.parametrize("kind", SIMILARITIES)
def test_the_layer_that_is_alike_is_found(kind: str) -> None:
    source, target, label_N, label_M = two_languages()
    similarity = layer_similarity(kind, source, target, source_label_N=label_N, target_label_M=label_M)
    assert similarity.shape == (LAYERS,)
    assert similarity.argmax() == ALIKE
    scaled = source.clone()
    scaled[:, 0] *= 50
    target[:, 0] *= 50
    again = layer_similarity(kind, scaled, target, source_label_N=label_N, target_label_M=label_M)
    np.testing.assert_allclose(again, similarity, rtol=1e-6)


def test_only_classes_of_both_languages_count() -> None:
    source, target, label_N, label_M = two_languages()
    similarity = layer_similarity("centroid_cka", source, target, source_label_N=label_N, target_label_M=label_M)
    alien = torch.cat([source, rows(9, 5, LAYERS, WIDTH)])
    labelled = torch.cat([label_N, torch.full((5,), 9)])
    # The alien clips move the common standardisation a little, and nothing else.
    again = layer_similarity("centroid_cka", alien, target, source_label_N=labelled, target_label_M=label_M)
    np.testing.assert_allclose(again, similarity, atol=0.02)
    with pytest.raises(ValueError, match="needs at least 2 classes that both languages have, got 0"):
        layer_similarity("centroid_cka", source, target, source_label_N=label_N, target_label_M=label_M + 4)


def test_anchor_sets_follow_the_similarity() -> None:
    similarity_L = np.array([0.1, 0.9, 0.2, 0.6, 0.7, 0.5, 0.3])
    wanted = {"last": [6], "single": [1], "group": [1, 2, 3, 4], "top_k": [1, 3, 4, 5], "all": [0, 1, 2, 3, 4, 5, 6]}
    assert {kind: anchor_layers(kind, similarity_L) for kind in ANCHOR_SETS} == wanted
    assert anchor_layers("group", similarity_L, size=2) == [3, 4]
    assert anchor_layers("group", similarity_L[:3]) == [0, 1, 2]
    assert anchor_layers("top_k", np.zeros(5), size=2) == [0, 1]


def source_and_target() -> tuple[PooledSet, PooledSet]:
    """Two emotions told by a weak feature in both languages, and in the source by a strong one that misleads there."""
    sets = []
    for seed, misleading in ((0, 1.0), (1, -1.0)):
        label_N = torch.arange(200) % 2
        sign_N = 2.0 * label_N - 1
        mean_NLD = rows(seed, 200, 3, 4).float()
        mean_NLD[:, 1:, 0] += 1.2 * sign_N[:, None]
        mean_NLD[:, 1:, 1] += 2.0 * sign_N[:, None]
        if misleading < 0:  # the feature is there, but means nothing, and varies with another
            mean_NLD[:, 1:, 1] = 3 * mean_NLD[:, 1:, 2] + rows(9, 200, 2).float()
        sets.append(PooledSet(mean_NLD=mean_NLD, std_NLD=torch.zeros_like(mean_NLD), label_N=label_N))
    return sets[0], sets[1]


def fitted_pool(*parts: PooledRows) -> LayerPool:
    pool = LayerPool(3, 4, std_gain=0)
    pool.fit(torch.cat([part.mean_NLD for part in parts]), torch.cat([part.std_NLD for part in parts]))
    return pool


def test_without_coral_and_in_full_width_it_is_the_plain_head() -> None:
    source, target = source_and_target()
    pool, options = fitted_pool(source, target), FitOptions(std_gain=0, max_steps=300)
    whole = Anchors(layers=range(3), weight=0, projection=4)
    ours = fit_anchored(source, source, target, 2, anchors=whole, pool=pool, options=options)
    theirs = fit_head(source, 2, pool=pool, options=options)
    assert ours.loss == pytest.approx(theirs.loss, abs=1e-4)
    probabilities = [predict_pooled(fit, target.mean_NLD, target.std_NLD).softmax(1) for fit in (ours, theirs)]
    torch.testing.assert_close(*probabilities, atol=0.02, rtol=0)


def test_anchoring_leaves_what_holds_in_one_language_only() -> None:
    source, target = source_and_target()
    pool = fitted_pool(source, target)
    similarities = {}
    for weight in (0.0, 300.0):
        anchors = Anchors(layers=[1, 2], weight=weight, projection=2)
        fit = fit_anchored(source, source, target, 2, anchors=anchors, pool=pool)
        assert fit.pool.layer_weight[0] == -torch.inf
        predicted_M = predict_pooled(fit, target.mean_NLD, target.std_NLD).argmax(1)
        similarities[weight] = uar(target.label_N.numpy(), predicted_M.numpy())
        again = fit_anchored(source, source, target, 2, anchors=anchors, pool=pool)
        assert torch.equal(again.head.output.weight, fit.head.output.weight)
    assert similarities[300.0] > similarities[0.0] + 0.1


def test_aligned_rows_have_the_other_languages_mean_and_spread() -> None:
    own, other = (PooledRows(mean_NLD=rows(s, 30, 2, 3) * s + 5, std_NLD=rows(s + 7, 30, 2, 3)) for s in (1, 2))
    moved = align(own, own, other)
    for name in ("mean_NLD", "std_NLD"):
        value, there = getattr(moved, name).double(), getattr(other, name)
        torch.testing.assert_close(value.mean(0), there.mean(0), atol=1e-4, rtol=0)
        torch.testing.assert_close(value.std(0), there.std(0), atol=1e-4, rtol=0)
    part = PooledRows(mean_NLD=own.mean_NLD[:4], std_NLD=own.std_NLD[:4])
    torch.testing.assert_close(align(part, own, other).mean_NLD, moved.mean_NLD[:4])


def test_information_is_that_of_a_decided_and_varied_model() -> None:
    assert information(torch.eye(4)) == pytest.approx(np.log(4))
    assert information(torch.full((5, 4), 0.25)) == pytest.approx(0)
    assert information(torch.tensor([[1.0, 0.0]] * 3)) == pytest.approx(0)


@pytest.mark.parametrize("anchors", [[], [0, 0], [3]])
def test_anchors_are_hidden_states(anchors: list[int]) -> None:
    source, target = source_and_target()
    with pytest.raises(ValueError, match=r"anchors must be some of the hidden states 0\.\.2, each once, got"):
        fit_anchored(source, source, target, 2, anchors=Anchors(layers=anchors), pool=fitted_pool(source))
    with pytest.raises(ValueError, match="weight must be at least 0"):
        Anchors(layers=[0], weight=-1)
    with pytest.raises(ValueError, match="projection must be at least 1"):
        Anchors(layers=[0], projection=0)


def test_what_cannot_be_compared_is_refused() -> None:
    source, target, label_N, _ = two_languages()
    with pytest.raises(ValueError, match="no similarity 'cka'; known: coral, mmd"):
        layer_similarity("cka", source, target)
    with pytest.raises(ValueError, match=r"of one encoder, got \(60, 4, 6\) and \(60, 3, 6\)"):
        layer_similarity("coral", source, target[:, 1:])
    with pytest.raises(ValueError, match="needs labels, or pseudo-labels, of both"):
        layer_similarity("centroid_cosine", source, target, source_label_N=label_N)
    with pytest.raises(ValueError, match="must be finite"):
        layer_similarity("coral", source * torch.nan, target)
    with pytest.raises(ValueError, match="no anchor set 'first'; known: last, single, group, top_k, all"):
        anchor_layers("first", np.zeros(3))
    with pytest.raises(ValueError, match="at least 1 layer, got 0"):
        anchor_layers("group", np.zeros(3), size=0)
    with pytest.raises(ValueError, match=r"of one width, got \(60, 6\) and \(60, 5\)"):
        coral(source[:, 0], target[:, 0, :5])
    with pytest.raises(ValueError, match="at least 2 clips, got 1"):
        coral(source[:1, 0], target[:, 0])
    with pytest.raises(ValueError, match="at least 2 clips of each, got 60 and 1"):
        mmd(source[:, 0], target[:1, 0])


def side_rows(count: int, seed: int, states: int = 3, width: int = 6) -> Tensor:
    return torch.randn(count, states, width, generator=torch.Generator().manual_seed(seed))


def test_the_queue_is_coral_of_all_clips_seen_with_gradients_of_the_batch() -> None:
    basis_UP = torch.linalg.qr(side_rows(6, 9, 1)[:, 0]).Q[:, :4]
    queue = CoralQueue(basis_UP, [0, 2], size=40)
    source, target = side_rows(24, 0), 2 * side_rows(24, 1)
    for begin in range(0, 16, 8):
        queue(source[begin : begin + 8], target[begin : begin + 8])
    batch = source[16:].clone().requires_grad_(True)
    loss = queue(batch, target[16:])
    expected = torch.stack([coral(source[:, a] @ basis_UP, target[:, a] @ basis_UP) for a in (0, 2)]).mean()
    torch.testing.assert_close(loss, expected)
    loss.backward()  # type: ignore[no-untyped-call]  # torch leaves Tensor.backward unannotated
    assert batch.grad is not None
    assert batch.grad[:, [0, 2]].abs().sum() > 0
    assert batch.grad[:, 1].abs().sum() == 0
    assert not queue.source_QAP.requires_grad
    for _ in range(3):
        queue(source[:8], target[:8])
    assert len(queue.source_QAP) == len(queue.target_QAP) == 40, "the oldest are forgotten"


def test_a_queue_goes_on_from_what_was_saved_and_waits_for_two_clips() -> None:
    basis_UP = torch.eye(6)
    one, two = CoralQueue(basis_UP, [1], size=30), CoralQueue(basis_UP, [1], size=30)
    assert float(one(side_rows(8, 0)[:0], side_rows(8, 1))) == 0.0
    one(side_rows(8, 2), side_rows(8, 3))
    two.remember(one.state_dict())
    assert torch.equal(one(side_rows(5, 4), side_rows(5, 5)), two(side_rows(5, 4), side_rows(5, 5)))
    one.eval()
    before = one.source_QAP.clone()
    one(side_rows(5, 6), side_rows(5, 7))
    assert torch.equal(one.source_QAP, before)
    with pytest.raises(ValueError, match="expected anchors and room for clips"):
        CoralQueue(basis_UP, [])


def test_labels_of_both_languages_are_learned_from_by_their_weight() -> None:
    source, target = source_and_target()
    pool = fitted_pool(source, target)
    few = PooledSet(mean_NLD=target.mean_NLD[:20], std_NLD=target.std_NLD[:20], label_N=target.label_N[:20])
    merged = {name: torch.cat([getattr(part, name) for part in (source, few)]) for name in ("mean_NLD", "std_NLD")}
    label_N = torch.cat([source.label_N, few.label_N])
    uar_of = {}
    for share in (0.0, 0.9):
        weight_N = torch.cat(
            [torch.full((len(part.label_N),), w) for part, w in ((source, 1 - share), (few, share * 10))]
        )
        both = PooledSet(**merged, label_N=label_N, weight_N=weight_N / weight_N.mean())
        anchors = Anchors(layers=range(3), weight=0, projection=4)
        fit = fit_anchored(both, source, target, 2, anchors=anchors, pool=pool)
        predicted_M = predict_pooled(fit, target.mean_NLD[20:], target.std_NLD[20:]).argmax(1)
        uar_of[share] = uar(target.label_N[20:].numpy(), predicted_M.numpy())
    assert uar_of[0.9] > uar_of[0.0] + 0.1
