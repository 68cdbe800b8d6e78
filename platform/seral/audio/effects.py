"""Corruptions of a recording: speed, level, noise, rooms, bands and codecs, as functions of samples.

Each that draws at random takes a generator.
"""

# S samples at 16 kHz
from __future__ import annotations

import io
from collections.abc import Sequence

import numpy as np
import soundfile as sf
import soxr
from numpy.typing import NDArray

from seral.audio.options import CorruptionOptions
from seral.errors import OptionError, unknown_name
from seral.schema import SAMPLE_RATE

Samples = NDArray[np.float32]
CODECS: dict[str, tuple[str, str, int]] = {
    "mp3": ("MP3", "MPEG_LAYER_III", 16_000),
    "vorbis": ("OGG", "VORBIS", 16_000),
    "opus": ("OGG", "OPUS", 16_000),
    "gsm": ("WAV", "GSM610", 8000),
    "mu-law": ("WAV", "ULAW", 8000),
}
"""Container, encoding and samples per second of each codec; the last two are those of telephones."""


def corrupt(
    samples: Samples,
    noises: Sequence[Samples],
    options: CorruptionOptions,
    rng: np.random.Generator,
    effects: Sequence[str] | None = None,
) -> Samples:
    """Corrupt one clip, (S,) -> (S,), by all corruptions of the options or by those that `effects` names."""
    effects = options.effects if effects is None else effects
    if "rt60_s" in effects and options.rt60_s is not None:
        samples = reverberate(samples, options.rt60_s, options.drr_db, rng)
    if "snr_db" in effects and options.snr_db is not None:
        noise = noises[int(rng.integers(len(noises)))] if noises else rng.standard_normal(len(samples), np.float32)
        samples = add_noise(samples, noise, options.snr_db, rng)
    if "gain_db" in effects and options.gain_db is not None:
        samples = change_level(samples, options.gain_db, rng)
    if "highest_hz" in effects and options.highest_hz is not None:
        samples = limit_band(samples, options.highest_hz)
    if "codecs" in effects and options.codecs:
        samples = through_codec(samples, str(rng.choice(options.codecs)))
    return samples


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


def reverberate(
    samples: Samples, rt60_s: tuple[float, float], drr_db: tuple[float, float], rng: np.random.Generator
) -> Samples:
    """Put (S,) into a room: the sound itself and after it noise that dies away, in all as loud as before.

    The echo falls by 60 dB in a time drawn from `rt60_s`; the sound is louder than it by a ratio drawn from `drr_db`.
    Noise under an exponential is the statistical model of late reverberation of Moorer 1979, doi 10.2307/3680280.
    Differs from the paper: no early reflections of their own.
    """
    from scipy.signal import fftconvolve  # half a second of imports

    decay_s = rng.uniform(*rt60_s)
    length = max(1, int(decay_s * SAMPLE_RATE))
    echo = rng.standard_normal(length) * 10 ** (-3 * np.arange(length) / length)
    echo *= 10 ** (-rng.uniform(*drr_db) / 20) / np.sqrt(np.sum(echo**2))
    wet = fftconvolve(samples, np.concatenate([[1.0], echo]))[: len(samples)]
    power, wet_power = (float(np.mean(np.square(part, dtype=np.float64))) for part in (samples, wet))
    if wet_power == 0.0:
        return samples
    room: Samples = (wet * np.sqrt(power / wet_power)).astype(np.float32)
    return np.clip(room, -1.0, 1.0)


def limit_band(samples: Samples, highest_hz: float) -> Samples:
    """Take everything above a frequency out of (S,), as a lower sampling rate would."""
    if not 0 < highest_hz <= SAMPLE_RATE / 2:
        raise OptionError(f"a band ends above 0 and at most at {SAMPLE_RATE / 2:g} Hz, got {highest_hz:g}")
    narrow = soxr.resample(samples, SAMPLE_RATE, 2 * highest_hz, quality="HQ")
    return _of_length(soxr.resample(narrow, 2 * highest_hz, SAMPLE_RATE, quality="HQ"), len(samples))


def through_codec(samples: Samples, codec: str) -> Samples:
    """Encode and decode (S,) by one of CODECS, at its own sampling rate; as long as before."""
    if codec not in CODECS:
        raise OptionError(unknown_name("codec", codec, CODECS))
    container, encoding, rate_hz = CODECS[codec]
    buffer = io.BytesIO()
    source = samples if rate_hz == SAMPLE_RATE else soxr.resample(samples, SAMPLE_RATE, rate_hz, quality="HQ")
    sf.write(buffer, np.clip(source, -1.0, 1.0), rate_hz, format=container, subtype=encoding)
    buffer.seek(0)
    decoded, decoded_hz = sf.read(buffer, dtype="float32")
    if decoded_hz != SAMPLE_RATE:
        decoded = soxr.resample(decoded, decoded_hz, SAMPLE_RATE, quality="HQ")
    return np.clip(_of_length(decoded, len(samples)), -1.0, 1.0)


def _of_length(samples: Samples, length: int) -> Samples:
    """Cut at the end or filled up with zeros."""
    return np.pad(samples[:length], (0, max(0, length - len(samples)))).astype(np.float32)
