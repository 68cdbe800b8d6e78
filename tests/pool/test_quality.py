from __future__ import annotations

import time

import numpy as np
import pytest

from seral.errors import PoolError
from seral.pool.quality import (
    LEVEL_FLOOR_DB,
    REASONS,
    SNR_LIMITS_DB,
    clipping,
    frame_power,
    loudness_db,
    measure,
    snr_db,
    speech_ratio,
)
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
    power_F = frame_power(noise(4, -30))
    assert snr_db(power_F) < 0
    assert speech_ratio(power_F) < 0.02


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
        here and (any(full[max(0, index - 1) : index]) or any(full[index + 1 : index + 2]))
        for index, here in enumerate(full)
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
        values = [quality.snr_db, quality.clipping, quality.speech_ratio, quality.loudness_db]
        assert np.isfinite(values).all()
        assert 0 <= quality.speech_ratio <= 1


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
