"""The WAP-Transformer: padding, batches, start, and its place on an encoder."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn

from ser_models.adapters.composition import attach_adapters
from ser_models.adapters.parameters import lowest_trainable_layer
from ser_models.adapters.store import load_adapter, read_kinds, save_adapter, take_over
from ser_models.adapters.wap import WapOptions, WapTransformer, attach_wap, wap_of
from ser_models.encoders import SpeechEncoder

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
    together = wap.frames(hidden_BTD, mask_BT)
    for row in range(len(hidden_BTD)):
        own_1TD = hidden_BTD[row][mask_BT[row]][None]
        alone = wap.frames(own_1TD, torch.ones(own_1TD.shape[:2], dtype=torch.bool))
        torch.testing.assert_close(together[row][mask_BT[row]], alone[0], rtol=1e-4, atol=1e-5)
    assert not torch.allclose(together[0], wap.standardise(hidden_BTD, mask_BT)[0])


@pytest.mark.parametrize("output", ["weighted", "last"])
def test_an_untrained_adapter_hands_on_standardised_frames(output: str) -> None:
    wap, (hidden_BTD, mask_BT) = made_wap(output, lively=False), made_batch()
    expected = (hidden_BTD - torch.linspace(-1, 1, WIDTH)) / torch.linspace(0.5, 50, WIDTH)
    torch.testing.assert_close(wap.frames(hidden_BTD, mask_BT)[mask_BT], expected[mask_BT])


def test_weights_average_the_layers_and_last_takes_the_last() -> None:
    weighted, last = made_wap("weighted"), made_wap("last")
    shared = {name: value for name, value in weighted.state_dict().items() if name != "weight_L"}
    last.load_state_dict(shared)
    hidden_BTD, mask_BT = made_batch()
    with torch.no_grad():
        assert weighted.weight_L is not None
        weighted.weight_L.copy_(torch.tensor([-200.0, -200.0, 0.0]))
        torch.testing.assert_close(weighted.frames(hidden_BTD, mask_BT), last.frames(hidden_BTD, mask_BT))
        weighted.weight_L.zero_()
        assert not torch.allclose(
            weighted.frames(hidden_BTD, mask_BT)[mask_BT], last.frames(hidden_BTD, mask_BT)[mask_BT]
        )


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
    assert float(wap.frames(torch.full((1, 2, WIDTH), 0.01), mask_BT).detach().abs().max()) < 11


@pytest.mark.parametrize("output", ["weighted", "last"])
def test_the_adapted_state_is_what_comes_out_at_the_scale_that_went_in(output: str) -> None:
    wap, (hidden_BTD, mask_BT) = made_wap(output), made_batch()
    expected = torch.linspace(-1, 1, WIDTH) + torch.linspace(0.5, 50, WIDTH) * wap.frames(hidden_BTD, mask_BT)
    torch.testing.assert_close(wap(hidden_BTD, mask_BT)[mask_BT], expected[mask_BT], rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("state", [0, 1, 3])
def test_saved_and_loaded_it_is_the_same_with_its_scale(
    state: int, make_encoder: Callable[[str], SpeechEncoder], tmp_path: Path
) -> None:
    options = WapOptions(layer=state, layers=2, feedforward=24, output="last")
    encoder = attach_wap(make_encoder("whisper"), options, seed=5)
    wrapped, wap = wap_of(encoder)
    assert wrapped == state == lowest_trainable_layer(encoder)
    wap.fit(torch.linspace(-1, 1, wap.width), torch.linspace(0.5, 50, wap.width))
    enliven(wap)
    save_adapter(encoder, tmp_path)
    again = load_adapter(make_encoder("whisper"), tmp_path)
    assert again.adapters == encoder.adapters
    wave_BS, length_B = torch.randn(2, 8000, generator=generator()), torch.tensor([8000, 6000])
    with torch.no_grad():
        states_LBTD = encoder(wave_BS, length_B).hidden_LBTD
        assert torch.equal(again(wave_BS, length_B).hidden_LBTD, states_LBTD)
        plain_LBTD = make_encoder("whisper")(wave_BS, length_B).hidden_LBTD
    assert torch.equal(states_LBTD[:state], plain_LBTD[:state])
    assert all(not torch.allclose(states_LBTD[at], plain_LBTD[at]) for at in range(state, 4))


def test_saved_weights_go_into_an_adapter_among_others(
    make_encoder: Callable[[str], SpeechEncoder], tmp_path: Path
) -> None:
    pretrained = attach_adapters(make_encoder("whisper"), "wap", seed=5)
    enliven(wap_of(pretrained)[1])
    save_adapter(pretrained, tmp_path)
    assert read_kinds(tmp_path) == {"wap": WapOptions()}
    encoder = take_over(attach_adapters(make_encoder("whisper"), "lora+wap", seed=1), tmp_path)
    expected = wap_of(pretrained)[1].state_dict()
    assert all(torch.equal(value, expected[name]) for name, value in wap_of(encoder)[1].state_dict().items())
    smaller = attach_adapters(make_encoder("whisper"), {"wap": WapOptions(feedforward=8)}, seed=1)
    with pytest.raises(ValueError, match="was made for another encoder or other options"):
        take_over(smaller, tmp_path)
    with pytest.raises(ValueError, match="was made for another encoder or other options"):
        take_over(attach_adapters(make_encoder("whisper"), "gate", seed=1), tmp_path)


def test_sizes_that_do_not_fit_are_refused(make_encoder: Callable[[str], SpeechEncoder]) -> None:
    with pytest.raises(ValueError, match="heads must divide the width 16, got 3"):
        WapTransformer(WIDTH, WapOptions(heads=3), generator())
    with pytest.raises(ValueError, match="layers must be at least 1, got 0"):
        WapOptions(layers=0)
    with pytest.raises(ValueError, match="expected 16 means and deviations, got 4"):
        made_wap().fit(torch.zeros(4), torch.ones(4))
    with pytest.raises(ValueError, match=r"layer must be a hidden state 0\.\.3 of this encoder, got 4"):
        attach_wap(make_encoder("whisper"), WapOptions(layer=4), seed=0)
    with pytest.raises(ValueError, match="an encoder with the adapter 'wap', got one with none"):
        wap_of(make_encoder("whisper"))
