from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest

from seral.audio.effects import CODECS, add_noise, change_level, change_speed, limit_band, reverberate, through_codec
from seral.audio.quality import bandwidth_hz
from seral.errors import OptionError


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


@pytest.mark.parametrize("rt60_s", [0.2, 0.8])
def test_an_echo_dies_away_in_its_time_and_keeps_the_loudness(rt60_s: float) -> None:
    click = np.zeros(32_000, np.float32)
    click[:160] = tone(1000, seconds=0.01)
    room = reverberate(click, (rt60_s, rt60_s), (0.0, 0.0), np.random.default_rng(0))
    assert np.mean(room**2) == pytest.approx(np.mean(click**2), rel=0.01)
    power_T = np.square(room[160 : int(0.8 * rt60_s * 16_000)], dtype=np.float64)
    power_T = power_T[: len(power_T) // 80 * 80].reshape(-1, 80).mean(1)  # 5 ms each
    slope_db = np.polyfit(0.005 * np.arange(len(power_T)), 10 * np.log10(power_T), 1)[0]
    assert slope_db == pytest.approx(-60 / rt60_s, rel=0.15)
    late = int(1.2 * rt60_s * 16_000) + 1600
    assert np.abs(room[late:]).max() < 1e-4


def test_a_dry_room_changes_little() -> None:
    speech = tone(500)
    room = reverberate(speech, (0.3, 0.3), (40.0, 40.0), np.random.default_rng(0))
    assert np.corrcoef(speech, room)[0, 1] > 0.999


@pytest.mark.parametrize("highest_hz", [2000, 4000])
def test_a_band_ends_where_it_is_told(highest_hz: float) -> None:
    noise = np.random.default_rng(0).normal(0, 0.1, 16_001).astype(np.float32)
    narrow = limit_band(noise, highest_hz)
    assert narrow.shape == noise.shape
    assert bandwidth_hz(narrow) == pytest.approx(highest_hz, rel=0.06)
    assert np.std(narrow) == pytest.approx(0.1 * np.sqrt(highest_hz / 8000), rel=0.05)


def test_a_band_beyond_half_the_rate_is_refused() -> None:
    with pytest.raises(OptionError, match="at most at 8000 Hz, got 9000"):
        limit_band(tone(500), 9000)


@pytest.mark.parametrize("codec", CODECS)
def test_a_codec_keeps_a_voice_and_its_length(codec: str, speech: Callable[[float, int], np.ndarray]) -> None:
    samples = speech(1.5, 0)[:-7]
    coded = through_codec(samples, codec)
    assert coded.shape == samples.shape
    assert coded.dtype == np.float32
    assert 0.8 < np.corrcoef(samples, coded)[0, 1] < 1
    assert (bandwidth_hz(coded) < 4400) == (CODECS[codec][2] == 8000)


def test_an_unknown_codec_is_told_with_the_known_ones() -> None:
    with pytest.raises(OptionError, match="unknown codec 'flac'; known: gsm, mp3"):
        through_codec(tone(500), "flac")
