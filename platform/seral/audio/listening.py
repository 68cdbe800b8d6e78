"""Voice activity of a clip by several listenings, so that shouts, whispers, faint voices and laughter count as speech.

A detector trained on commands to a machine misses voices far from these: the raised pitch of women's anger and joy,
the faint end of sadness. Brought to an even level, and once more a quarter slower, where a shout has the pitch of
speech, the same detector hears them. What is left, laughter and screams at twice the pitch of speech, a second
detector hears, at both speeds. Harmonicity and modulation tell noise from speech worse and are not used
(docs/results/quality.md).
"""

# S samples at 16 kHz · T frames of 10 ms
from __future__ import annotations

import numpy as np
import soxr
from numpy.typing import NDArray

from seral.audio.quality import ENOUGH_VOICE, away_from_speech, foreground, frame_power, voice_ratio
from seral.audio.voice import FRAME_S, SPEECH, Samples, second_probability, voice_probability
from seral.schema import SAMPLE_RATE

LOUD_DB = -23.0
"""Level that the louder half of a clip is brought to, dBFS: the detector hardly hears what lies below -50."""
SLOWER = 1.25
"""So many times as long, and as low, is the second listening."""
LEAST_SECOND_S, LEAST_SECOND_SHARE = 0.6, 0.5
"""The second detector counts where it hears so long a speech, in short clips such a share of it: it takes half a second
of a baby's cry for speech."""


def listen(samples: Samples) -> NDArray[np.float32]:
    """Probability of speech in every 10 ms of a clip, the greatest of up to four listenings, (S,) -> (T,).

    The first one is enough where most of what stands out from the background is speech, the rest within 0.2 s of it;
    the second one, slower, where most is speech then. Else the second detector listens at both speeds, and counts where
    it hears more than a short call (LEAST_SECOND_S).
    """
    power_T = frame_power(samples)
    gain = np.sqrt(10 ** (LOUD_DB / 10) / max(_loud_power(power_T), 1e-12))
    even = np.clip(samples * np.float32(gain), -1, 1).astype(np.float32)
    voice_T, foreground_T = voice_probability(even), foreground(power_T)
    unheard_T = foreground_T & away_from_speech(len(power_T), voice_T)
    if voice_ratio(foreground_T, voice_T) >= ENOUGH_VOICE and not unheard_T.any():
        return voice_T
    slow = np.asarray(soxr.resample(even, SAMPLE_RATE, SAMPLE_RATE * SLOWER), dtype=np.float32)
    at_T = ((np.arange(len(voice_T)) + 0.5) * SLOWER).astype(np.int64)
    voice_T = np.maximum(voice_T, _at(at_T, voice_probability(slow)))
    if voice_ratio(foreground_T, voice_T) >= ENOUGH_VOICE:
        return voice_T
    second_T = np.maximum(second_probability(even), _at(at_T, second_probability(slow)))
    least = min(LEAST_SECOND_S / FRAME_S, LEAST_SECOND_SHARE * len(second_T))
    return np.maximum(voice_T, second_T) if np.sum(second_T > SPEECH) >= least else voice_T


def _at(frames: NDArray[np.int64], voice_T: NDArray[np.float32]) -> NDArray[np.float32]:
    return voice_T[np.minimum(frames, len(voice_T) - 1)]


def _loud_power(power_T: NDArray[np.float64]) -> float:
    """Mean power of the louder half of the frames."""
    return float(np.mean(np.partition(power_T, len(power_T) // 2)[len(power_T) // 2 :]))
