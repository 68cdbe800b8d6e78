from __future__ import annotations

import numpy as np
import pytest

from seral.train.augment import add_noise, change_level, change_speed


def tone(hertz: float, seconds: float = 1.0, level: float = 0.1) -> np.ndarray:
    return (level * np.sin(2 * np.pi * hertz * np.arange(int(16_000 * seconds)) / 16_000)).astype(np.float32)


def peak_hz(samples: np.ndarray) -> float:
    return float(np.argmax(np.abs(np.fft.rfft(samples * np.hanning(len(samples)), 160_000)))) / 10


def test_speed_changes_length_and_pitch_by_the_same_factor_within_the_share() -> None:
    factors = []
    for seed in range(20):
        changed = change_speed(tone(500), 0.1, np.random.default_rng(seed))
        factor = 16_000 / len(changed)
        assert peak_hz(changed) == pytest.approx(500 * factor, rel=0.01)
        factors.append(factor)
    assert 1 / 1.1 - 1e-3 <= min(factors) < 0.97 < 1.03 < max(factors) <= 1.1 + 1e-3


def test_level_stays_in_its_range_and_full_scale_is_the_limit() -> None:
    gains_db = [
        20 * np.log10(np.abs(change_level(tone(500), (-12.0, 6.0), np.random.default_rng(seed))).max() / 0.1)
        for seed in range(20)
    ]
    assert -12.01 <= min(gains_db) < -8 < 2 < max(gains_db) <= 6.01
    assert np.abs(change_level(tone(500, level=0.9), (6.0, 6.0), np.random.default_rng(0))).max() == 1.0


@pytest.mark.parametrize("seconds", [0.2, 3.0])
def test_noise_of_any_length_comes_at_the_asked_ratio(seconds: float) -> None:
    rng = np.random.default_rng(0)
    speech = tone(500)
    noise = rng.standard_normal(int(16_000 * seconds)).astype(np.float32)
    noisy = add_noise(speech, noise, (10.0, 10.0), rng)
    ratio_db = 10 * np.log10(np.mean(speech**2) / np.mean((noisy - speech) ** 2))
    assert ratio_db == pytest.approx(10.0, abs=0.1)
    assert noisy.dtype == np.float32


def test_silence_as_noise_changes_nothing() -> None:
    speech = tone(500)
    assert add_noise(speech, np.zeros(100, np.float32), (10.0, 10.0), np.random.default_rng(0)) is speech
