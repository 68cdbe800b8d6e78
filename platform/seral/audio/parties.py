"""Calls with a party in each of two channels: who speaks in which frame, and what only leaks over from the other side.

What leaks over is fainter than at its source, by about as much throughout a call. So the difference of the two levels
has one value while the one party speaks and another while the other does; in the middle between these, both speak.
"""

# T frames of 10 ms
from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from scipy.ndimage import uniform_filter1d

from ser_models.channels import Channel
from seral.audio.segments import read_blocks
from seral.audio.voice import FRAME_SAMPLES, SPEECH, Samples, stream_probability

PARTIES: tuple[Channel, Channel] = ("left", "right")
SMOOTH_FRAMES = 25
"""Levels are compared over so many frames."""
ONE_SPEAKS = (0.05, 0.95)
"""Quantiles of the difference in level over all speech that are taken for those of one party alone."""
LEAST_DB = 12.0
"""If these two are nearer, only one party speaks: the channel that is louder."""
ALIKE_DB = 1.0
"""Channels whose levels hardly ever differ by more hear the same."""
BOTH_DB, BOTH_SHARE = 6.0, 0.25
"""Both speak where the difference is so near to the middle, in dB and as a share of the way between the two."""


@dataclass(frozen=True, kw_only=True)
class Party:
    """One channel of a call."""

    channel: Channel
    voice_T: NDArray[np.float32]
    """Probability of speech."""
    own_T: NDArray[np.bool_]
    """Speech of this party."""


def parties(path: Path) -> tuple[Party, Party] | None:
    """The two parties of a recording of two channels, None where both channels hear the same.

    Raises sf.LibsndfileError and OSError.
    """
    voices, powers = zip(*(_voice_and_power(path, channel) for channel in PARTIES), strict=True)
    spoken = (_level_db(powers[0]) - _level_db(powers[1]))[(voices[0] > SPEECH) | (voices[1] > SPEECH)]
    if len(spoken) and np.abs(np.quantile(spoken, ONE_SPEAKS)).max() < ALIKE_DB:
        return None
    own = own_speech(*voices, *powers)
    left, right = (
        Party(channel=channel, voice_T=voice_T, own_T=own_T)
        for channel, voice_T, own_T in zip(PARTIES, voices, own, strict=True)
    )
    return left, right


def own_speech(
    voice_T: NDArray[np.float32],
    other_voice_T: NDArray[np.float32],
    power_T: NDArray[np.float32],
    other_power_T: NDArray[np.float32],
) -> tuple[NDArray[np.bool_], NDArray[np.bool_]]:
    """Frames in which each of two channels has speech of its own, by probability of speech and power in each."""
    ahead_T = _level_db(power_T) - _level_db(other_power_T)
    spoken = ahead_T[(voice_T > SPEECH) | (other_voice_T > SPEECH)]
    low_db, high_db = np.quantile(spoken, ONE_SPEAKS) if len(spoken) else (0.0, 0.0)
    both_speak = high_db - low_db >= LEAST_DB
    middle_db = (low_db + high_db) / 2 if both_speak else 0.0
    margin_db = min(BOTH_DB, BOTH_SHARE * (high_db - low_db)) if both_speak else 0.0
    left_T = (voice_T > SPEECH) & (ahead_T > middle_db - margin_db)
    return left_T, (other_voice_T > SPEECH) & (ahead_T < middle_db + margin_db)


def _level_db(power_T: NDArray[np.float32]) -> NDArray[np.float64]:
    """Smoothed level of a channel, dB."""
    smooth_T = uniform_filter1d(power_T.astype(np.float64), SMOOTH_FRAMES) if len(power_T) else power_T
    return np.asarray(10 * np.log10(np.maximum(smooth_T, 1e-12)), np.float64)


def _voice_and_power(path: Path, channel: Channel) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    """Probability of speech and mean power in every 10 ms of a channel, (T,) each."""
    powers = [np.empty(0, np.float32)]

    def blocks() -> Iterator[Samples]:
        remainder = np.empty(0, np.float32)
        for block in read_blocks(path, channel):
            samples = np.concatenate([remainder, block])
            whole = len(samples) // FRAME_SAMPLES * FRAME_SAMPLES
            powers.append(np.square(samples[:whole].reshape(-1, FRAME_SAMPLES)).mean(axis=1))
            remainder = samples[whole:]
            yield block

    voice_T = np.concatenate([powers[0], *stream_probability(blocks())])
    power_T = np.concatenate(powers)
    return voice_T[: len(power_T)], power_T[: len(voice_T)]
