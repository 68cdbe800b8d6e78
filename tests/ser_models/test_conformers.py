"""Encoders of the Conformer's kind: positions of every sort, norms over batches, and speech as Kaldi hears it."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
import soundfile
import torch
from torch import Tensor
from transformers import (
    SeamlessM4TFeatureExtractor,
    Wav2Vec2BertConfig,
    Wav2Vec2BertModel,
    Wav2Vec2ConformerConfig,
    Wav2Vec2ConformerModel,
)

from ser_models.encoders import SpeechEncoder, wrap
from ser_models.encoders.embedded import untrained_twin
from ser_models.encoders.kaldi import KaldiMel, kaldi_frames, standardise_bands

SHARED = Path(__file__).resolve().parents[2].parent / "shared"
SIZES = {"hidden_size": 32, "num_attention_heads": 4, "intermediate_size": 48, "num_hidden_layers": 2}
STEM = {"conv_dim": (16, 24), "conv_kernel": (400, 3), "conv_stride": (160, 2), "feat_extract_norm": "layer"}


def noise(samples: int) -> Tensor:
    return 0.2 * torch.randn(1, samples, generator=torch.Generator().manual_seed(samples))


NETWORKS: dict[str, Callable[[str | None], torch.nn.Module]] = {
    "wav2vec2-conformer": lambda positions: Wav2Vec2ConformerModel(
        Wav2Vec2ConformerConfig(**SIZES, **STEM, position_embeddings_type=positions)
    ),
    "wav2vec2-bert": lambda positions: Wav2Vec2BertModel(
        Wav2Vec2BertConfig(**SIZES, position_embeddings_type=positions)
    ),
}
SORTS = [(family, sort) for family in NETWORKS for sort in ("relative", "rotary", None)]
SORTS.append(("wav2vec2-bert", "relative_key"))


def conformer(family: str, positions: str | None) -> SpeechEncoder:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(1)
        network = NETWORKS[family](positions)
        for weight in network.parameters():
            weight.detach().add_(0.1 * torch.randn(weight.shape))
    return wrap(network)


@torch.no_grad()
@pytest.mark.parametrize(("family", "positions"), SORTS)
def test_positions_of_every_sort_are_those_of_transformers(family: str, positions: str | None) -> None:
    encoder = conformer(family, positions)
    wave_BS = noise(20_240)
    inputs = {"input_values": wave_BS}
    if family == "wav2vec2-bert":
        inputs = SeamlessM4TFeatureExtractor()(wave_BS[0].numpy(), sampling_rate=16_000, return_tensors="pt")
    expected = encoder.model(**inputs, output_hidden_states=True)
    output = encoder(wave_BS, torch.tensor([20_240]))
    frames = output.mask_BT.shape[1]  # of an odd frame at the end the extractor makes a padded one
    last = expected.last_hidden_state
    states_LBTD = torch.stack([*expected.hidden_states[:-1], last])[:, :, :frames]
    torch.testing.assert_close(output.hidden_LBTD, states_LBTD, atol=3e-5, rtol=1e-4)


@pytest.mark.parametrize("family", NETWORKS)
def test_the_sorts_of_positions_differ(family: str) -> None:
    clip = noise(20_240), torch.tensor([20_240])
    rotary, none = (conformer(family, positions)(*clip).hidden_LBTD[-1] for positions in ("rotary", None))
    assert not torch.allclose(rotary, none, atol=1e-3)


@pytest.mark.parametrize(("family", "positions"), SORTS)
def test_an_encoder_that_inferred_can_be_trained(family: str, positions: str | None) -> None:
    """transformers keeps positions that were computed in inference mode, and then no gradient passes them."""
    encoder = conformer(family, positions)
    with torch.inference_mode():
        encoder(noise(20_240), torch.tensor([20_240]))
    encoder(noise(20_240), torch.tensor([20_240])).hidden_LBTD.square().mean().backward()
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


def test_an_untrained_twin_has_no_statistics_of_speech(make_encoder: Callable[[str], SpeechEncoder]) -> None:
    twin = untrained_twin(make_encoder("wav2vec2-conformer"))
    norm = twin.layers[0].conv_module.batch_norm
    assert not norm.running_mean.any()
    assert bool((norm.running_var == 1).all())


def made_up() -> list[Tensor]:
    """A sweeping tone, silence, and noise that ends in silence."""
    time_S = torch.arange(16_000) / 16_000
    hushed_S = 0.1 * noise(9000)[0]
    hushed_S[5000:] = 0.0
    return [0.5 * torch.sin(2 * torch.pi * (300 + 900 * time_S) * time_S), torch.zeros(700), hushed_S]


def speech() -> list[Tensor]:
    files = [sorted((SHARED / "corpora" / corpus).rglob("*.flac"))[0] for corpus in ("emodb", "ravdess", "nemo")]
    return [torch.from_numpy(soundfile.read(file, dtype="float32")[0]) for file in files]


@pytest.mark.parametrize("clips", [made_up, pytest.param(speech, marks=pytest.mark.corpora)])
def test_kaldis_mel_equals_the_feature_extractor_whatever_the_padding(clips: Callable[[], list[Tensor]]) -> None:
    waves = clips()
    length_B = torch.tensor([len(wave_S) for wave_S in waves])
    wave_BS = torch.nn.utils.rnn.pad_sequence(waves, batch_first=True)
    level_BTM, frames_B = KaldiMel(80)(wave_BS), kaldi_frames(length_B)
    actual_BTM = standardise_bands(level_BTM, frames_B)
    extractor = SeamlessM4TFeatureExtractor(stride=1)
    for index, wave_S in enumerate(waves):
        plain, standard = (
            extractor(
                wave_S.numpy(), sampling_rate=16_000, do_normalize_per_mel_bins=normed, pad_to_multiple_of=None,
                return_tensors="pt",
            )["input_features"][0]
            for normed in (False, True)
        )  # fmt: skip
        assert len(plain) == frames_B[index]
        torch.testing.assert_close(level_BTM[index, : len(plain)].float(), plain, atol=1e-4, rtol=0)
        torch.testing.assert_close(actual_BTM[index, : len(plain)].float(), standard, atol=1e-4, rtol=0)
        assert not actual_BTM[index, len(plain) :].any()


@pytest.mark.parametrize(("samples", "frames"), [(0, 0), (399, 0), (400, 1), (559, 1), (560, 2), (16_000, 98)])
def test_kaldis_frames_are_whole(samples: int, frames: int) -> None:
    assert kaldi_frames(torch.tensor([samples])).tolist() == [frames]
    if frames:
        assert KaldiMel(80, window="hann", scale=1.0)(noise(samples)).shape == (1, frames, 80)
