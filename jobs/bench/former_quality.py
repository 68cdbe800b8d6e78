"""The quality score as it was before clips were heard twice: the side that jobs.bench.quality compares with."""

# S samples · T frames: of 20 ms, in voice_T of 10 ms
from __future__ import annotations

import math

import numpy as np
from numpy.typing import NDArray

from seral.audio.quality import bandwidth_hz, clipping, frame_power
from seral.audio.voice import SPEECH, Samples, voice_probability

REACH_FRAMES, LEAST_FRAMES = 5, 10


def former_measures(samples: Samples) -> dict[str, float]:
    """Score, ratio to noise and share of speech of one clip, (S,), by the former definitions.

    One listening at the clip's own level; what is 0.1 s away from its speech is noise; speech is counted in all frames.
    """
    voice_T, power_T = voice_probability(samples), frame_power(samples)
    voice_ratio, ratio_db = float(np.mean(voice_T > SPEECH)), _snr_db(power_T, voice_T)
    quality = (
        min(1.0, voice_ratio / 0.4) ** 2
        / (1 + math.exp(-(ratio_db - 5) / 5))
        * (1 - min(1.0, clipping(samples) / 0.1))
        * min(1.0, bandwidth_hz(samples) / 3400)
    )
    return {"former_quality": quality, "former_snr_db": ratio_db, "former_voice_ratio": voice_ratio}


def _snr_db(power_T: NDArray[np.float64], voice_T: NDArray[np.float32]) -> float:
    frames, ordered_T = len(power_T), np.sort(power_T)
    noise = max(float(ordered_T[: max(1, int(frames * 0.1))].mean()), 1e-10)
    speech_T = np.resize(voice_T > SPEECH, 2 * frames).reshape(frames, 2).any(axis=1)
    near_T = np.convolve(speech_T, np.ones(2 * REACH_FRAMES + 1), mode="full")[REACH_FRAMES : REACH_FRAMES + frames]
    pause_T = near_T < 0.5
    if pause_T.sum() >= LEAST_FRAMES:
        noise = max(noise, float(power_T[pause_T].mean()))
    loud = float(ordered_T[frames // 2 :].mean())
    return float(np.clip(10 * np.log10(max(loud - noise, 1e-9 * noise) / noise), -20, 80))
