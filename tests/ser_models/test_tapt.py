"""Schedules, batches, and the wav2vec 2.0 objective against transformers' own."""

from __future__ import annotations

from collections.abc import Callable
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest
import torch
from transformers import Wav2Vec2ForPreTraining

from ser_models.encoders import SpeechEncoder, load_encoder
from ser_models.spans import MASKS, sample_distractors, span_mask
from ser_models.tapt import (
    TaptOptions,
    Wav2Vec2Objective,
    batches_by_seconds,
    gumbel_temperature_at,
    learning_rate_at,
    pretraining_heads,
    random_crop,
    tapt_optimizer,
    tapt_step,
)

OPTIONS = TaptOptions(steps=60, warmup_steps=5, mask="wav2vec2", distractors=20, learning_rate=1e-3)


def tones(*seconds: float, seed: int = 0) -> tuple[torch.Tensor, torch.Tensor]:
    """Clips of tones that change pitch every 0.1 s, zero padded, and their lengths in samples."""
    rng = np.random.default_rng(seed)
    clips = []
    for length_s in seconds:
        pitch_hz = np.repeat(rng.choice([200, 400, 800, 1600], size=int(length_s * 10) + 1), 1600)
        clips.append((0.3 * np.sin(2 * np.pi * np.cumsum(pitch_hz) / 16000))[: int(length_s * 16000)])
    length_B = torch.tensor([len(clip) for clip in clips])
    wave_BS = torch.zeros(len(clips), int(length_B.max()))
    for row, clip in zip(wave_BS, clips, strict=True):
        row[: len(clip)] = torch.from_numpy(clip)
    return wave_BS, length_B


def objective_on(encoder: SpeechEncoder, options: TaptOptions = OPTIONS, seed: int = 0) -> Wav2Vec2Objective:
    return Wav2Vec2Objective(encoder, options, torch.Generator().manual_seed(seed))


def test_learning_rate_climbs_stays_and_falls_to_zero() -> None:
    options = TaptOptions(steps=1000, warmup_steps=100, learning_rate=1e-4)
    rates = [learning_rate_at(step, options) for step in range(1001)]
    assert rates[0] == pytest.approx(1e-6)
    assert rates[99:151] == pytest.approx([1e-4] * 52)
    assert rates[575] == pytest.approx(0.5e-4)
    assert rates[1000] == 0
    assert all(later <= earlier for earlier, later in pairwise(rates[150:]))
    assert gumbel_temperature_at(0, options) == 2.0
    assert gumbel_temperature_at(10**7, options) == 0.5


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        ({"mask": "half"}, "unknown mask 'half'; known: after, wav2vec2"),
        ({"steps": 100}, "take 105 steps of 100"),
        ({"crop_s": 300.0}, r"300\.0 s does not fit a batch of 250\.0 s"),
        ({"distractors": 0}, "at least 1, got 0"),
    ],
)
def test_options_say_both_numbers(wrong: dict[str, object], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        TaptOptions(**wrong)  # type: ignore[arg-type]  # deliberately wrong values of any field


def test_batches_hold_at_most_the_asked_seconds_and_every_clip_once_per_epoch() -> None:
    duration_N = [3.0, 12.0, 5.0, 8.0, 2.0, 30.0]
    options = TaptOptions(seconds_per_batch=20.0, crop_s=10.0)
    rows: list[int] = []
    for batch in batches_by_seconds(duration_N, options, np.random.default_rng(0)):
        assert sum(min(duration_N[row], 10.0) for row in batch) <= 20
        rows += batch
    assert sorted(rows) == list(range(6))


def test_crop_is_a_piece_of_the_clip() -> None:
    wave_S = np.arange(48000, dtype=np.float32)
    piece = random_crop(wave_S, 1.0, np.random.default_rng(0))
    assert len(piece) == 16000
    np.testing.assert_array_equal(np.diff(piece), 1)
    assert random_crop(wave_S, 3.0, np.random.default_rng(0)) is wave_S


@pytest.mark.parametrize("name", ["wav2vec2-group", "wav2vec2-layer"])
def test_equals_the_loss_of_transformers(
    make_encoder: Callable[[str], SpeechEncoder], name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    encoder = make_encoder(name)
    objective = objective_on(encoder).eval()
    wave_BS, length_B = tones(1.0, 1.0)
    frames = encoder.frames(length_B).tolist()
    mask_BT = span_mask(frames, MASKS["wav2vec2"], np.random.default_rng(0))
    negatives = [sample_distractors(np.arange(f), f, 20, np.random.default_rng(1)) for f in frames]
    drawn = iter(negatives)
    monkeypatch.setattr("ser_models.tapt.span_mask", lambda *_: mask_BT)
    monkeypatch.setattr("ser_models.tapt.sample_distractors", lambda masked, *_: next(drawn)[masked])

    theirs = Wav2Vec2ForPreTraining(encoder.model.config).eval()
    theirs.wav2vec2 = encoder.model
    theirs.load_state_dict(objective.heads(), strict=False)
    encoder.model.masked_spec_embed = objective.mask_embedding
    clip_offset = np.arange(2)[:, None, None] * frames[0]
    values = wave_BS
    if getattr(encoder, "normalise", False):
        values = (wave_BS - wave_BS.mean(1, keepdim=True)) / (wave_BS.var(1, correction=0, keepdim=True) + 1e-7).sqrt()
    with torch.no_grad():
        ours = objective(wave_BS, length_B, np.random.default_rng(0), temperature=1.0)
        wanted = theirs(
            values,
            mask_time_indices=torch.from_numpy(mask_BT),
            sampled_negative_indices=torch.from_numpy(np.stack(negatives) + clip_offset),
        )
    assert float(ours["contrastive"]) == pytest.approx(float(wanted.contrastive_loss) / mask_BT.sum(), rel=1e-4)


def test_loss_falls_on_tones_and_every_trainable_parameter_has_a_gradient() -> None:
    objective = objective_on(load_encoder("seral-tiny")).train()
    optimizer = tapt_optimizer(objective)
    rng = np.random.default_rng(0)
    wave_BS, length_B = tones(2.0, 1.5, 1.0, 2.0)
    first = tapt_step(objective, optimizer, wave_BS, length_B, step=0, rng=rng)
    for name, parameter in objective.named_parameters():
        assert (parameter.grad is not None) == parameter.requires_grad, name
        assert parameter.grad is None or bool(parameter.grad.abs().sum() > 0), name
    history = [tapt_step(objective, optimizer, wave_BS, length_B, step=step, rng=rng) for step in range(1, 30)]
    assert set(first) == {"loss", "contrastive", "diversity", "perplexity", "accuracy", "learning_rate"}
    assert np.mean([record["loss"] for record in history[-5:]]) < 0.9 * first["loss"]
    frozen = [name for name, parameter in objective.named_parameters() if not parameter.requires_grad]
    assert frozen
    assert all(".feature_extractor." in name for name in frozen)


def test_the_front_trains_when_asked_to() -> None:
    options = TaptOptions(steps=60, warmup_steps=5, freeze_front=False, distractors=10)
    objective = objective_on(load_encoder("seral-tiny"), options).train()
    tapt_step(objective, tapt_optimizer(objective), *tones(1.0), step=0, rng=np.random.default_rng(0))
    for name, parameter in objective.named_parameters():
        assert parameter.grad is not None, name


@pytest.mark.parametrize("training", [False, True])
@pytest.mark.parametrize("name", ["wav2vec2-group", "wav2vec2-layer"])
def test_padding_does_not_change_the_loss(
    make_encoder: Callable[[str], SpeechEncoder], name: str, training: bool
) -> None:
    encoder = make_encoder(name)
    for module in encoder.modules():
        if isinstance(module, torch.nn.Dropout):
            module.p = 0.0
    objective = objective_on(encoder)
    objective.train(training)
    for layer in encoder.layers:
        layer.eval()  # attention dropout is a number, not a module
    wave_BS, length_B = tones(1.0, 0.6)
    padded_BS = torch.nn.functional.pad(wave_BS, (0, 4000))
    short, long = (
        objective(waves, length_B, np.random.default_rng(3), temperature=1.0) for waves in (wave_BS, padded_BS)
    )
    for key in short:
        torch.testing.assert_close(long[key], short[key], atol=1e-4, rtol=1e-4)


def test_same_seed_same_bits_dropout_included_and_no_global_randomness(
    make_encoder: Callable[[str], SpeechEncoder],
) -> None:
    def weights() -> tuple[torch.Tensor, float]:
        objective = objective_on(make_encoder("wav2vec2-layer")).train()
        rng = np.random.default_rng(5)
        record = tapt_step(objective, tapt_optimizer(objective), *tones(1.0, 0.8), step=3, rng=rng)
        return torch.cat([parameter.detach().flatten() for parameter in objective.parameters()]), record["loss"]

    before = torch.random.get_rng_state()
    first, first_loss = weights()
    again, again_loss = weights()
    assert torch.equal(torch.random.get_rng_state(), before)
    assert first_loss == again_loss
    assert torch.equal(first, again)


def test_heads_of_a_pretraining_checkpoint_are_found_and_used(
    tmp_path: Path, make_encoder: Callable[[str], SpeechEncoder]
) -> None:
    encoder = make_encoder("wav2vec2-layer")
    first = objective_on(encoder, seed=1)
    checkpoint = Wav2Vec2ForPreTraining(encoder.model.config)
    checkpoint.load_state_dict(first.heads(), strict=False)
    checkpoint.save_pretrained(tmp_path)
    heads = pretraining_heads(str(tmp_path))
    assert heads is not None
    second = Wav2Vec2Objective(encoder, OPTIONS, torch.Generator().manual_seed(2), heads=heads)
    for name, value in first.heads().items():
        assert torch.equal(second.heads()[name], value), name
    with pytest.raises(ValueError, match="pretraining heads must be"):
        Wav2Vec2Objective(encoder, OPTIONS, torch.Generator(), heads={"quantizer.codevectors": torch.zeros(1)})


def test_other_families_are_refused_with_the_supported_ones(make_encoder: Callable[[str], SpeechEncoder]) -> None:
    with pytest.raises(ValueError, match="no pretraining objective for 'whisper' yet; supported: wav2vec2"):
        objective_on(make_encoder("whisper"))


def test_a_batch_of_clips_too_short_for_a_span_is_refused() -> None:
    objective = objective_on(load_encoder("seral-tiny"))
    with pytest.raises(ValueError, match="no clip is long enough for a mask span: the longest of 1 has"):
        objective(*tones(0.15), np.random.default_rng(0), temperature=1.0)
