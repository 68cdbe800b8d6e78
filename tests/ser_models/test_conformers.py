"""Encoders of the Conformer's kind: positions of every sort, norms over batches, and speech as Kaldi hears it."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from torch import Tensor
from transformers import Wav2Vec2ConformerConfig, Wav2Vec2ConformerModel

from ser_models.encoders import SpeechEncoder, wrap

SIZES = {"hidden_size": 32, "num_attention_heads": 4, "intermediate_size": 48, "num_hidden_layers": 2}
STEM = {"conv_dim": (16, 24), "conv_kernel": (400, 3), "conv_stride": (160, 2), "feat_extract_norm": "layer"}


def noise(samples: int) -> Tensor:
    return 0.2 * torch.randn(1, samples, generator=torch.Generator().manual_seed(samples))


def conformer(positions: str | None) -> SpeechEncoder:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(1)
        network = Wav2Vec2ConformerModel(Wav2Vec2ConformerConfig(**SIZES, **STEM, position_embeddings_type=positions))
        for weight in network.parameters():
            weight.detach().add_(0.1 * torch.randn(weight.shape))
    return wrap(network)


@torch.no_grad()
@pytest.mark.parametrize("positions", ["relative", "rotary", None])
def test_positions_of_every_sort_are_those_of_transformers(positions: str | None) -> None:
    encoder = conformer(positions)
    wave_BS = noise(20_000)
    expected = encoder.model(wave_BS, output_hidden_states=True)
    actual_LBTD = encoder(wave_BS, torch.tensor([20_000])).hidden_LBTD
    torch.testing.assert_close(actual_LBTD[:-1], torch.stack(expected.hidden_states[:-1]), atol=1e-5, rtol=1e-5)
    torch.testing.assert_close(actual_LBTD[-1], expected.last_hidden_state, atol=1e-5, rtol=1e-5)


def test_the_sorts_of_positions_differ() -> None:
    ends = [
        conformer(positions)(noise(20_000), torch.tensor([20_000])).hidden_LBTD[-1] for positions in ("rotary", None)
    ]
    assert not torch.allclose(*ends, atol=1e-3)


@pytest.mark.parametrize("positions", ["relative", "rotary"])
def test_an_encoder_that_inferred_can_be_trained(positions: str) -> None:
    """transformers keeps positions that were computed in inference mode, and then no gradient passes them."""
    encoder = conformer(positions)
    with torch.inference_mode():
        encoder(noise(20_000), torch.tensor([20_000]))
    encoder(noise(20_000), torch.tensor([20_000])).hidden_LBTD.square().mean().backward()
    assert encoder.layers[0].self_attn.linear_k.weight.grad.any()


@torch.no_grad()
def test_a_batch_never_shifts_its_clips_in_training(make_encoder: Callable[[str], SpeechEncoder]) -> None:
    for name in ("wav2vec2-conformer", "hubert-batch-norm"):
        encoder = make_encoder(name)
        for module in encoder.modules():
            if isinstance(module, torch.nn.Dropout):
                module.p = 0.0
        encoder.model.config.attention_dropout = 0.0
        for layer in encoder.layers:
            if hasattr(layer, "attention"):
                layer.attention.dropout = 0.0
        before = {key: value.clone() for key, value in encoder.state_dict().items()}
        clip = noise(9000), torch.tensor([9000])
        still_LBTD = encoder(*clip).hidden_LBTD
        torch.testing.assert_close(encoder.train()(*clip).hidden_LBTD, still_LBTD)
        assert encoder.training
        assert all(torch.equal(value, before[key]) for key, value in encoder.state_dict().items())
