from __future__ import annotations

import time
from collections.abc import Callable

import numpy as np
import pytest
import soxr
from hypothesis import given
from hypothesis import strategies as st

from seral.audio.listening import listen
from seral.audio.quality import (
    LEVEL_FLOOR_DB,
    REASONS,
    SNR_LIMITS_DB,
    bandwidth_hz,
    clipping,
    frame_power,
    loudness_db,
    measure,
    score,
    snr_db,
    speech_ratio,
)
from seral.errors import PoolError
from seral.schema import SAMPLE_RATE, UTTERANCE


def bursts(seconds: float, *, on_share: float = 0.5, amplitude: float = 0.2) -> np.ndarray:
    """A 200 Hz tone switched on for a share of every half second."""
    time_s = np.arange(int(seconds * SAMPLE_RATE)) / SAMPLE_RATE
    return (amplitude * np.sin(2 * np.pi * 200 * time_s) * (time_s % 0.5 < 0.5 * on_share)).astype(np.float32)


def noise(seconds: float, level_db: float, seed: int = 0) -> np.ndarray:
    samples = np.random.default_rng(seed).standard_normal(int(seconds * SAMPLE_RATE))
    return (samples * 10 ** (level_db / 20)).astype(np.float32)


@pytest.mark.parametrize("wanted_db", [0, 10, 20, 40])
def test_snr_is_near_the_true_ratio(wanted_db: int) -> None:
    speech = bursts(4)
    speech_db = 10 * np.log10(0.2**2 / 2)
    estimate = snr_db(frame_power(speech + noise(4, speech_db - wanted_db)))
    assert estimate == pytest.approx(wanted_db, abs=2)


def test_steady_noise_has_no_signal_in_it() -> None:
    power_T = frame_power(noise(4, -30))
    assert snr_db(power_T) < 0
    assert speech_ratio(power_T) < 0.02


def test_snr_stays_within_its_limits() -> None:
    assert snr_db(np.full(50, 1e-4)) == SNR_LIMITS_DB[0]
    assert snr_db(frame_power(bursts(2, amplitude=1.0))) == SNR_LIMITS_DB[1]


@pytest.mark.parametrize("share", [0.2, 0.5, 0.8])
def test_speech_ratio_follows_the_share_of_sound(share: float) -> None:
    samples = bursts(5, on_share=share) + noise(5, -60)
    assert speech_ratio(frame_power(samples)) == pytest.approx(share, abs=0.04)


def test_clipping_counts_runs_and_not_single_peaks() -> None:
    samples = np.zeros(1000, dtype=np.float32)
    samples[10] = 1.0
    assert clipping(samples) == 0.0
    samples[100:110] = -1.0
    assert clipping(samples) == pytest.approx(0.01)


def test_clipping_agrees_with_a_plain_loop() -> None:
    samples = np.clip(noise(0.5, -3), -1, 1)
    full = [abs(value) >= 1 - 1e-4 for value in samples]
    beside = [
        at_full_scale and (any(full[max(0, index - 1) : index]) or any(full[index + 1 : index + 2]))
        for index, at_full_scale in enumerate(full)
    ]
    assert 0 < clipping(samples) == pytest.approx(np.mean(beside))


def test_loudness_of_a_full_scale_sine_and_of_silence() -> None:
    sine = np.sin(2 * np.pi * 100 * np.arange(SAMPLE_RATE) / SAMPLE_RATE).astype(np.float32)
    assert loudness_db(sine) == pytest.approx(-3.01, abs=0.01)
    assert loudness_db(np.zeros(100, dtype=np.float32)) == LEVEL_FLOOR_DB


@pytest.mark.parametrize("length", [1, 319, 320, 321, 16_000])
def test_measures_are_finite_for_any_length(length: int) -> None:
    for samples in (np.zeros(length, dtype=np.float32), noise(2, -20)[:length]):
        quality = measure(samples)
        assert np.isfinite([value for value in vars(quality).values() if value is not None]).all()
        assert 0 <= quality.speech_ratio <= 1
        assert 0 <= quality.quality <= 1


def test_a_background_that_comes_and_goes_is_noise_where_nobody_speaks() -> None:
    speech, knock = bursts(2), np.zeros(2 * SAMPLE_RATE, np.float32)
    knock[::2000] = 1.0
    power_T = frame_power(np.concatenate([speech, knock]) + noise(4, -70))
    voice_T = np.repeat([1.0, 0.0], 200).astype(np.float32)
    true_db = 10 * np.log10(np.mean(speech**2) / np.mean(knock**2))
    assert snr_db(power_T) > true_db + 30
    assert snr_db(power_T, voice_T) == pytest.approx(true_db, abs=4)


def test_a_clip_without_a_pause_is_measured_as_if_nobody_had_listened() -> None:
    power_T = frame_power(bursts(2) + noise(2, -50))
    assert snr_db(power_T, np.ones(200, np.float32)) == snr_db(power_T)


@pytest.mark.parametrize("rate_hz", [4000, 8000, 12_000])
def test_bandwidth_remembers_the_rate_a_recording_once_had(rate_hz: int) -> None:
    narrow = soxr.resample(noise(2, -20), SAMPLE_RATE, rate_hz)
    wide = soxr.resample(narrow, rate_hz, SAMPLE_RATE).astype(np.float32)
    assert bandwidth_hz(wide) == pytest.approx(rate_hz / 2, rel=0.07)


def test_bandwidth_of_noise_and_of_silence() -> None:
    assert bandwidth_hz(noise(1, -20)) == SAMPLE_RATE / 2
    assert bandwidth_hz(np.zeros(SAMPLE_RATE, np.float32)) == 0


def test_silence_at_the_ends_is_measured() -> None:
    samples = np.concatenate([np.zeros(8000, np.float32), bursts(2, on_share=1), np.zeros(4000, np.float32)])
    quality = measure(samples + noise(2.75, -70))
    assert quality.silence_start_s == pytest.approx(0.5, abs=0.03)
    assert quality.silence_end_s == pytest.approx(0.25, abs=0.03)
    nothing = measure(noise(1, -30))
    assert nothing.silence_start_s > 0.2


MEASURES = st.fixed_dictionaries(
    {
        "snr_db": st.floats(*SNR_LIMITS_DB),
        "voice_ratio": st.floats(0, 1),
        "clipping": st.floats(0, 1),
        "bandwidth_hz": st.floats(0, 8000),
    }
)


@given(MEASURES, MEASURES)
def test_the_score_never_falls_when_a_measure_improves(one: dict[str, float], other: dict[str, float]) -> None:
    better = {name: (min if name == "clipping" else max)(one[name], other[name]) for name in one}
    assert 0 <= score(**one) <= score(**better) <= 1


def test_the_score_tells_speech_from_noisy_speech_from_noise(speech: Callable[[float, int], np.ndarray]) -> None:
    clean = speech(3, 0)
    level_db = loudness_db(clean)
    clips = [clean, clean + noise(3, level_db - 5), noise(3, level_db)]
    scores = [measure(clip, listen(clip)).quality for clip in clips]
    assert scores == sorted(scores, reverse=True)
    assert scores[0] > 0.9
    assert scores[2] < 0.01


def test_measure_names_are_columns_of_the_pool() -> None:
    assert set(vars(measure(noise(1, -20)))) <= set(UTTERANCE.names)


def test_no_samples_is_an_error() -> None:
    with pytest.raises(PoolError, match=r"non-empty .* got shape \(0,\)"):
        measure(np.zeros(0, dtype=np.float32))


def test_measure_is_a_thousand_times_faster_than_speech() -> None:
    samples = noise(60, -20)
    measure(samples)
    # The best of three, so that a busy machine does not fail the test.
    best_s = min(_seconds(samples) for _ in range(3))
    assert 60 / best_s > 1000


def _seconds(samples: np.ndarray) -> float:
    began = time.perf_counter()
    measure(samples)
    return time.perf_counter() - began


def test_reasons_are_single_words_with_an_explanation() -> None:
    for reason, explanation in REASONS.items():
        assert reason == reason.lower()
        assert " " not in reason
        assert explanation
