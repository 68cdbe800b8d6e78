"""What makes one recording into several: speed, level and noise, as pure functions of samples and a generator."""

# S samples at 16 kHz
from __future__ import annotations

import numpy as np
import soxr
from numpy.typing import NDArray

from seral.schema import SAMPLE_RATE

Samples = NDArray[np.float32]


def change_speed(samples: Samples, share: float, rng: np.random.Generator) -> Samples:
    """Play (S,) faster or slower by up to `share`, pitch and all, log-uniformly."""
    factor = float(np.exp(rng.uniform(-1, 1) * np.log1p(share)))
    return np.asarray(soxr.resample(samples, SAMPLE_RATE * factor, SAMPLE_RATE, quality="MQ"), dtype=np.float32)


def change_level(samples: Samples, gain_db: tuple[float, float], rng: np.random.Generator) -> Samples:
    """Turn (S,) up or down by dB drawn from the range; what leaves full scale is clipped, as a recorder would."""
    louder: Samples = samples * np.float32(10 ** (rng.uniform(*gain_db) / 20))
    return np.clip(louder, -1.0, 1.0)


def add_noise(samples: Samples, noise: Samples, snr_db: tuple[float, float], rng: np.random.Generator) -> Samples:
    """Add a random piece of `noise`, repeated if it is shorter, at a ratio drawn from the range, (S,) -> (S,)."""
    start = int(rng.integers(len(noise)))
    piece = np.resize(np.roll(noise, -start), len(samples))
    power, noise_power = (float(np.mean(np.square(part, dtype=np.float64))) for part in (samples, piece))
    if noise_power == 0.0:
        return samples
    scale = np.sqrt(power / noise_power * 10 ** (-rng.uniform(*snr_db) / 10))
    noisy: Samples = samples + piece * np.float32(scale)
    return np.clip(noisy, -1.0, 1.0)
