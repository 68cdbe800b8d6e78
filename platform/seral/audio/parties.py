"""Calls with a party in each of two channels: who speaks in which frame, and what only leaks over from the other side.

A frame in which a channel hears speech is its own unless the other channel is louder, both measured against the level
of their own speech: what leaks over is fainter than at its source. Where neither is much louder, both speak.
"""

# T frames of 10 ms
from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from scipy.ndimage import uniform_filter1d

from seral.audio.channels import Channel
from seral.audio.segments import read_blocks
from seral.audio.voice import FRAME_SAMPLES, SPEECH, Samples, stream_probability

PARTIES: tuple[Channel, Channel] = ("left", "right")
LEAK_DB = 6.0
"""Speech so much fainter than what the other channel hears at that time is the other's."""
SMOOTH_FRAMES = 25
"""Levels are compared over so many frames."""
LOUD_SHARE = 0.2
"""The loudest of a channel's frames of speech, which are its own, give its level."""
MOST_GAIN_DB = 10.0
"""Channels differ in gain by so much at most: more is a party that never speaks, of whom only a leak would be left."""


@dataclass(frozen=True, kw_only=True)
class Party:
    """One channel of a call."""

    channel: Channel
    voice_T: NDArray[np.float32]
    """Probability of speech."""
    own_T: NDArray[np.bool_]
    """Speech of this party."""


def parties(path: Path) -> tuple[Party, Party]:
    """The two parties of a recording of two channels. Raises sf.LibsndfileError and OSError."""
    voices, powers = zip(*(_voice_and_power(path, channel) for channel in PARTIES), strict=True)
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
    levels = [_level_db(power, voice) for power, voice in ((power_T, voice_T), (other_power_T, other_voice_T))]
    gain_db = float(np.clip(levels[0][1] - levels[1][1], -MOST_GAIN_DB, MOST_GAIN_DB))
    ahead_T = levels[0][0] - levels[1][0] - gain_db
    return (voice_T > SPEECH) & (ahead_T > -LEAK_DB), (other_voice_T > SPEECH) & (ahead_T < LEAK_DB)


def _level_db(power_T: NDArray[np.float32], voice_T: NDArray[np.float32]) -> tuple[NDArray[np.float64], float]:
    """Smoothed level of a channel, and the level of its loudest speech, dB."""
    smooth_T = uniform_filter1d(power_T.astype(np.float64), SMOOTH_FRAMES) if len(power_T) else power_T
    level_T = np.asarray(10 * np.log10(np.maximum(smooth_T, 1e-12)), np.float64)
    spoken = level_T[voice_T > SPEECH]
    return level_T, float(np.quantile(spoken, 1 - LOUD_SHARE) if len(spoken) else level_T.max(initial=-120.0))


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
