"""What can be measured of a clip without listening, and the words for why a clip is left out.

Everything works on float32 samples at 16 kHz, full scale = 1, and costs a few passes over the array. The measures
describe the recording, not the person: they are for filtering and for reports, and none of them needs a model.
"""

# S samples · F frames of 20 ms
from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from seral.errors import PoolError
from seral.schema import SAMPLE_RATE

Samples = NDArray[np.float32]

REASONS: dict[str, str] = {
    "missing": "the file is not there",
    "unreadable": "the file cannot be opened: permissions, a folder under that name, or a failing disk",
    "empty": "the file has 0 bytes",
    "lfs-stub": "a Git LFS pointer stands in place of the audio: run `git lfs pull`",
    "not-audio": "libsndfile knows no such format: text under an audio name, or m4a, mp4, webm (convert these first)",
    "no-frames": "a sound header without any audio behind it",
    "truncated": "the file ends before the audio its header announces",
    "bad-segment": "start or end lies outside the recording, or start is not before end",
    "not-finite": "NaN or infinite samples",
    "out-of-range": "floating-point samples far beyond full scale: the scaling is unknown",
    "too-short": "shorter than the shortest clip worth hearing",
    "too-long": "longer than the longest clip allowed: cut it into utterances first",
    "silent": "nothing above the silence level",
    "unreadable-name": "the file's name does not follow the corpus's convention, so nothing is known about it",
    "no-label": "the corpus's label files say nothing of this audio",
    "no-audio": "the corpus's label files name an utterance whose audio is not there",
    "conflict": "the corpus's label files say different things of the same utterance",
    "known-bad": "a clip that is known to be broken in every copy of the corpus",
    "repeated": "the same audio under the same name is in the pool already",
    "features": "the encoder gives nothing usable for the clip (in the quarantine of a feature cache)",
}
"""Every reason for quarantine, and what it means."""

FRAME_SAMPLES = SAMPLE_RATE // 50
LEVEL_FLOOR_DB = -100.0
"""Level reported for digital silence, dBFS; a little under the step of 16-bit audio."""
FULL_SCALE = 1.0 - 1e-4
NOISE_SHARE = 0.1
"""The quietest share of frames, taken as the background."""
ABOVE_NOISE_DB = 6.0
BELOW_PEAK_DB = 40.0
SNR_LIMITS_DB = (-20.0, 80.0)


@dataclass(frozen=True, kw_only=True)
class Quality:
    """Measures of one clip, named like the columns of the pool."""

    snr_db: float
    """Estimated signal-to-noise ratio, see `snr_db`."""
    clipping: float
    """Share of samples cut off at full scale, 0..1."""
    speech_ratio: float
    """Share of 20 ms frames that stand out from the background, 0..1."""
    loudness_db: float
    """Root mean square of the whole clip, dBFS."""


def measure(samples: Samples) -> Quality:
    """All measures of one clip, (S,) -> Quality."""
    if samples.ndim != 1 or not len(samples):
        raise PoolError(f"a clip is a non-empty (S,) array, got shape {samples.shape}")
    power_F = frame_power(samples)
    return Quality(
        snr_db=snr_db(power_F),
        clipping=clipping(samples),
        speech_ratio=speech_ratio(power_F),
        loudness_db=loudness_db(samples),
    )


def frame_power(samples: Samples) -> NDArray[np.float64]:
    """Mean square of each whole 20 ms frame, (S,) -> (F,); a clip shorter than a frame is one frame."""
    if len(samples) < FRAME_SAMPLES:
        return np.array([np.mean(np.square(samples, dtype=np.float64))])
    frames = samples[: len(samples) // FRAME_SAMPLES * FRAME_SAMPLES].reshape(-1, FRAME_SAMPLES)
    power_F: NDArray[np.float64] = np.einsum("fs,fs->f", frames, frames).astype(np.float64) / FRAME_SAMPLES
    return power_F


def snr_db(power_F: NDArray[np.float64]) -> float:
    """Signal-to-noise ratio from frame powers, 10·log10((P_loud − P_quiet) / P_quiet), in dB.

    P_quiet is the mean of the quietest tenth of the frames, P_loud the mean of the louder half: speech has pauses and
    weak consonants, so its quietest frames show the background. A clip cut so tight that it has no pause looks noisier
    than it is; noise alone comes out below 0 dB when it hisses and a little above when it rumbles.
    """
    quiet = _background(power_F)
    loud = float(np.mean(np.partition(power_F, len(power_F) // 2)[len(power_F) // 2 :]))
    ratio = max(loud - quiet, 1e-9 * quiet) / quiet
    return float(np.clip(10 * np.log10(ratio), *SNR_LIMITS_DB))


def clipping(samples: Samples) -> float:
    """Share of samples at full scale that stand beside another one, 0..1.

    A single sample at full scale is a peak-normalised clip; two in a row are a waveform cut off. Clipping that was
    turned down afterwards is not seen.
    """
    full = np.abs(samples) >= FULL_SCALE
    if not full.any():
        return 0.0
    pairs = full[1:] & full[:-1]
    in_run = np.zeros(len(full), dtype=bool)
    in_run[1:] |= pairs
    in_run[:-1] |= pairs
    return float(np.mean(in_run))


def speech_ratio(power_F: NDArray[np.float64]) -> float:
    """Share of frames at least 6 dB above the background and at most 40 dB below the loudest twentieth, 0..1.

    An energy detector: it finds what comes and goes, which is speech in most pools and a barking dog in others.
    """
    quiet_db = _decibel(_background(power_F))
    loud_db = _decibel(float(np.quantile(power_F, 0.95)))
    threshold_db = max(quiet_db + ABOVE_NOISE_DB, loud_db - BELOW_PEAK_DB, LEVEL_FLOOR_DB + ABOVE_NOISE_DB)
    return float(np.mean(power_F > 10 ** (threshold_db / 10)))


def loudness_db(samples: Samples) -> float:
    """Root mean square of the whole clip in dBFS, not below LEVEL_FLOOR_DB."""
    return _decibel(float(np.dot(samples, samples)) / len(samples))


def _background(power_F: NDArray[np.float64]) -> float:
    count = max(1, int(len(power_F) * NOISE_SHARE))
    quiet = float(np.mean(np.partition(power_F, count - 1)[:count]))
    return max(quiet, 10 ** (LEVEL_FLOOR_DB / 10))


def _decibel(power: float) -> float:
    return max(LEVEL_FLOOR_DB, 10 * float(np.log10(max(power, 1e-30))))
