"""Voice activity of a clip by two listenings, so that shouts, whispers and faint voices are heard as speech too.

A detector trained on commands to a machine misses voices far from these: the raised pitch of women's anger and joy,
the faint end of sadness. Brought to an even level, and once more a quarter slower, where a shout has the pitch of
speech, the same detector hears them. Harmonicity and modulation tell noise from speech worse and are not used
(docs/results/quality.md).
"""

# S samples at 16 kHz · T frames of 10 ms
from __future__ import annotations

import numpy as np
import soxr
from numpy.typing import NDArray

from seral.audio.quality import ENOUGH_VOICE, away_from_speech, foreground, frame_power, voice_ratio
from seral.audio.voice import Samples, voice_probability
from seral.schema import SAMPLE_RATE

LOUD_DB = -23.0
"""Level that the louder half of a clip is brought to, dBFS: the detector hardly hears what lies below -50."""
SLOWER = 1.25
"""So many times as long, and as low, is the second listening."""


def listen(samples: Samples) -> NDArray[np.float32]:
    """Probability of speech in every 10 ms of a clip, the greater of two listenings, (S,) -> (T,).

    The first one is enough where most of what stands out from the background is speech, the rest within 0.2 s of it.
    """
    power_T = frame_power(samples)
    gain = np.sqrt(10 ** (LOUD_DB / 10) / max(_loud_power(power_T), 1e-12))
    even = np.clip(samples * np.float32(gain), -1, 1).astype(np.float32)
    voice_T, foreground_T = voice_probability(even), foreground(power_T)
    unheard_T = foreground_T & away_from_speech(len(power_T), voice_T)
    if voice_ratio(foreground_T, voice_T) >= ENOUGH_VOICE and not unheard_T.any():
        return voice_T
    slow = np.asarray(soxr.resample(even, SAMPLE_RATE, SAMPLE_RATE * SLOWER), dtype=np.float32)
    slow_T = voice_probability(slow)
    at_T = ((np.arange(len(voice_T)) + 0.5) * SLOWER).astype(np.int64)
    return np.maximum(voice_T, slow_T[np.minimum(at_T, len(slow_T) - 1)])


def _loud_power(power_T: NDArray[np.float64]) -> float:
    """Mean power of the louder half of the frames."""
    return float(np.mean(np.partition(power_T, len(power_T) // 2)[len(power_T) // 2 :]))
