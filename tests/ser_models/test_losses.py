"""Losses against known answers and plain loops."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

import numpy as np
import pytest
import torch
from sklearn.metrics import log_loss, root_mean_squared_error
from sklearn.utils.class_weight import compute_class_weight

from ser_models.losses import (
    LOSSES,
    ConcordanceQueue,
    calibrated_cross_entropy,
    ccc,
    ccc_loss,
    class_distributions,
    class_weights,
    cross_entropy,
    focal_cross_entropy,
    multitask_loss,
    rmse_loss,
    soft_cross_entropy,
    weighted_classes,
)


def test_class_weights_follow_inverse_counts_and_average_to_one_over_the_clips() -> None:
    label_N = torch.tensor([0, 0, 0, 0, 2, 2, 3])
    weight_C = class_weights(label_N, 5)
    assert weight_C[1] == weight_C[4] == 0
    assert float(weight_C[2] / weight_C[0]) == pytest.approx(2)
    assert float(weight_C[3] / weight_C[0]) == pytest.approx(4)
    assert float(weight_C[label_N].mean()) == pytest.approx(1)


@pytest.mark.parametrize(
    ("labels", "message"), [([], "at least one label"), ([0, 3], r"0\.\.2, got 0\.\.3"), ([-1], r"got -1\.\.-1")]
)
def test_class_weights_refuse_labels_outside_the_classes(labels: list[int], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        class_weights(torch.tensor(labels, dtype=torch.long), 3)


def test_cross_entropy_is_the_weighted_mean_over_clips() -> None:
    generator = torch.Generator().manual_seed(0)
    logits_BC, label_B = torch.randn(6, 3, generator=generator), torch.tensor([0, 1, 2, 2, 1, 1])
    weight_C = torch.tensor([0.5, 1.0, 3.0])
    expected = sum(
        float(weight_C[label] * (torch.logsumexp(row, 0) - row[label]))
        for row, label in zip(logits_BC, label_B, strict=True)
    )
    assert float(cross_entropy(logits_BC, label_B, weight_C)) == pytest.approx(expected / 6, rel=1e-5)


def test_soft_labels_on_corners_equal_hard_ones() -> None:
    logits_BC, label_B = torch.randn(6, 3, generator=torch.Generator().manual_seed(1)), torch.tensor([0, 1, 2, 2, 1, 1])
    weight_C = torch.tensor([0.5, 1.0, 3.0])
    target_BC = torch.nn.functional.one_hot(label_B, 3).float()
    for weight in (None, weight_C):
        torch.testing.assert_close(
            soft_cross_entropy(logits_BC, target_BC, weight), cross_entropy(logits_BC, label_B, weight)
        )


def test_soft_cross_entropy_is_smallest_at_the_votes() -> None:
    votes_BC = torch.tensor([[0.2, 0.3, 0.5]])
    at_votes = soft_cross_entropy(votes_BC.log(), votes_BC)
    entropy = -(votes_BC * votes_BC.log()).sum()
    torch.testing.assert_close(at_votes, entropy)
    assert soft_cross_entropy(torch.zeros(1, 3), votes_BC) > at_votes


def test_soft_labels_must_match_the_logits() -> None:
    with pytest.raises(ValueError, match="must match logits"):
        soft_cross_entropy(torch.zeros(2, 3), torch.zeros(2, 4))


def test_ccc_known_answers() -> None:
    x = torch.randn(50, 2, generator=torch.Generator().manual_seed(2))
    torch.testing.assert_close(ccc(x, x), torch.ones(2))
    torch.testing.assert_close(ccc(-x + 2 * x.mean(0), x), -torch.ones(2))
    variance = x.var(0, correction=0)
    torch.testing.assert_close(ccc(x, x + 0.7), 2 * variance / (2 * variance + 0.49))
    assert float(ccc_loss(x, x)) == pytest.approx(0, abs=1e-6)


def test_ccc_of_constants_is_zero_with_a_finite_gradient() -> None:
    predicted = torch.zeros(4, 1, requires_grad=True)
    ccc_loss(predicted, torch.zeros(4, 1)).backward()
    assert predicted.grad is not None
    assert bool(torch.isfinite(predicted.grad).all())


def ratings(count: int, seed: int) -> tuple[torch.Tensor, torch.Tensor]:
    """Predictions and ratings of one dimension from a population whose CCC is .60."""
    target_N, noise_N = torch.randn(2, count, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)
    return (0.6 * target_N + 0.8 * noise_N)[:, None].float(), target_N[:, None].float()


def test_a_queue_judges_a_batch_with_past_clips_and_scales_its_gradient() -> None:
    queue = ConcordanceQueue(1, size=20)
    (x_NK, y_NK), parts = ratings(24, 0), (slice(0, 1), slice(1, 8), slice(8, 16), slice(16, 24))
    assert torch.equal(queue(x_NK[parts[0]], y_NK[parts[0]]), rmse_loss(x_NK[parts[0]], y_NK[parts[0]]))
    for part in parts[1:]:
        batch_BK = x_NK[part].clone().requires_grad_(True)
        loss = queue(batch_BK, y_NK[part])
        loss.backward()
        assert len(queue.target_QK) == min(20, part.stop)
        whole_NK = torch.cat([x_NK[part], queue.predicted_QK[len(batch_BK) :]]).requires_grad_(True)
        expected = ccc_loss(whole_NK, queue.target_QK)
        expected.backward()
        torch.testing.assert_close(loss, expected)
        share = len(batch_BK) / len(whole_NK)
        torch.testing.assert_close(batch_BK.grad * share, whole_NK.grad[: len(batch_BK)])
    again = ConcordanceQueue(1, size=20)
    again.remember(queue.state_dict())
    assert torch.equal(again(x_NK[:3], y_NK[:3]), queue(x_NK[:3], y_NK[:3]))
    before = queue.target_QK
    queue.eval()(x_NK[:3], y_NK[:3])
    assert queue.target_QK is before


def test_a_queue_is_near_to_the_population_where_single_batches_are_too_low() -> None:
    batches = list(zip(*(part.split(16) for part in ratings(16 * 4000, 0)), strict=True))
    alone = sum(float(1 - ccc_loss(*batch)) for batch in batches) / len(batches)
    queue = ConcordanceQueue(1)
    with_past = sum(float(1 - queue(*batch)) for batch in batches) / len(batches)
    assert alone == pytest.approx(0.56, abs=0.01)
    assert with_past == pytest.approx(0.59, abs=0.01)


def test_ccc_needs_two_rows() -> None:
    with pytest.raises(ValueError, match="at least 2 rows"):
        ccc(torch.zeros(1, 3), torch.zeros(1, 3))


def test_calibrated_cross_entropy_knows_no_scale_and_never_exceeds_the_plain_one() -> None:
    generator = torch.Generator().manual_seed(0)
    label_N = torch.randint(3, (200,), generator=generator)
    logits_NC = torch.randn(200, 3, generator=generator) + torch.nn.functional.one_hot(label_N, 3)
    plain, best = float(cross_entropy(logits_NC, label_N)), calibrated_cross_entropy(logits_NC, label_N)
    assert best <= plain
    assert calibrated_cross_entropy(4 * logits_NC, label_N) == pytest.approx(best, abs=1e-3)
    assert float(cross_entropy(4 * logits_NC, label_N)) > 1.5 * best


def test_focal_loss_follows_its_formula_and_is_cross_entropy_at_gamma_zero() -> None:
    generator = torch.Generator().manual_seed(0)
    logits_BC, label_B = torch.randn(9, 4, generator=generator), torch.randint(4, (9,), generator=generator)
    weight_C = torch.tensor([0.5, 1.0, 2.0, 1.5])
    p_B = torch.softmax(logits_BC, -1)[torch.arange(9), label_B]
    expected = (weight_C[label_B] * (1 - p_B) ** 2 * -p_B.log()).mean()
    torch.testing.assert_close(focal_cross_entropy(logits_BC, label_B, weight_C), expected)
    plain = focal_cross_entropy(logits_BC, label_B, weight_C, gamma=0.0)
    torch.testing.assert_close(plain, cross_entropy(logits_BC, label_B, weight_C))
    with pytest.raises(ValueError, match="gamma must be at least 0, got -1"):
        focal_cross_entropy(logits_BC, label_B, gamma=-1)


def test_focal_loss_has_a_finite_gradient_where_the_model_is_sure() -> None:
    logits_BC = torch.tensor([[60.0, 0.0], [0.0, 60.0]], requires_grad=True)
    focal_cross_entropy(logits_BC, torch.tensor([0, 0]), gamma=0.5).backward()
    assert bool(torch.isfinite(logits_BC.grad).all())


@pytest.mark.parametrize("name", LOSSES)
def test_every_loss_of_the_table_takes_hard_and_soft_labels(name: str) -> None:
    loss, generator = LOSSES[name], torch.Generator().manual_seed(0)
    logits_BC, label_B = torch.randn(9, 4, generator=generator), torch.randint(4, (9,), generator=generator)
    weight_C = torch.tensor([0.5, 1.0, 2.0, 1.5])
    assert loss.hard.__doc__, f"{name!r} has no docstring that says what it computes from hard labels"
    assert loss.soft.__doc__, f"{name!r} has no docstring that says what it computes from soft labels"
    target_BC = torch.nn.functional.one_hot(label_B, 4) * weight_C
    same = f"{name!r}: soft labels that are one-hot must lose as much as hard ones"
    assert float(loss.soft(logits_BC, target_BC)) == pytest.approx(float(loss.hard(logits_BC, label_B, weight_C))), same
    sure_BC = 60.0 * torch.nn.functional.one_hot(label_B, 4)
    assert float(loss.hard(sure_BC, label_B, None)) < 1e-6, f"{name!r} punishes a model that is right and sure"
    logits_BC.requires_grad_(True)
    loss.soft(logits_BC, target_BC).backward()
    assert logits_BC.grad is not None
    assert bool(torch.isfinite(logits_BC.grad).all()), f"{name!r} has no finite gradient"
    with pytest.raises(ValueError, match="must match logits"):
        loss.soft(logits_BC, target_BC[:3])


def test_rmse_by_dimension() -> None:
    predicted, target = torch.tensor([[1.0, 0.0], [3.0, 0.0]]), torch.tensor([[0.0, 0.0], [0.0, 0.0]])
    assert float(rmse_loss(predicted, target)) == pytest.approx(5**0.5 / 2, abs=1e-5)
    perfect = target.clone().requires_grad_(True)
    rmse_loss(perfect, target).backward()
    assert bool(torch.isfinite(perfect.grad).all())
    with pytest.raises(ValueError, match=r"\(2, 2\) and \(1, 2\)"):
        rmse_loss(predicted, target[:1])


def test_class_weights_and_cross_entropy_against_scikit_learn() -> None:
    generator = torch.Generator().manual_seed(3)
    label_N = torch.randint(4, (80,), generator=generator)
    logits_NC = torch.randn(80, 4, generator=generator)
    weight_C = class_weights(label_N, 4)
    balanced_C = compute_class_weight("balanced", classes=np.arange(4), y=label_N.numpy())
    assert weight_C.tolist() == pytest.approx(balanced_C.tolist())
    probability_NC = torch.softmax(logits_NC.double(), -1).numpy()
    expected = log_loss(label_N.numpy(), probability_NC, sample_weight=balanced_C[label_N.numpy()])
    assert float(cross_entropy(logits_NC, label_N, weight_C)) == pytest.approx(expected, rel=1e-5)


def test_rmse_against_scikit_learn() -> None:
    generator = torch.Generator().manual_seed(4)
    predicted, target = torch.randn(20, 3, generator=generator), torch.randn(20, 3, generator=generator)
    expected = root_mean_squared_error(target.numpy(), predicted.numpy())
    assert float(rmse_loss(predicted, target)) == pytest.approx(expected, rel=1e-5)


@pytest.mark.parametrize("loss", [cross_entropy, focal_cross_entropy])
@pytest.mark.parametrize(
    ("rows", "labels", "weights", "message"),
    [
        (2, [0, 3], None, r"labels must lie in 0\.\.2, got 0\.\.3"),
        (2, [-100, 1], None, r"labels must lie in 0\.\.2, got -100\.\.1"),
        (0, [], None, r"at least one clip, got \(0, 3\)"),
        (2, [0, 1, 2], None, r"2 clips need as many labels, got shape \(3,\)"),
        (2, [0, 1], [1.0], r"3 classes need as many weights, got shape \(1,\)"),
    ],
)
def test_hard_labels_that_do_not_fit_are_refused(
    loss: Callable[..., torch.Tensor], rows: int, labels: list[int], weights: list[float] | None, message: str
) -> None:
    weight_C = None if weights is None else torch.tensor(weights)
    with pytest.raises(ValueError, match=message):
        loss(torch.zeros(rows, 3), torch.tensor(labels, dtype=torch.long), weight_C)


def test_soft_labels_of_an_empty_batch_or_with_weights_that_do_not_fit_are_refused() -> None:
    with pytest.raises(ValueError, match=r"at least one clip, got \(0, 3\)"):
        soft_cross_entropy(torch.zeros(0, 3), torch.zeros(0, 3))
    with pytest.raises(ValueError, match=r"3 classes need as many weights, got shape \(1,\)"):
        soft_cross_entropy(torch.zeros(2, 3), torch.zeros(2, 3), torch.ones(1))


@pytest.mark.parametrize("loss", [ccc_loss, rmse_loss])
@pytest.mark.parametrize(("shape", "other"), [((0, 3), (0, 3)), ((4, 3), (4, 2)), ((4, 0), (4, 0)), ((4, 3), (1, 3))])
def test_ratings_that_do_not_fit_are_refused(
    loss: Callable[..., torch.Tensor], shape: tuple[int, int], other: tuple[int, int]
) -> None:
    with pytest.raises(ValueError, match=rf"got \({shape[0]}, {shape[1]}\) and \({other[0]}, {other[1]}\)"):
        loss(torch.zeros(shape), torch.zeros(other))


def batch(seed: int = 5) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor, torch.Tensor]:
    """Six clips: logits of three classes, labels, predictions and ratings of two dimensions."""
    generator = torch.Generator().manual_seed(seed)
    logits_BC, label_B = torch.randn(6, 3, generator=generator), torch.tensor([0, 1, 2, 2, 1, 0])
    return logits_BC, label_B, torch.randn(6, 2, generator=generator), torch.randn(6, 2, generator=generator)


def test_multi_task_is_the_weighted_sum_of_both() -> None:
    logits_BC, label_B, predicted_BK, target_BK = batch()
    weight_C = torch.tensor([0.5, 1.0, 3.0])
    loss = multitask_loss(
        *batch(),
        class_loss=partial(cross_entropy, weight_C=weight_C),
        dimension_loss=rmse_loss,
        dimension_weight=0.3,
    )
    expected = cross_entropy(logits_BC, label_B, weight_C) + 0.3 * rmse_loss(predicted_BK, target_BK)
    torch.testing.assert_close(loss, expected)
    default = cross_entropy(logits_BC, label_B) + ccc_loss(predicted_BK, target_BK)
    torch.testing.assert_close(multitask_loss(*batch()), default)


def test_what_stands_in_rows_without_a_label_is_never_looked_at() -> None:
    labelled_B = torch.tensor([True, True, True, False, False, True])
    rated_B = torch.tensor([False, True, False, True, True, False])
    clean = batch()
    expected = cross_entropy(clean[0][labelled_B], clean[1][labelled_B])
    expected = expected + ccc_loss(clean[2][rated_B], clean[3][rated_B])
    logits_BC, label_B, predicted_BK, target_BK = batch()
    label_B[~labelled_B], target_BK[~rated_B] = -1, torch.nan
    logits_BC.requires_grad_()
    predicted_BK.requires_grad_()
    loss = multitask_loss(logits_BC, label_B, predicted_BK, target_BK, labelled_B=labelled_B, rated_B=rated_B)
    torch.testing.assert_close(loss, expected)
    loss.backward()
    assert logits_BC.grad is not None
    assert predicted_BK.grad is not None
    assert torch.equal(logits_BC.grad.any(1), labelled_B)
    assert torch.equal(predicted_BK.grad.any(1), rated_B)
    target_BK[1] = torch.nan
    assert bool(multitask_loss(logits_BC, label_B.clamp_min(0), predicted_BK, target_BK, rated_B=rated_B).isnan())


def test_a_batch_with_one_kind_of_label_has_that_part_only() -> None:
    none_B = torch.zeros(6, dtype=torch.bool)
    logits_BC, label_B, predicted_BK, target_BK = batch()
    torch.testing.assert_close(multitask_loss(*batch(), rated_B=none_B), cross_entropy(logits_BC, label_B))
    torch.testing.assert_close(multitask_loss(*batch(), labelled_B=none_B), ccc_loss(predicted_BK, target_BK))
    with pytest.raises(ValueError, match="a batch of 6 without any"):
        multitask_loss(*batch(), labelled_B=none_B, rated_B=none_B)


def test_multi_task_refuses_what_does_not_fit() -> None:
    logits_BC, label_B, predicted_BK, target_BK = batch()
    one_B = torch.arange(6) == 2
    with pytest.raises(ValueError, match=r"at least 2 rows, got \(1, 2\)"):
        multitask_loss(*batch(), rated_B=one_B)
    assert bool(torch.isfinite(multitask_loss(*batch(), rated_B=one_B, dimension_loss=rmse_loss)))
    with pytest.raises(ValueError, match=r"0\.\.2, got 1\.\.3"):
        multitask_loss(logits_BC, label_B + 1, predicted_BK, target_BK)
    with pytest.raises(ValueError, match="a batch of 0 without any"):
        multitask_loss(logits_BC[:0], label_B[:0], predicted_BK[:0], target_BK[:0])
    with pytest.raises(ValueError, match=r"one batch, got \[6, 6, 5, 6\]"):
        multitask_loss(logits_BC, label_B, predicted_BK[:5], target_BK)
    with pytest.raises(ValueError, match=r"6 booleans, got \(6,\) of torch\.int64"):
        multitask_loss(*batch(), labelled_B=label_B)
    with pytest.raises(ValueError, match="dimension_weight must be at least 0, got -1"):
        multitask_loss(*batch(), dimension_weight=-1)


def test_a_clip_of_weight_two_counts_as_two_clips() -> None:
    label_N, weight_N = torch.tensor([0, 0, 1, 2]), torch.tensor([1.0, 1.0, 2.0, 1.0])
    twice_N = torch.tensor([0, 0, 1, 1, 2])
    torch.testing.assert_close(class_weights(label_N, 4, weight_N), class_weights(twice_N, 4))
    hot_NC = weighted_classes(label_N, 4, weight_N)
    torch.testing.assert_close(hot_NC.sum(0), weighted_classes(twice_N, 4).sum(0))
    assert hot_NC[2].tolist() == pytest.approx([0, 2 * 5 / (3 * 2), 0, 0])


def test_clips_of_no_class_have_no_target() -> None:
    hot_NC = weighted_classes(torch.tensor([1, -1, 0]), 2)
    assert hot_NC.tolist() == [[0, 1], [0, 0], [1, 0]]
    assert weighted_classes(torch.tensor([1, -1]), 0).shape == (2, 0)


def votes(clips: int, classes: int, seed: int) -> torch.Tensor:
    """Shares of five votes each, (N, C)."""
    vote_NV = torch.randint(classes, (clips, 5), generator=torch.Generator().manual_seed(seed))
    return torch.nn.functional.one_hot(vote_NV, classes).float().mean(1)


def test_soft_labels_have_the_loss_and_the_gradient_of_torch() -> None:
    soft_NC = votes(40, 4, 0)
    label_N = soft_NC.argmax(1)
    logits_NC = torch.randn(40, 4, generator=torch.Generator().manual_seed(1))
    ours, theirs = (logits_NC.clone().requires_grad_() for _ in range(2))
    weight_C = 40 / (4 * soft_NC.sum(0))
    loss = soft_cross_entropy(ours, weighted_classes(label_N, 4, None, soft_NC))
    oracle = torch.nn.functional.cross_entropy(theirs, soft_NC, weight=weight_C, reduction="sum") / 40
    torch.testing.assert_close(loss, oracle)
    torch.testing.assert_close(torch.autograd.grad(loss, ours), torch.autograd.grad(oracle, theirs))
    own_N = torch.rand(40, generator=torch.Generator().manual_seed(2))
    target_NC = weighted_classes(label_N, 4, own_N, soft_NC)
    torch.testing.assert_close(target_NC.sum(0), (own_N.sum() / 4).expand(4), msg="no class counts more than another")


def test_sure_soft_labels_are_hard_ones_and_rows_of_nan_have_their_label() -> None:
    label_N, own_N = torch.tensor([2, 0, 0, 1, -1, 2]), torch.tensor([1.0, 2, 0.5, 1, 1, 1])
    hot_NC = torch.nn.functional.one_hot(label_N.clamp_min(0), 4).float()
    sure_NC = torch.where(label_N[:, None] < 0, torch.nan, hot_NC)
    some_NC = torch.where(torch.arange(6)[:, None] % 2 == 0, sure_NC, torch.nan)
    for weight_N in (None, own_N):
        hard_NC = weighted_classes(label_N, 4, weight_N)
        for soft_NC in (sure_NC, some_NC, torch.full((6, 4), torch.nan)):
            torch.testing.assert_close(weighted_classes(label_N, 4, weight_N, soft_NC), hard_NC)


def test_soft_labels_that_are_no_distributions_are_named() -> None:
    label_N = torch.tensor([0, 1, 1])
    for bad in ([0.5, 0.4], [1.5, -0.5], [1.0, torch.nan]):
        soft_NC = torch.tensor([[0.5, 0.5], bad, [torch.nan, torch.nan]])
        with pytest.raises(ValueError, match=r"row\(s\) \[1\] are no distributions"):
            class_distributions(label_N, 2, soft_NC)
    with pytest.raises(ValueError, match=r"3 clips and 3 classes, got \(3, 2\)"):
        class_distributions(label_N, 3, torch.full((3, 2), 0.5))
