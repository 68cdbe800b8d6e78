"""The WAP-Transformer and its classifier: padding, batches, start, and what is trained."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from torch import Tensor, nn

from ser_models.adapters.wap import WapOptions, WapTransformer, load_wap, save_wap
from ser_models.heads import Head, LayerPool
from ser_models.pooling import masked_mean_std
from ser_models.wap_classifier import WapClassifier, count_trained, trained_parameters

WIDTH = 16


def generator(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def made_wap(output: str = "weighted", *, lively: bool = True) -> WapTransformer:
    """A small adapter; lively: with random weights where it starts with zeros."""
    wap = WapTransformer(WIDTH, WapOptions(layers=3, heads=4, feedforward=24, output=output), generator())
    wap.fit(torch.linspace(-1, 1, WIDTH), torch.linspace(0.5, 50, WIDTH))
    if lively:
        enliven(wap)
    return wap.eval()


@torch.no_grad()
def enliven(model: nn.Module) -> None:
    rng = generator(1)
    for parameter in model.parameters():
        parameter.add_(0.2 * torch.randn(parameter.shape, generator=rng))


def made_batch() -> tuple[Tensor, Tensor]:
    """Three clips of 9, 6 and 4 frames; padded frames hold NaN."""
    length_B = torch.tensor([9, 6, 4])
    mask_BT = torch.arange(9) < length_B[:, None]
    hidden_BTD = 20 * torch.randn(3, 9, WIDTH, generator=generator(2))
    return hidden_BTD.masked_fill(~mask_BT[..., None], torch.nan), mask_BT


@pytest.mark.parametrize("output", ["weighted", "last"])
def test_neither_padding_nor_batch_mates_change_real_frames(output: str) -> None:
    wap, (hidden_BTD, mask_BT) = made_wap(output), made_batch()
    together = wap(hidden_BTD, mask_BT)
    for row in range(len(hidden_BTD)):
        own_1TD = hidden_BTD[row][mask_BT[row]][None]
        alone = wap(own_1TD, torch.ones(own_1TD.shape[:2], dtype=torch.bool))
        torch.testing.assert_close(together[row][mask_BT[row]], alone[0], rtol=1e-4, atol=1e-5)
    assert not torch.allclose(together[0], wap.standardise(hidden_BTD, mask_BT)[0])


@pytest.mark.parametrize("output", ["weighted", "last"])
def test_an_untrained_adapter_hands_on_standardised_frames(output: str) -> None:
    wap, (hidden_BTD, mask_BT) = made_wap(output, lively=False), made_batch()
    expected = (hidden_BTD - torch.linspace(-1, 1, WIDTH)) / torch.linspace(0.5, 50, WIDTH)
    torch.testing.assert_close(wap(hidden_BTD, mask_BT)[mask_BT], expected[mask_BT])


def test_weights_average_the_layers_and_last_takes_the_last() -> None:
    weighted, last = made_wap("weighted"), made_wap("last")
    shared = {name: value for name, value in weighted.state_dict().items() if name != "weight_L"}
    last.load_state_dict(shared)
    hidden_BTD, mask_BT = made_batch()
    with torch.no_grad():
        assert weighted.weight_L is not None
        weighted.weight_L.copy_(torch.tensor([-200.0, -200.0, 0.0]))
        torch.testing.assert_close(weighted(hidden_BTD, mask_BT), last(hidden_BTD, mask_BT))
        weighted.weight_L.zero_()
        assert not torch.allclose(weighted(hidden_BTD, mask_BT)[mask_BT], last(hidden_BTD, mask_BT)[mask_BT])


def test_the_start_depends_on_the_generator_alone() -> None:
    torch.manual_seed(1)
    first = made_wap(lively=False)
    torch.manual_seed(2)
    second, other = made_wap(lively=False), WapTransformer(WIDTH, first.options, generator(9))
    state = first.state_dict()
    assert all(torch.equal(state[name], value) for name, value in second.state_dict().items())
    assert not torch.equal(first.layers[0].up.weight, other.layers[0].up.weight)


def test_a_constant_feature_is_not_blown_up() -> None:
    wap = made_wap(lively=False)
    std_D = torch.ones(WIDTH)
    std_D[3] = 0
    wap.fit(torch.zeros(WIDTH), std_D)
    mask_BT = torch.ones(1, 2, dtype=torch.bool)
    assert float(wap(torch.full((1, 2, WIDTH), 0.01), mask_BT).detach().abs().max()) < 11


def test_saved_and_loaded_it_is_the_same(tmp_path: Path) -> None:
    wap, (hidden_BTD, mask_BT) = made_wap("last"), made_batch()
    save_wap(wap, tmp_path / "wap")
    again = load_wap(tmp_path / "wap").eval()
    assert torch.equal(again(hidden_BTD, mask_BT)[mask_BT], wap(hidden_BTD, mask_BT)[mask_BT])
    with pytest.raises(ValueError, match=r"no complete WAP-Transformer in .*elsewhere"):
        load_wap(tmp_path / "elsewhere")


def test_sizes_that_do_not_fit_are_refused() -> None:
    with pytest.raises(ValueError, match="heads must divide the width 16, got 3"):
        WapTransformer(WIDTH, WapOptions(heads=3), generator())
    with pytest.raises(ValueError, match="layers must be at least 1, got 0"):
        WapOptions(layers=0)
    with pytest.raises(ValueError, match="expected 16 means and deviations, got 4"):
        made_wap().fit(torch.zeros(4), torch.ones(4))
    with pytest.raises(ValueError, match="pooling must be attentive or mean, got 'max'"):
        WapClassifier(made_wap(), 3, pooling="max", generator=generator())  # type: ignore[arg-type]


@pytest.mark.parametrize("pooling", ["attentive", "mean"])
def test_the_classifier_starts_as_the_head_that_was_fitted_on_plain_statistics(pooling: str) -> None:
    model = WapClassifier(made_wap(), 3, pooling=pooling, generator=generator()).eval()  # type: ignore[arg-type]
    pool = LayerPool(1, WIDTH, std_gain=model.pool.std_gain)
    head = Head(pool.out_width, 3)
    with torch.no_grad():
        pool.fit(*(torch.rand(5, 1, WIDTH, generator=generator(3)) for _ in range(2)))
        head.output.weight.copy_(torch.randn(head.output.weight.shape, generator=generator(4)))
    model.adopt(pool, head)
    hidden_BTD, mask_BT = made_batch()
    mean_LBD, std_LBD = masked_mean_std(model.wap(hidden_BTD, mask_BT)[None], mask_BT)
    expected = head.eval()(pool(mean_LBD.transpose(0, 1), std_LBD.transpose(0, 1)))
    torch.testing.assert_close(model(hidden_BTD, mask_BT), expected, rtol=1e-4, atol=1e-4)
    assert pool.out_width == (2 * WIDTH if pooling == "attentive" else WIDTH)
    with pytest.raises(ValueError, match="the fitted pool has std_gain 7, this classifier"):
        model.adopt(LayerPool(1, WIDTH, std_gain=7), head)


@pytest.mark.parametrize(("pooling", "output"), [("attentive", "weighted"), ("mean", "last")])
def test_fine_tuning_reaches_everything_it_trains_once_zeros_have_moved(pooling: str, output: str) -> None:
    model = WapClassifier(made_wap(output), 3, pooling=pooling, generator=generator())  # type: ignore[arg-type]
    adapter, above = trained_parameters(model)
    assert count_trained(model) == sum(p.numel() for p in (*adapter, *above))
    enliven(model.head)
    if model.attention is not None:
        enliven(model.attention.score)
    model(*made_batch()).square().sum().backward()
    assert all(bool(p.grad is not None and p.grad.abs().sum() > 0) for p in (*adapter, *above))
    assert model.pool.layer_weight.grad is None
