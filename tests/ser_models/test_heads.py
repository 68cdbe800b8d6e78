"""LayerPool and the head on generated statistics."""

from __future__ import annotations

import pytest
import torch

from ser_models.build import build_model
from ser_models.encoders import load_encoder
from ser_models.heads import Head, LayerPool, stack_heads


def statistics(rows: int = 40) -> tuple[torch.Tensor, torch.Tensor]:
    generator = torch.Generator().manual_seed(0)
    scale_L11 = torch.tensor([1.0, 10.0, 100.0])[None, :, None]
    mean_NLD = torch.randn(rows, 3, 6, generator=generator) * scale_L11 + scale_L11
    std_NLD = torch.rand(rows, 3, 6, generator=generator) * scale_L11
    return mean_NLD, std_NLD


@pytest.mark.parametrize(("std_gain", "width"), [(0.0, 6), (0.4, 12)])
def test_fit_brings_every_layer_to_one_scale(std_gain: float, width: int) -> None:
    mean_NLD, std_NLD = statistics()
    pool = LayerPool(3, 6, std_gain=std_gain)
    pool.fit(mean_NLD, std_NLD)
    standard_NLU = pool.standardise(mean_NLD, std_NLD)
    assert standard_NLU.shape == (40, 3, width)
    assert pool.out_width == width
    torch.testing.assert_close(standard_NLU.mean(0), torch.zeros(3, width), atol=1e-5, rtol=0)
    expected = torch.ones(3, width)
    expected[:, 6:] = std_gain
    torch.testing.assert_close(standard_NLU.std(0, correction=0), expected)


def test_uniform_start_is_the_plain_mean_of_the_layers() -> None:
    mean_NLD, std_NLD = statistics()
    pool = LayerPool(3, 6)
    pool.fit(mean_NLD, std_NLD)
    torch.testing.assert_close(pool(mean_NLD, std_NLD), pool.standardise(mean_NLD, std_NLD).mean(1))


def test_a_dead_dimension_is_not_blown_up() -> None:
    mean_NLD, std_NLD = statistics()
    mean_NLD[:, 1, 2] = 5 + 1e-6 * torch.randn(40, generator=torch.Generator().manual_seed(1))
    pool = LayerPool(3, 6)
    pool.fit(mean_NLD, std_NLD)
    assert float(pool.standardise(mean_NLD, std_NLD)[:, 1, 2].abs().max()) < 0.01


def test_a_dimension_that_flares_on_one_clip_is_bounded() -> None:
    """Nearly dead where the standardisation was made, a thousand deviations away on a later clip."""
    mean_NLD, std_NLD = statistics()
    pool = LayerPool(3, 6)
    pool.fit(mean_NLD, std_NLD)
    usual_NLU = pool.standardise(mean_NLD, std_NLD)
    mean_NLD[0, 1, 2] += 1000 * mean_NLD[:, 1, 2].std()
    std_NLD[1, 0, 3] -= 1000 * std_NLD[:, 0, 3].std()
    flared_NLU = pool.standardise(mean_NLD, std_NLD)
    assert flared_NLU[0, 1, 2] == 10
    assert flared_NLU[1, 0, 6 + 3] == pytest.approx(-10 * pool.std_gain)
    assert int((flared_NLU != usual_NLU).sum()) == 2


def test_a_row_does_not_depend_on_its_batch() -> None:
    mean_NLD, std_NLD = statistics()
    pool = LayerPool(3, 6)
    pool.fit(mean_NLD, std_NLD)
    torch.testing.assert_close(pool(mean_NLD[:1], std_NLD[:1]), pool(mean_NLD, std_NLD)[:1])


def test_wrong_sizes_say_what_was_expected() -> None:
    mean_NLD, std_NLD = statistics()
    with pytest.raises(ValueError, match=r"means must be \(clips, 4, 6\), got \(40, 3, 6\)"):
        LayerPool(4, 6)(mean_NLD, std_NLD)
    with pytest.raises(ValueError, match="at least 2 clips, got 1"):
        LayerPool(3, 6).fit(mean_NLD[:1], std_NLD[:1])


def test_head_starts_undecided_and_leaves_the_global_generator_alone() -> None:
    before = torch.random.get_rng_state()
    linear = Head(6, 4).eval()
    deep = Head(6, 4, hidden=8, generator=torch.Generator().manual_seed(0)).eval()
    assert torch.equal(torch.random.get_rng_state(), before)
    for head in (linear, deep):
        torch.testing.assert_close(head(torch.randn(5, 6, generator=torch.Generator())), torch.zeros(5, 4))


def test_hidden_layer_is_drawn_from_the_given_generator() -> None:
    first, again = (Head(6, 4, hidden=8, generator=torch.Generator().manual_seed(3)) for _ in range(2))
    assert first.hidden is not None
    assert again.hidden is not None
    torch.testing.assert_close(first.hidden.weight, again.hidden.weight, atol=0, rtol=0)
    with pytest.raises(ValueError, match=r"torch\.Generator"):
        Head(6, 4, hidden=8)


@pytest.mark.parametrize("wrong", [{"hidden": -1}, {"dropout": 1.0}, {"std_gain": -0.1}])
def test_options_name_the_wrong_field(wrong: dict[str, float]) -> None:
    with pytest.raises(ValueError, match=f"{next(iter(wrong))} must"):
        build_model(load_encoder("seral-tiny"), ["anger"], **wrong)  # type: ignore[arg-type]  # one field of either type


def lively_head(outputs: int, seed: int, in_width: int = 6) -> Head:
    head = Head(in_width, outputs).eval()
    with torch.no_grad():
        for parameter in head.parameters():
            parameter.copy_(torch.randn(parameter.shape, generator=torch.Generator().manual_seed(seed)))
    return head


@torch.no_grad()
def test_a_stack_of_heads_says_what_each_says() -> None:
    classes, dimensions = lively_head(4, 0), lively_head(3, 1)
    embedding_BU = torch.randn(5, 6, generator=torch.Generator().manual_seed(2))
    expected = torch.cat([classes(embedding_BU), dimensions(embedding_BU)], -1)
    torch.testing.assert_close(stack_heads(classes, dimensions)(embedding_BU), expected)


def test_only_linear_heads_of_one_width_can_be_stacked() -> None:
    with pytest.raises(ValueError, match=r"one width, got \[6, 5\]"):
        stack_heads(lively_head(4, 0), lively_head(3, 1, in_width=5))
    with pytest.raises(ValueError, match="hidden layer"):
        stack_heads(Head(6, 4, hidden=8, generator=torch.Generator().manual_seed(0)))


@pytest.mark.parametrize("std_gain", [0.0, 0.4])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float16])
def test_states_weighed_one_by_one_are_the_combined_ones(std_gain: float, dtype: torch.dtype) -> None:
    pool, generator = LayerPool(4, 6, std_gain=std_gain), torch.Generator().manual_seed(0)
    mean_NLD, std_NLD = (torch.randn(50, 4, 6, generator=generator).mul(5).to(dtype) for _ in range(2))
    pool.fit(mean_NLD, std_NLD)
    mean_NLD[3, 2, 2] = 6e4  # bounded by the standardisation
    with torch.no_grad():
        pool.layer_weight.copy_(torch.tensor([0.5, -torch.inf, 1.0, -1.0]))
    before = mean_NLD.clone(), std_NLD.clone()
    combined = pool.combine(pool.standardise(mean_NLD, std_NLD))
    torch.testing.assert_close(pool.weigh(mean_NLD, std_NLD), combined, rtol=1e-6, atol=1e-6)
    assert torch.equal(mean_NLD, before[0])
    assert torch.equal(std_NLD, before[1])
