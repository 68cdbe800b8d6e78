"""Pooling against a loop over clips, and one contract for every kind: indifference to padding and batch mates."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from ser_models.build import build_model, load_model, save_model, use_pooling
from ser_models.defaults import MEAN_STD
from ser_models.encoders import load_encoder
from ser_models.pooling import (
    POOLINGS,
    AttentiveStatistics,
    Pool,
    StatePooling,
    make_pooling,
    masked_mean_std,
    mean_std,
    relu_mean,
    weighted_layer_sum,
)


def frames(generator_seed: int = 0) -> tuple[torch.Tensor, torch.Tensor]:
    generator = torch.Generator().manual_seed(generator_seed)
    hidden_LBTD = torch.randn(3, 4, 9, 5, generator=generator)
    mask_BT = torch.arange(9) < torch.tensor([9, 4, 1, 6])[:, None]
    return hidden_LBTD, mask_BT


def test_equals_each_clip_pooled_alone() -> None:
    hidden_LBTD, mask_BT = frames()
    mean_LBD, std_LBD = masked_mean_std(hidden_LBTD, mask_BT)
    for clip, frame_count in enumerate([9, 4, 1, 6]):
        real_LTD = hidden_LBTD[:, clip, :frame_count]
        torch.testing.assert_close(mean_LBD[:, clip], real_LTD.mean(1))
        torch.testing.assert_close(std_LBD[:, clip], real_LTD.std(1, correction=0), atol=2e-5, rtol=1e-5)


@pytest.mark.parametrize("junk", [0.0, 1e6, float("nan"), float("inf")])
def test_padding_has_no_influence_whatever_it_holds(junk: float) -> None:
    hidden_LBTD, mask_BT = frames()
    expected = masked_mean_std(hidden_LBTD, mask_BT)
    padded = torch.cat([hidden_LBTD.masked_fill(~mask_BT[None, :, :, None], junk), torch.full((3, 4, 7, 5), junk)], 2)
    longer_mask = torch.cat([mask_BT, torch.zeros(4, 7, dtype=torch.bool)], 1)
    for actual, wanted in zip(masked_mean_std(padded, longer_mask), expected, strict=True):
        torch.testing.assert_close(actual, wanted)


def test_batch_mates_have_no_influence() -> None:
    hidden_LBTD, mask_BT = frames()
    mean_LBD, std_LBD = masked_mean_std(hidden_LBTD, mask_BT)
    order = torch.tensor([2, 0, 3, 1])
    shuffled_mean, shuffled_std = masked_mean_std(hidden_LBTD[:, order], mask_BT[order])
    torch.testing.assert_close(shuffled_mean, mean_LBD[:, order])
    torch.testing.assert_close(shuffled_std, std_LBD[:, order])


def test_keeps_its_digits_when_the_mean_dwarfs_the_deviation() -> None:
    hidden_LBTD, mask_BT = frames()
    _, small = masked_mean_std(hidden_LBTD * 0.5, mask_BT)
    _, shifted = masked_mean_std(hidden_LBTD * 0.5 + 1000, mask_BT)
    torch.testing.assert_close(shifted, small, atol=1e-3, rtol=1e-3)


def test_half_precision_frames_are_pooled_in_single_precision() -> None:
    hidden_LBTD = torch.full((1, 1, 4000, 1), 50.0, dtype=torch.float16)
    mean_LBD, _ = masked_mean_std(hidden_LBTD, torch.ones(1, 4000, dtype=torch.bool))
    assert mean_LBD.dtype == torch.float32
    assert float(mean_LBD) == 50.0


def test_gradient_is_finite_where_a_clip_has_one_frame_and_where_padding_is_nan() -> None:
    hidden_LBTD, mask_BT = frames()
    hidden_LBTD = hidden_LBTD.masked_fill(~mask_BT[None, :, :, None], float("nan")).requires_grad_()
    mean_LBD, std_LBD = masked_mean_std(hidden_LBTD, mask_BT)
    (mean_LBD.sum() + std_LBD.sum()).backward()
    assert hidden_LBTD.grad is not None
    assert bool(torch.isfinite(hidden_LBTD.grad).all())


def test_a_clip_without_frames_is_named() -> None:
    hidden_LBTD, mask_BT = frames()
    mask_BT[2] = False
    with pytest.raises(ValueError, match=r"clip\(s\) \[2\] of a batch of 4"):
        masked_mean_std(hidden_LBTD, mask_BT)


def test_equal_weights_are_the_mean_and_a_dominant_one_its_layer() -> None:
    hidden_LBTD, _ = frames()
    torch.testing.assert_close(weighted_layer_sum(hidden_LBTD, torch.zeros(3)), hidden_LBTD.mean(0))
    torch.testing.assert_close(weighted_layer_sum(hidden_LBTD, torch.tensor([0.0, 100.0, 0.0])), hidden_LBTD[1])


def test_one_weight_per_layer() -> None:
    with pytest.raises(ValueError, match="3 layers need as many weights"):
        weighted_layer_sum(frames()[0], torch.zeros(2))


def attentive(width: int = 5) -> AttentiveStatistics:
    return AttentiveStatistics(width, 7, generator=torch.Generator().manual_seed(3))


@torch.no_grad()
def test_attention_with_equal_scores_is_the_plain_mean_and_deviation() -> None:
    hidden_LBTD, mask_BT = frames()
    mean_LBD, std_LBD = masked_mean_std(hidden_LBTD, mask_BT)
    pooled = attentive()(hidden_LBTD[0], mask_BT)
    torch.testing.assert_close(pooled, torch.cat([mean_LBD[0], std_LBD[0]], -1), atol=2e-5, rtol=1e-5)


@torch.no_grad()
def test_attention_weighs_frames_by_its_formula_and_never_sees_padding() -> None:
    hidden_LBTD, mask_BT = frames()
    pool = attentive()
    pool.score.weight.copy_(torch.randn(1, 7, generator=torch.Generator().manual_seed(4)))
    pooled = pool(hidden_LBTD[0].masked_fill(~mask_BT[..., None], float("nan")), mask_BT)
    for clip, count in enumerate([9, 4, 1, 6]):
        real_TD = hidden_LBTD[0, clip, :count]
        weight_T1 = torch.softmax(pool.score(torch.tanh(pool.project(real_TD))), 0)
        mean_D = (weight_T1 * real_TD).sum(0)
        std_D = (weight_T1 * (real_TD - mean_D) ** 2).sum(0).clamp_min(1e-10).sqrt()
        torch.testing.assert_close(pooled[clip], torch.cat([mean_D, std_D]), atol=2e-5, rtol=1e-5)


def test_attention_learns_and_a_single_frame_does_not_break_it() -> None:
    hidden_LBTD, mask_BT = frames()
    pool = attentive()
    pool(hidden_LBTD[0], mask_BT).square().sum().backward()
    assert all(torch.isfinite(parameter.grad).all() for parameter in pool.parameters())
    assert bool(pool.score.weight.grad.any())


def test_relu_mean_against_a_loop() -> None:
    hidden_LBTD, mask_BT = frames()
    expected = [hidden_LBTD[0, clip, :count].clamp(min=0).mean(0) for clip, count in enumerate([9, 4, 1, 6])]
    torch.testing.assert_close(relu_mean(hidden_LBTD[0], mask_BT), torch.stack(expected))


@torch.no_grad()
def test_mean_std_is_one_layer_of_the_masked_statistics() -> None:
    hidden_LBTD, mask_BT = frames()
    mean_LBD, std_LBD = masked_mean_std(hidden_LBTD, mask_BT)
    torch.testing.assert_close(mean_std(hidden_LBTD[1], mask_BT), torch.cat([mean_LBD[1], std_LBD[1]], -1))


def pooling(kind: str) -> Pool:
    """A pooling for frames 5 wide whose parameters, if any, differ from their start."""
    generator = torch.Generator().manual_seed(3)
    pool, _ = make_pooling(kind, 5, generator)
    if isinstance(pool, torch.nn.Module):
        with torch.no_grad():
            for parameter in pool.parameters():
                parameter.add_(torch.randn(parameter.shape, generator=generator))
    return pool


@pytest.mark.parametrize("junk", [1e6, float("nan"), float("inf")])
@pytest.mark.parametrize("kind", POOLINGS)
def test_no_pooling_hears_padding_whatever_it_holds(kind: str, junk: float) -> None:
    hidden_LBTD, mask_BT = frames()
    pool, gradients, outputs = pooling(kind), [], []
    for fill, extra in ((0.0, 0), (junk, 6)):
        padded = torch.cat([hidden_LBTD[0].masked_fill(~mask_BT[..., None], fill), torch.full((4, extra, 5), fill)], 1)
        longer_mask = torch.cat([mask_BT, torch.zeros(4, extra, dtype=torch.bool)], 1)
        padded.requires_grad_()
        pooled = pool(padded, longer_mask)
        outputs.append(pooled.detach())
        pooled.square().sum().backward()
        assert padded.grad is not None
        assert not bool(padded.grad[~longer_mask].any()), "padding gets no gradient"
        gradients.append(padded.grad[:, :9])
    assert bool(torch.isfinite(gradients[1]).all())
    torch.testing.assert_close(outputs[1], outputs[0])
    torch.testing.assert_close(gradients[1], gradients[0])


@torch.no_grad()
@pytest.mark.parametrize("kind", POOLINGS)
def test_no_pooling_hears_batch_mates_and_its_width_is_as_announced(kind: str) -> None:
    hidden_LBTD, mask_BT = frames()
    pool, (_, width) = pooling(kind), make_pooling(kind, 5, torch.Generator())
    pooled = pool(hidden_LBTD[0], mask_BT)
    assert pooled.shape == (4, width)
    for clip, count in enumerate([9, 4, 1, 6]):
        alone = pool(hidden_LBTD[0, clip : clip + 1, :count], mask_BT[clip : clip + 1, :count])
        torch.testing.assert_close(alone[0], pooled[clip])


@pytest.mark.parametrize("kind", POOLINGS)
def test_every_pooling_refuses_a_clip_without_frames_an_empty_batch_and_a_mask_that_does_not_fit(kind: str) -> None:
    hidden_LBTD, mask_BT = frames()
    pool = pooling(kind)
    with pytest.raises(ValueError, match=r"need a mask \(B, T\), got \(4, 1\)"):
        pool(hidden_LBTD[0], mask_BT[:, :1])
    with pytest.raises(ValueError, match="of a batch of 0"):
        pool(hidden_LBTD[0, :0], mask_BT[:0])
    mask_BT[1] = False
    with pytest.raises(ValueError, match=r"clip\(s\) \[1\] of a batch of 4"):
        pool(hidden_LBTD[0], mask_BT)


@torch.no_grad()
@pytest.mark.parametrize("kind", POOLINGS)
def test_a_model_may_pool_its_upper_states_in_any_way(kind: str, tmp_path: Path) -> None:
    encoder = load_encoder("seral-tiny")
    model = build_model(encoder, ["anger", "neutral"]).eval()
    use_pooling(model, kind, start=2)
    for parameter in model.parameters():
        parameter.add_(0.1 * torch.randn(parameter.shape, generator=torch.Generator().manual_seed(0)))
    wave_BS = 0.1 * torch.randn(2, 9_000, generator=torch.Generator().manual_seed(1))
    length_B = torch.tensor([9_000, 6_000])
    output = encoder(wave_BS, length_B)
    mean_LBD, std_LBD = masked_mean_std(output.hidden_LBTD, output.mask_BT)
    below = {"below_mean_LBD": mean_LBD[:2], "below_std_LBD": std_LBD[:2]}
    from_frames = model.statistics_from(output.hidden_LBTD[2], output.mask_BT, start=2, **below)
    torch.testing.assert_close(model.forward_pooled(*from_frames), model(wave_BS, length_B), atol=1e-4, rtol=1e-4)
    torch.testing.assert_close(from_frames[0][:, :2], mean_LBD[:2].transpose(0, 1))
    assert torch.allclose(from_frames[0][:, 2:], mean_LBD[2:].transpose(0, 1)) == (kind == MEAN_STD)
    save_model(model, tmp_path)
    assert torch.equal(load_model(tmp_path, encoder).eval()(wave_BS, length_B), model(wave_BS, length_B))
    assert ("pooling" in (tmp_path / "model.json").read_text()) == (kind != MEAN_STD)


def test_attentive_pooling_starts_as_the_mean_and_standard_deviation() -> None:
    hidden_LBTD, mask_BT = frames()
    pooled = StatePooling("attentive", 5, range(1, 3))(hidden_LBTD, mask_BT, start=0)
    for part, expected in zip(pooled, masked_mean_std(hidden_LBTD, mask_BT), strict=True):
        torch.testing.assert_close(part, expected)


def test_an_unknown_pooling_lists_the_known() -> None:
    with pytest.raises(ValueError, match="no pooling 'max'; known: mean_std, relu_mean, attentive"):
        make_pooling("max", 5, torch.Generator())
