"""Measures of a clip that need no listener, and the words for why a clip is left out.

Everything works on float32 samples at 16 kHz, full scale = 1, and costs a few passes over the array. The measures
describe the recording, not the person: they are for filtering and for reports. Whether it sounds like
speech takes more than arithmetic: seral.audio.listening.
"""

# S samples · T frames: of 20 ms, in voice_T of 10 ms
from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from seral.audio.voice import SPEECH, Samples
from seral.errors import PoolError
from seral.schema import SAMPLE_RATE

REASONS: dict[str, str] = {
    "missing": "the file is not there",
    "unreadable": "the file cannot be opened: permissions, a folder or a pipe under that name, or a failing disk",
    "empty": "the file has 0 bytes",
    "outside": "a path, or a link, leads out of the corpus folder: --allow-outside takes such files",
    "lfs-stub": "a Git LFS pointer stands in place of the audio: run `git lfs pull`",
    "not-audio": "no known format: text under an audio name, or m4a, mp4, webm without the extra `codecs`",
    "no-frames": "a sound header without any audio behind it",
    "truncated": "the file ends before the audio its header announces",
    "bad-segment": "start or end lies outside the recording, or start is not before end",
    "not-finite": "NaN or infinite samples",
    "out-of-range": "floating-point samples far beyond full scale: the scaling is unknown",
    "too-short": "shorter than the shortest clip worth hearing",
    "too-long": "longer than the longest clip allowed: cut it into utterances first",
    "too-large": "more channels, or more bytes when decoded, than are allowed: max_channels, max_decoded_mb",
    "silent": "nothing above the silence level",
    "unreadable-name": "the file's name does not follow the corpus's convention, so nothing is known about it",
    "bad-text": "the text beside the audio is no valid JSON, or exceeds max_text_mb or max_nesting",
    "no-label": "the corpus's label files say nothing of this audio",
    "no-audio": "the corpus's label files name an utterance whose audio is not there",
    "conflict": "the corpus's label files say different things of the same utterance",
    "known-bad": "a clip that is known to be broken in every copy of the corpus",
    "repeated": "the same audio under the same name is in the pool already",
    "erased": "erased from the pool on request, and kept out since; the row does not say which file it was",
    "features": "the encoder gives nothing usable for the clip (in the quarantine of a feature cache)",
}
"""Every reason for quarantine, and what it means."""

FRAME_SAMPLES = SAMPLE_RATE // 50
FRAME_S = FRAME_SAMPLES / SAMPLE_RATE
LEVEL_FLOOR_DB = -100.0
"""Level reported for digital silence, dBFS; a little under the step of 16-bit audio."""
FULL_SCALE = 1.0 - 1e-4
NOISE_SHARE = 0.1
"""The quietest share of frames, taken as the background."""
ABOVE_NOISE_DB = 6.0
BELOW_PEAK_DB = 40.0
SNR_LIMITS_DB = (-20.0, 80.0)
PAUSE_EDGE_S = 0.2
LEAST_PAUSE_S = 0.2
"""Shortest total of the frames at least PAUSE_EDGE_S from speech that counts as a pause of the voice."""
SPECTRUM_SAMPLES = 512
"""Samples of a frame of the spectrum: 32 ms, bins of 31 Hz."""
LOWEST_HZ = 100
"""Below lies hum; it does not count as the spectrum's peak."""
BELOW_SPECTRUM_PEAK_DB = 60.0
WINDOW = np.hanning(SPECTRUM_SAMPLES).astype(np.float32)
HALF_SNR_DB, SNR_SLOPE_DB, LEAST_SNR_DB = 5.0, 5.0, -5.0
ENOUGH_VOICE, VOICE_POWER = 0.6, 3
RUINED_CLIPPING = 0.1
TELEPHONE_HZ = 3400.0
"""See `score`."""


@dataclass(frozen=True, kw_only=True)
class Quality:
    """Measures of one clip, named like the columns of the pool."""

    snr_db: float
    """Estimated signal-to-noise ratio, see `snr_db`."""
    clipping: float
    """Share of samples cut off at full scale, 0..1."""
    speech_ratio: float
    """Share of 20 ms frames that stand out from the background, 0..1."""
    voice_ratio: float | None
    """Share of the foreground that sounds like speech, see `voice_ratio`; None = nobody listened for it."""
    loudness_db: float
    """Root mean square of the whole clip, dBFS."""
    bandwidth_hz: float
    """Highest frequency that carries anything, see `bandwidth_hz`."""
    silence_start_s: float
    """Seconds before the first frame that stands out from the background; the whole clip when none does."""
    silence_end_s: float
    """Seconds after the last such frame."""
    quality: float
    """All of it in one number, see `score`, 0..1."""


def measure(samples: Samples, voice_T: NDArray[np.float32] | None = None) -> Quality:
    """All measures of one clip, (S,) and the probability of speech in its 10 ms frames -> Quality."""
    if samples.ndim != 1 or not len(samples):
        raise PoolError(f"a clip is a non-empty (S,) array, got shape {samples.shape}")
    power_T = frame_power(samples)
    foreground_T = foreground(power_T)
    loud_T = np.flatnonzero(foreground_T)
    length_s = len(samples) / SAMPLE_RATE
    snr, cut_off, band_hz = snr_db(power_T, voice_T), clipping(samples), bandwidth_hz(samples)
    voice = None if voice_T is None else voice_ratio(foreground_T, voice_T)
    return Quality(
        snr_db=snr,
        clipping=cut_off,
        speech_ratio=float(np.mean(foreground_T)),
        voice_ratio=voice,
        loudness_db=loudness_db(samples),
        bandwidth_hz=band_hz,
        silence_start_s=float(loud_T[0] * FRAME_S) if len(loud_T) else length_s,
        silence_end_s=length_s - float((loud_T[-1] + 1) * FRAME_S) if len(loud_T) else length_s,
        quality=score(snr_db=snr, clipping=cut_off, bandwidth_hz=band_hz, voice_ratio=voice),
    )


def score(*, snr_db: float, clipping: float, bandwidth_hz: float, voice_ratio: float | None = None) -> float:
    """One number for a recording, 0 (noise, or ruined) to 1 (clean speech); it never falls when a measure improves.

        quality = 1 / (1 + exp(-(max(snr_db, -5) - 5) / 5)) · min(1, voice_ratio / 0.6)³
                  · (1 - min(1, clipping / 0.1)) · min(1, bandwidth_hz / 3400)

    Three fifths of speech are as good as all speech, a telephone's band is wide enough, and what was not measured does
    not count. An estimate below -5 dB where speech is heard is more often a voice that was missed than noise: by its
    ratio alone no clip has less than 0.12. The constants were set by hand on half of the speakers of two corpora and
    half of the noises of docs/results/quality.md, which reports the other speakers, corpora and noises.
    """
    return math.prod(_factors(snr_db, clipping, bandwidth_hz, voice_ratio).values())


def weakest(*, snr_db: float, clipping: float, bandwidth_hz: float, voice_ratio: float | None = None) -> str:
    """The measure that lowers the score most."""
    factors = _factors(snr_db, clipping, bandwidth_hz, voice_ratio)
    return min(factors, key=factors.__getitem__)


def _factors(snr_db: float, clipping: float, bandwidth_hz: float, voice_ratio: float | None) -> dict[str, float]:
    """Factor of each measure in the score, 0..1."""
    return {
        "voice_ratio": 1.0 if voice_ratio is None else min(1.0, voice_ratio / ENOUGH_VOICE) ** VOICE_POWER,
        "snr_db": 1 / (1 + math.exp(-(max(snr_db, LEAST_SNR_DB) - HALF_SNR_DB) / SNR_SLOPE_DB)),
        "clipping": 1 - min(1.0, clipping / RUINED_CLIPPING),
        "bandwidth_hz": min(1.0, bandwidth_hz / TELEPHONE_HZ),
    }


def frame_power(samples: Samples) -> NDArray[np.float64]:
    """Mean square of each whole 20 ms frame, (S,) -> (T,); a clip shorter than a frame is one frame."""
    if len(samples) < FRAME_SAMPLES:
        return np.array([np.mean(np.square(samples, dtype=np.float64))])
    frames = samples[: len(samples) // FRAME_SAMPLES * FRAME_SAMPLES].reshape(-1, FRAME_SAMPLES)
    power_T: NDArray[np.float64] = np.einsum("ts,ts->t", frames, frames).astype(np.float64) / FRAME_SAMPLES
    return power_T


def snr_db(power_T: NDArray[np.float64], voice_T: NDArray[np.float32] | None = None) -> float:
    """Signal-to-noise ratio from frame powers, 10·log10((P_loud − P_noise) / P_noise), in dB.

    P_loud is the mean of the louder half of the frames. P_noise is the mean of the quietest tenth: speech has pauses
    and weak consonants, which show a steady background. With the probability of speech in 10 ms frames it is, where
    that is more, the mean of the frames at least 0.2 s away from speech, if these last 0.2 s: a background that comes
    and goes. A clip cut so tight that it has no pause looks noisier than it is by the first and cleaner by the second.
    """
    noise = _background(power_T)
    if voice_T is not None:
        pause_T = away_from_speech(len(power_T), voice_T)
        if pause_T.sum() * FRAME_S >= LEAST_PAUSE_S:
            noise = max(noise, float(np.mean(power_T[pause_T])))
    loud = float(np.mean(np.partition(power_T, len(power_T) // 2)[len(power_T) // 2 :]))
    ratio = max(loud - noise, 1e-9 * noise) / noise
    return float(np.clip(10 * np.log10(ratio), *SNR_LIMITS_DB))


def away_from_speech(frames: int, voice_T: NDArray[np.float32]) -> NDArray[np.bool_]:
    """Mask of the 20 ms frames without speech within PAUSE_EDGE_S, from the probabilities of 10 ms frames, (T,)."""
    reach = round(PAUSE_EDGE_S / FRAME_S)
    near_T = np.convolve(_speech(frames, voice_T), np.ones(2 * reach + 1), mode="full")[reach : reach + frames]
    return np.asarray(near_T < 0.5)


def voice_ratio(foreground_T: NDArray[np.bool_], voice_T: NDArray[np.float32]) -> float:
    """Share of the 20 ms frames in the foreground that sound like speech, 0..1; of all frames where none stands out.

    Pauses do not count, so it does not depend on how tight a clip was cut.
    """
    speech_T = _speech(len(foreground_T), voice_T)
    return float(np.mean(speech_T[foreground_T] if foreground_T.any() else speech_T))


def _speech(frames: int, voice_T: NDArray[np.float32]) -> NDArray[np.bool_]:
    """Mask of the 20 ms frames of which a half sounds like speech, from the probabilities of 10 ms frames, (T,)."""
    return np.asarray(np.resize(voice_T > SPEECH, 2 * frames).reshape(frames, 2).any(axis=1))


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


def speech_ratio(power_T: NDArray[np.float64]) -> float:
    """Share of frames in the foreground, 0..1.

    An energy detector: it finds what comes and goes, which is speech in most pools and a barking dog in others.
    """
    return float(np.mean(foreground(power_T)))


def foreground(power_T: NDArray[np.float64]) -> NDArray[np.bool_]:
    """Frames at least 6 dB above the background and at most 40 dB below the loudest twentieth, (T,) -> (T,)."""
    quiet_db = _decibel(_background(power_T))
    loud_db = _decibel(float(np.quantile(power_T, 0.95)))
    threshold_db = max(quiet_db + ABOVE_NOISE_DB, loud_db - BELOW_PEAK_DB, LEVEL_FLOOR_DB + ABOVE_NOISE_DB)
    return power_T > 10 ** (threshold_db / 10)


def bandwidth_hz(samples: Samples) -> float:
    """The highest frequency less than 60 dB below the peak of the mean spectrum of the louder half, in Hz.

    Speech that once was on a telephone at 8 kHz reads about 4000 at any rate it is stored at; noise added afterwards
    fills the band again and is not told from speech.
    """
    count = max(1, len(samples) // SPECTRUM_SAMPLES)
    frames = np.resize(samples, count * SPECTRUM_SAMPLES).reshape(count, SPECTRUM_SAMPLES)
    power_T = np.einsum("ts,ts->t", frames, frames)
    loud = frames[power_T >= np.median(power_T)]
    bins = np.fft.rfft(loud * WINDOW, axis=1)
    power = np.mean(bins.real**2 + bins.imag**2, axis=0)
    lowest = LOWEST_HZ * SPECTRUM_SAMPLES // SAMPLE_RATE + 1
    audible_bins = np.flatnonzero(power[lowest:] > power[lowest:].max() * 10 ** (-BELOW_SPECTRUM_PEAK_DB / 10))
    return float(audible_bins[-1] + lowest) * SAMPLE_RATE / SPECTRUM_SAMPLES if len(audible_bins) else 0.0


def loudness_db(samples: Samples) -> float:
    """Root mean square of the whole clip in dBFS, not below LEVEL_FLOOR_DB."""
    return _decibel(float(np.dot(samples, samples)) / len(samples))


def _background(power_T: NDArray[np.float64]) -> float:
    count = max(1, int(len(power_T) * NOISE_SHARE))
    quiet = float(np.mean(np.partition(power_T, count - 1)[:count]))
    return max(quiet, 10 ** (LEVEL_FLOOR_DB / 10))


def _decibel(power: float) -> float:
    return max(LEVEL_FLOOR_DB, 10 * float(np.log10(max(power, 1e-30))))
