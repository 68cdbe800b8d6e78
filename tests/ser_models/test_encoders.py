"""Encoders against transformers' own forward, and against themselves in other batches."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor, nn
from transformers import (
    ASTFeatureExtractor,
    AutoModel,
    BertConfig,
    BertModel,
    SeamlessM4TFeatureExtractor,
    Wav2Vec2FeatureExtractor,
    Wav2Vec2ForPreTraining,
    WhisperFeatureExtractor,
)

from ser_models.checksums import SUMS
from ser_models.encoders import (
    EMBEDDED,
    FAMILIES,
    PrecomputedEncoder,
    SpeechEncoder,
    fingerprint,
    load_encoder,
    save_encoder,
    wrap,
)
from ser_models.encoders.convolutions import masked_group_norm, standardise_clips
from ser_models.encoders.embedded import FOLDER, mel_filters_in_time, untrained_twin
from ser_models.encoders.mel import log_mel, mel_filters
from ser_models.encoders.spectrogram_transformer import OF_THE_CLIP, SpectrogramTransformerEncoder
from ser_models.encoders.wav2vec2 import Wav2Vec2Encoder
from ser_models.encoders.wav2vec2_bert import Wav2Vec2BertSpeechEncoder
from ser_models.encoders.whisper import WhisperSpeechEncoder
from ser_models.objectives import find_objective

PAGE = Path(__file__).resolve().parents[2] / "docs" / "encoders.md"
SHARED = Path(__file__).resolve().parents[2].parent / "shared"
REAL_ENCODERS = ("whisper-tiny-en", "moonshine-base-en")
SECOND = 16_000
FINGERPRINTS = {"seral-tiny": "39210db67d68fcf6", "seral-tiny-untrained": "3162a6f4fe1bb41e"}
"""Changing an embedded encoder's weights makes every cached feature of it stale: do so knowingly."""


def speech(*seconds: float, seed: int = 0) -> list[Tensor]:
    """Noise with a slow envelope, one clip per duration in seconds, each (S,)."""
    generator = torch.Generator().manual_seed(seed)
    clips = [0.3 * torch.randn(int(s * SECOND), generator=generator) + 0.05 for s in seconds]
    return [clip * torch.linspace(0.2, 1.0, len(clip)) for clip in clips]


def batch(clips: list[Tensor]) -> tuple[Tensor, Tensor]:
    lengths = torch.tensor([len(clip) for clip in clips])
    return nn.utils.rnn.pad_sequence(clips, batch_first=True), lengths


@torch.no_grad()
def reference(encoder: SpeechEncoder, clip: Tensor) -> tuple[tuple[Tensor, ...], Tensor]:
    """All hidden states and the last one, by transformers' own preparation and forward of one unpadded clip."""
    if isinstance(encoder, WhisperSpeechEncoder):
        extractor = WhisperFeatureExtractor(feature_size=80, chunk_length=1)
        expected = extractor(clip.numpy(), sampling_rate=SECOND, return_tensors="pt")["input_features"]
    elif isinstance(encoder, SpectrogramTransformerEncoder):
        extractor = ASTFeatureExtractor(num_mel_bins=32, max_length=98)
        expected = extractor(clip.numpy(), sampling_rate=SECOND, return_tensors="pt")["input_values"]
    elif isinstance(encoder, Wav2Vec2BertSpeechEncoder):
        extractor = SeamlessM4TFeatureExtractor()
        expected = extractor(clip.numpy(), sampling_rate=SECOND, return_tensors="pt")["input_features"]
    else:
        extractor = Wav2Vec2FeatureExtractor(do_normalize=encoder.normalise)
        expected = extractor(clip.numpy(), sampling_rate=SECOND, return_tensors="pt")["input_values"]
    ends: list[Tensor] = []
    hook = encoder.layers[-1].register_forward_hook(
        lambda _, __, output: ends.append(output[0] if isinstance(output, tuple) else output)
    )
    # Moonshine's windows are closed by a mask alone.
    masked = {"attention_mask": torch.ones_like(expected)} if "streaming" in encoder.family else {}
    states = encoder.model(expected, output_hidden_states=True, **masked).hidden_states
    hook.remove()
    # Behind it some networks average pairs of frames or go on with strided convolutions.
    last = ends[0] if encoder.final_norm is None else encoder.final_norm(ends[0])
    if not isinstance(encoder, SpectrogramTransformerEncoder):
        return states, last
    # Tokens of one moment, one above another, come together: transformers has those of one band together.
    patches = torch.arange(last.shape[1] - OF_THE_CLIP).view(encoder.bands, -1).T.flatten()
    order = torch.cat([torch.arange(OF_THE_CLIP), patches + OF_THE_CLIP])
    return tuple(state[:, order] for state in states), last[:, order]


def test_the_page_on_encoders_says_what_the_table_says() -> None:
    rows = [
        line.split(" | ")
        for line in PAGE.read_text().split("\n## ")[0].splitlines()
        if line.startswith("| `") and "model_type" not in line
    ]
    stated = {name.strip("| `"): (objective.strip("`"), licence.strip(" |")) for name, *_, objective, licence in rows}
    parts = {name.removesuffix("_encoder") for name in FAMILIES}
    assert stated == {name: (find_objective(None, name), FAMILIES[name].licence) for name in parts}


@torch.no_grad()
def test_hidden_states_equal_transformers_on_an_unpadded_clip(encoder: SpeechEncoder) -> None:
    # Whisper: the clip fills all positions, so that transformers has no silence to attend to.
    clip = speech(1.0)[0]
    states, last = reference(encoder, clip)

    output = encoder(*batch([clip]))

    assert output.hidden_LBTD.shape == (len(states), *last.shape) == (4, 1, last.shape[1], encoder.width)
    assert output.mask_BT.all()
    # Of w2v-BERT transformers computes sinusoids in another order.
    atol = 3e-5 if isinstance(encoder, Wav2Vec2BertSpeechEncoder) else 1e-5
    for ours, theirs in zip(output.hidden_LBTD[:-1], states[:-1], strict=True):
        torch.testing.assert_close(ours, theirs, atol=atol, rtol=1e-5)
    torch.testing.assert_close(output.hidden_LBTD[-1], last, atol=atol, rtol=1e-5)


@torch.no_grad()
def test_padding_and_batch_composition_change_nothing(encoder: SpeechEncoder) -> None:
    clips = speech(0.31, 0.9, 0.1803, 0.5)
    together = encoder(*batch(clips))
    assert torch.equal(together.mask_BT.sum(1), encoder.frames(torch.tensor([len(clip) for clip in clips])))
    for index, clip in enumerate(clips):
        wave_BS, length_B = batch([clip])
        for spare in (0, 4321):
            alone = encoder(nn.functional.pad(wave_BS, (0, spare)), length_B)
            real = int(alone.mask_BT.sum())
            assert real == together.mask_BT[index].sum()
            torch.testing.assert_close(
                together.hidden_LBTD[:, index, :real], alone.hidden_LBTD[:, 0, :real], atol=1e-5, rtol=1e-5
            )


@torch.no_grad()
def test_upper_from_any_hidden_state_equals_the_full_forward(encoder: SpeechEncoder) -> None:
    output = encoder(*batch(speech(0.4, 0.8)))
    for start in range(encoder.num_layers + 1):
        cached_BTD = output.hidden_LBTD[start].clone()
        cached_BTD[~output.mask_BT] = float("nan")
        resumed = encoder.upper(cached_BTD, output.mask_BT, start=start)
        assert len(resumed) == encoder.num_layers + 1 - start
        torch.testing.assert_close(resumed[:, output.mask_BT], output.hidden_LBTD[start:, output.mask_BT])


def test_upper_refuses_a_hidden_state_that_does_not_exist(encoder: SpeechEncoder) -> None:
    hidden_BTD, mask_BT = encoder.stem(*batch(speech(0.3)))
    with pytest.raises(ValueError, match=r"hidden state 0\.\.3 .* got 4"):
        encoder.upper(hidden_BTD, mask_BT, start=4)


def test_a_clip_needs_enough_samples_for_one_frame(encoder: SpeechEncoder) -> None:
    shortest = encoder.minimal_samples
    wave_BS = torch.zeros(2, SECOND)
    fewest = encoder.bands + OF_THE_CLIP if isinstance(encoder, SpectrogramTransformerEncoder) else 1
    assert encoder(wave_BS, torch.tensor([SECOND, shortest])).mask_BT.sum(1)[1] == fewest
    assert encoder.frames(torch.tensor([shortest, shortest - 1])).tolist() == [fewest, 0]
    with pytest.raises(ValueError, match=rf"clip 1 has {shortest - 1} samples.*at least {shortest}"):
        encoder(wave_BS, torch.tensor([SECOND, shortest - 1]))


def test_lengths_must_fit_the_batch(make_encoder: Callable[[str], SpeechEncoder]) -> None:
    encoder = make_encoder("wav2vec2-layer")
    with pytest.raises(ValueError, match=r"clip 0 claims 20000 samples.*16000"):
        encoder(torch.zeros(1, SECOND), torch.tensor([20000]))
    with pytest.raises(ValueError, match=r"got \(2, 16000\) and \(1,\)"):
        encoder(torch.zeros(2, SECOND), torch.tensor([SECOND]))


def test_layers_are_never_dropped_in_training(make_encoder: Callable[[str], SpeechEncoder]) -> None:
    encoder = make_encoder("data2vec-audio")
    encoder.model.config.layerdrop = 1.0
    still = encoder.eval()(*batch(speech(0.4))).hidden_LBTD
    for module in encoder.modules():
        if isinstance(module, nn.Dropout):
            module.p = 0.0
    for layer in encoder.layers:
        layer.attention.dropout = 0.0
    torch.testing.assert_close(encoder.train()(*batch(speech(0.4))).hidden_LBTD, still)


def test_masked_group_norm_equals_the_norm_of_each_clip_alone() -> None:
    generator = torch.Generator().manual_seed(1)
    hidden_BCT = torch.randn(3, 6, 11, generator=generator)
    for groups in (1, 2, 6):
        norm = nn.GroupNorm(groups, 6)
        nn.init.normal_(norm.weight, generator=generator)
        nn.init.normal_(norm.bias, generator=generator)
        ours = masked_group_norm(hidden_BCT, torch.tensor([11, 4, 7]), norm)
        for index, length in enumerate((11, 4, 7)):
            torch.testing.assert_close(ours[index, :, :length], norm(hidden_BCT[index : index + 1, :, :length])[0])


def test_standardised_clips_equal_the_feature_extractor() -> None:
    clips = speech(0.2, 0.05)
    expected = Wav2Vec2FeatureExtractor(do_normalize=True, return_attention_mask=True)(
        [clip.numpy() for clip in clips], sampling_rate=SECOND, padding=True, return_tensors="pt"
    )
    torch.testing.assert_close(standardise_clips(*batch(clips)), expected["input_values"], atol=1e-5, rtol=1e-4)


@pytest.mark.parametrize("seconds", [0.011, 1.0, 3.999, 29.97, 30.0])
def test_log_mel_equals_the_feature_extractor_on_30_s_of_padding(seconds: float) -> None:
    clip = speech(seconds, seed=3)[0]
    expected = WhisperFeatureExtractor()(clip.numpy(), sampling_rate=SECOND, return_tensors="np")["input_features"][0]
    frames = min(2 * -(-len(clip) // 320) + 4, 3000)
    ours = log_mel(clip.unsqueeze(0), mel_filters(80), frames=frames, limit_samples=480_000)[0]
    np.testing.assert_allclose(ours.numpy(), expected[:, :frames], atol=1e-5)


@torch.no_grad()
def test_whisper_frames_see_what_they_see_in_30_s_of_padding(make_encoder: Callable[[str], SpeechEncoder]) -> None:
    encoder = make_encoder("whisper")
    clip = speech(0.53)[0]
    states, _ = reference(encoder, clip)
    hidden_BTD, mask_BT = encoder.stem(*batch([clip]))
    assert mask_BT.shape == (1, 27)
    torch.testing.assert_close(hidden_BTD, states[0][:, :27], atol=1e-5, rtol=1e-5)


def test_whisper_names_both_durations_of_a_clip_past_its_positions(
    make_encoder: Callable[[str], SpeechEncoder],
) -> None:
    with pytest.raises(ValueError, match=r"clip 1 lasts 1\.50 s.*positions for 1\.00 s"):
        make_encoder("whisper")(*batch(speech(0.5, 1.5)))


def test_whether_padding_harms_the_network_itself_is_told(make_encoder: Callable[[str], SpeechEncoder]) -> None:
    equal_only = {
        name: make_encoder(name).equal_lengths_only for name in ("wav2vec2-group", "wav2vec2-layer", "moonshine")
    }
    assert equal_only == {"wav2vec2-group": True, "wav2vec2-layer": False, "moonshine": True}


@torch.no_grad()
def test_a_saved_encoder_is_the_same_encoder(encoder: SpeechEncoder, tmp_path: Path) -> None:
    save_encoder(encoder, tmp_path)
    loaded = load_encoder(tmp_path)

    assert not loaded.training
    assert fingerprint(loaded) == fingerprint(encoder)
    clips = batch(speech(0.3, 0.6))
    torch.testing.assert_close(loaded(*clips).hidden_LBTD, encoder(*clips).hidden_LBTD, rtol=0, atol=0)


@torch.no_grad()
@pytest.mark.parametrize("name", ["whisper", "moonshine"])
def test_a_saved_sequence_encoder_loads_in_transformers(
    make_encoder: Callable[[str], SpeechEncoder], name: str, tmp_path: Path
) -> None:
    encoder = make_encoder(name)
    save_encoder(encoder, tmp_path)
    model, report = AutoModel.from_pretrained(tmp_path, output_loading_info=True)
    assert not report["missing_keys"]
    assert fingerprint(wrap(model.get_encoder(), normalise=name == "moonshine")) == fingerprint(encoder)


def test_of_a_checkpoint_with_more_than_an_encoder_nothing_else_is_read(writer: Any, tmp_path: Path) -> None:
    writer.save_pretrained(tmp_path)
    tower = writer.model.audio_tower if hasattr(writer.model, "audio_tower") else writer.model.encoder
    encoder = load_encoder(tmp_path)
    assert type(encoder.model) is type(tower)
    assert fingerprint(encoder) == fingerprint(wrap(tower))
    file = tmp_path / "model.safetensors"
    weights = load_file(file)
    gone = next(name for name in weights if name.endswith("fc1.weight") and "layers.2." in name)
    save_file({name: weight for name, weight in weights.items() if name != gone}, file, metadata={"format": "pt"})
    with pytest.raises(ValueError, match=r"lacks 1 weights of its encoder, first 'layers\.2\..*fc1\.weight'"):
        load_encoder(tmp_path)


def test_a_fingerprint_sees_weights_configuration_and_preparation(make_encoder: Callable[[str], SpeechEncoder]) -> None:
    fingerprints = {fingerprint(make_encoder("wav2vec2-layer"))}
    assert fingerprint(make_encoder("wav2vec2-layer")) in fingerprints
    changed = make_encoder("wav2vec2-layer")
    with torch.no_grad():
        next(changed.layers[1].parameters()).view(-1)[0] += 1e-3
    activation = make_encoder("wav2vec2-layer")
    activation.model.config.hidden_act = "relu"
    standardised = wrap(make_encoder("wav2vec2-layer").model, normalise=True)
    fingerprints |= {fingerprint(changed), fingerprint(activation), fingerprint(standardised)}
    assert len(fingerprints) == 4
    assert all(len(name) == 16 and int(name, 16) >= 0 for name in fingerprints)


def test_a_fingerprint_does_not_depend_on_the_precision_of_storage(
    make_encoder: Callable[[str], SpeechEncoder],
) -> None:
    encoder = make_encoder("whisper")
    rounded = make_encoder("whisper").half()
    encoder.load_state_dict({name: weight.float() for name, weight in rounded.state_dict().items()})
    assert fingerprint(rounded) == fingerprint(encoder)


@pytest.mark.parametrize("name", sorted(FINGERPRINTS))
def test_an_embedded_encoder_is_the_same_everywhere_and_leaves_the_global_generator_alone(name: str) -> None:
    before = torch.random.get_rng_state()
    first = load_encoder(name)
    assert torch.equal(torch.random.get_rng_state(), before)

    program = f"from ser_models.encoders import *; print(fingerprint(load_encoder({name!r})))"
    elsewhere = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert elsewhere.stdout.strip() == fingerprint(first) == FINGERPRINTS[name]

    assert 1_000_000 < sum(parameter.numel() for parameter in first.parameters()) < 3_000_000
    assert (first.num_layers, first.width, first.frame_rate_hz) == (4, 192, 50.0)
    assert not first.equal_lengths_only


def test_seral_tiny_is_small_in_the_repository_and_fp32_in_memory(monkeypatch: pytest.MonkeyPatch) -> None:
    def no_network(*_: object) -> None:
        raise AssertionError("an embedded encoder asked for a connection")

    monkeypatch.setattr("socket.socket.connect", no_network)
    encoder = load_encoder("seral-tiny")
    stored = load_file(FOLDER / "model.safetensors")
    assert sum(file.stat().st_size for file in FOLDER.iterdir()) < 6_000_000
    assert {weight.dtype for weight in stored.values()} == {torch.float16}
    assert {weight.dtype for weight in encoder.parameters()} == {torch.float32}
    assert stored.keys() == encoder.model.state_dict().keys()


@torch.no_grad()
@pytest.mark.parametrize("name", sorted(EMBEDDED))
def test_an_embedded_encoder_keeps_a_healthy_scale_through_its_layers(name: str) -> None:
    output = load_encoder(name)(*batch(speech(1.0)))
    spread_L = output.hidden_LBTD.std(dim=2).mean((1, 2))
    assert torch.all((spread_L > 0.05) & (spread_L < 20.0))


def test_filters_of_the_first_convolution_ring_at_their_place_on_the_mel_scale() -> None:
    filters = mel_filters_in_time(64, 400)
    assert filters.shape == (64, 400)
    peak_F = torch.fft.rfft(filters, 16_000).abs().argmax(1).tolist()
    assert all(abs(peak - peak_F[4 * (row // 4)]) <= 20 for row, peak in enumerate(peak_F))
    assert peak_F[0] == pytest.approx(60, abs=20)
    assert peak_F[-1] == pytest.approx(7600, abs=20)
    mel = 2595 * np.log10(1 + np.array(peak_F[4::4]) / 700)
    np.testing.assert_allclose(np.diff(mel), np.diff(mel).mean(), rtol=0.1)
    # Opposite phases cancel: half a period apart, a filter is the other with its sign changed.
    torch.testing.assert_close(filters[2::4], -filters[0::4], atol=1e-6, rtol=1e-5)


def test_an_untrained_twin_shares_the_architecture_and_no_weight(encoder: SpeechEncoder) -> None:
    name = fingerprint(encoder)
    twin = untrained_twin(encoder)
    assert fingerprint(encoder) == name
    assert fingerprint(twin) == fingerprint(untrained_twin(encoder)) != name
    assert all(torch.isfinite(weight).all() for weight in twin.parameters())
    twin(*batch(speech(0.3)))


def test_seral_tiny_can_be_pretrained() -> None:
    encoder = load_encoder("seral-tiny")
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        pretraining = Wav2Vec2ForPreTraining(encoder.model.config)
        pretraining.wav2vec2 = encoder.model
        wave_BS, _ = batch(speech(1.0))
        masked_BT = torch.zeros(1, 50, dtype=torch.bool)
        masked_BT[:, 10:30] = True
        frames = pretraining.wav2vec2.feature_extractor(wave_BS).shape[-1]
        negatives_BTN = torch.randint(10, 30, (1, frames, 5))
        output = pretraining(wave_BS, mask_time_indices=masked_BT[:, :frames], sampled_negative_indices=negatives_BTN)
    assert torch.isfinite(output.loss)


def test_an_unknown_family_lists_the_known_ones(tmp_path: Path) -> None:
    BertModel(
        BertConfig(hidden_size=8, num_hidden_layers=1, num_attention_heads=1, intermediate_size=8, vocab_size=8)
    ).save_pretrained(tmp_path)
    with pytest.raises(ValueError, match="'bert'") as error:
        load_encoder(tmp_path)
    assert all(family in str(error.value) for family in FAMILIES)
    with pytest.raises(ValueError, match="not a supported encoder family"):
        wrap(nn.Linear(1, 1))


def test_a_folder_that_is_no_checkpoint_is_named(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match=r"nowhere does not exist"):
        load_encoder(tmp_path / "nowhere")
    with pytest.raises(
        FileNotFoundError, match=r"holds no config\.json: it is not a Hugging Face checkpoint folder \(without"
    ):
        load_encoder(tmp_path)


@pytest.mark.parametrize(
    ("files", "words"),
    [
        (["part-0.parquet"], r"Are these features\? Bring them in by `seral pool import-features TABLE"),
        (["features.npz"], r"Are these features\? Bring them in by `seral pool import-features TABLE"),
        (["model.pt", "config.yaml"], r"one of FunASR, .*: compute features with it, bring them in by `seral pool"),
        (["model.pt", "configuration.json"], r"one of FunASR, .*docs/encoders\.md"),
    ],
)
def test_features_and_foreign_checkpoints_are_shown_the_way_in(tmp_path: Path, files: list[str], words: str) -> None:
    for name in files:
        (tmp_path / name).touch()
    with pytest.raises(FileNotFoundError, match=words):
        load_encoder(tmp_path)
    if len(files) == 1:
        with pytest.raises(FileNotFoundError, match=rf"is a file, not .*{words}"):
            load_encoder(tmp_path / files[0])


def test_features_are_no_network(tmp_path: Path) -> None:
    """What runs an encoder is refused; the face of one has sizes and a fingerprint alone."""
    (tmp_path / "features.json").write_text("{}")
    with pytest.raises(ValueError, match="holds features that were computed elsewhere, and no network"):
        load_encoder(tmp_path)
    face = PrecomputedEncoder("someone/else", states=3, width=8, digest="0")
    assert (face.num_layers, face.width, face.family) == (2, 8, "features of someone/else")
    others = [
        PrecomputedEncoder("someone/else", states=3, width=8, digest="1"),
        PrecomputedEncoder("someone", states=3, width=8, digest="0"),
        PrecomputedEncoder("someone/else", states=2, width=8, digest="0"),
    ]
    assert fingerprint(face) == fingerprint(PrecomputedEncoder("someone/else", states=3, width=8, digest="0"))
    assert len({fingerprint(one) for one in (face, *others)}) == 4
    for call in (
        lambda: face(*batch(speech(0.5))),
        lambda: face.upper(torch.zeros(1, 4, 8), torch.ones(1, 4, dtype=torch.bool), start=0),
        lambda: face.save(tmp_path),
        lambda: face.frames(torch.tensor([SECOND])),
        lambda: face.front,
    ):
        with pytest.raises(
            ValueError, match=r"^someone/else holds features that were computed elsewhere, and no network"
        ):
            call()
    with pytest.raises(ValueError, match="at least 1 state of 1 number, got 0 of 8"):
        PrecomputedEncoder("someone/else", states=0, width=8, digest="0")


def test_a_hub_that_cannot_be_reached_points_to_what_needs_no_download(monkeypatch: pytest.MonkeyPatch) -> None:
    def unreachable(source: str) -> None:
        raise OSError(f"no connection for {source}")

    monkeypatch.setattr("transformers.PreTrainedConfig.get_config_dict", unreachable)
    with pytest.raises(FileNotFoundError, match=r"'someone/encoder': no connection.*seral-tiny"):
        load_encoder("someone/encoder")


@pytest.mark.parametrize(
    ("file", "settings", "expected"),
    [
        ("preprocessor_config.json", {"do_normalize": True}, True),
        ("preprocessor_config.json", {"do_normalize": False}, False),
        ("preprocessor_config.json", {"feature_extractor_type": "Wav2Vec2FeatureExtractor"}, True),
        ("processor_config.json", {"feature_extractor": {"do_normalize": True}}, True),
        ("processor_config.json", {"processor_class": "Wav2Vec2Processor"}, False),
    ],
)
def test_a_checkpoint_says_whether_clips_are_standardised(
    make_encoder: Callable[[str], SpeechEncoder],
    tmp_path: Path,
    file: str,
    settings: dict[str, object],
    expected: bool,
) -> None:
    make_encoder("wav2vec2-layer").model.save_pretrained(tmp_path)
    (tmp_path / file).write_text(json.dumps(settings))
    loaded = load_encoder(tmp_path)
    assert isinstance(loaded, Wav2Vec2Encoder)
    assert loaded.normalise is expected


def test_a_checkpoint_that_lacks_weights_is_refused(
    make_encoder: Callable[[str], SpeechEncoder], tmp_path: Path
) -> None:
    save_encoder(make_encoder("whisper"), tmp_path)
    weights = load_file(tmp_path / "model.safetensors")
    del weights["encoder.layers.1.fc1.weight"]
    save_file(weights, tmp_path / "model.safetensors", metadata={"format": "pt"})
    with pytest.raises(ValueError, match=r"is damaged.*delete SHA256SUMS"):
        load_encoder(tmp_path)
    (tmp_path / SUMS).unlink()
    with pytest.raises(ValueError, match=r"lacks 1 weights .*layers\.1\.fc1\.weight"):
        load_encoder(tmp_path)


def test_a_checkpoint_for_another_sampling_rate_is_refused(
    make_encoder: Callable[[str], SpeechEncoder], tmp_path: Path
) -> None:
    save_encoder(make_encoder("hubert-group"), tmp_path)
    settings = json.loads((tmp_path / "preprocessor_config.json").read_text())
    (tmp_path / "preprocessor_config.json").write_text(json.dumps({**settings, "sampling_rate": 8000}))
    (tmp_path / SUMS).unlink()
    with pytest.raises(ValueError, match=r"8000 Hz.*16000 Hz"):
        load_encoder(tmp_path)


def test_a_checkpoint_whose_input_is_scaled_otherwise_is_refused(
    make_encoder: Callable[[str], SpeechEncoder], tmp_path: Path
) -> None:
    save_encoder(make_encoder("ast"), tmp_path)
    settings = json.loads((tmp_path / "preprocessor_config.json").read_text())
    (tmp_path / "preprocessor_config.json").write_text(json.dumps({**settings, "mean": -6.8}))
    (tmp_path / SUMS).unlink()
    with pytest.raises(ValueError, match=r"mean -6\.8; encoders here take -4\.2677393"):
        load_encoder(tmp_path)


def test_the_fingerprint_of_every_embedded_encoder_is_pinned() -> None:
    assert FINGERPRINTS.keys() == EMBEDDED.keys()


@pytest.mark.corpora
@torch.no_grad()
@pytest.mark.parametrize("name", REAL_ENCODERS)
def test_a_real_encoder_hears_a_clip_alone_as_in_a_batch(name: str) -> None:
    soundfile = pytest.importorskip("soundfile")
    encoder = load_encoder(SHARED / "encoders" / name)
    files = sorted((SHARED / "corpora" / "emodb" / "audio").glob("*.flac"))[:4]
    clips = [torch.from_numpy(soundfile.read(file, dtype="float32")[0]) for file in files]
    together = encoder(*batch(clips))
    assert torch.isfinite(together.hidden_LBTD).all()
    for index, clip in enumerate(clips):
        alone = encoder(*batch([clip])).hidden_LBTD[:, 0]
        real = alone.shape[1]
        scale_L = alone.abs().amax((1, 2))
        error_L = (together.hidden_LBTD[:, index, :real] - alone).abs().amax((1, 2))
        assert torch.all(error_L <= 1e-5 * scale_L)
