"""Conversations composed of the clips of a corpus, with what is true of them: who speaks in every 10 ms.

Turns of one to three clips of a speaker, at one level, with pauses inside and between them, some turns beginning before
the last one ends; noise goes on all the time.
"""

# T frames of 10 ms · K clusters, the speakers of a conversation · S samples at 16 kHz
from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from seral.audio.voice import FRAME_SAMPLES, Samples
from seral.schema import SAMPLE_RATE

LEVEL_DB, LEVEL_SPREAD_DB = -25.0, 3.0
"""Level of the speech of a speaker, dBFS, and its standard deviation over speakers: it tells nobody's name."""
BELOW_PEAK_DB = 35.0
"""Frames of a clip so far below its loudest one are pauses."""
LONGEST_STOP_FRAMES = 30
"""A shorter pause inside a clip is speech."""
CLIPS_OF_A_TURN, OVERLAPPING_TURNS = (1, 2, 3), 0.15
PAUSE_S, GAP_S, OVERLAP_S = (0.15, 0.6), (0.1, 1.5), (0.3, 1.2)


@dataclass(frozen=True, kw_only=True)
class Conversation:
    """A recording whose speakers are known."""

    samples: Samples
    """(S,)."""
    speech_TK: NDArray[np.bool_]
    """Frames in which each of the speakers speaks."""
    speakers: tuple[str, ...]

    voice_KS: NDArray[np.float32]
    """Clean speech of each."""


@dataclass(frozen=True, kw_only=True)
class Turn:
    """A piece of speech, and where it begins."""

    speaker: int
    start: int
    """In samples."""
    samples: Samples
    speech_T: NDArray[np.bool_]


def speech_frames(samples: Samples) -> NDArray[np.bool_]:
    """Frames of a clean clip in which somebody speaks, by energy; short pauses are speech, (S,) -> (T,)."""
    frames = len(samples) // FRAME_SAMPLES
    power_T = np.square(samples[: frames * FRAME_SAMPLES].reshape(frames, -1)).mean(axis=1)
    smooth_T = np.convolve(power_T, np.ones(5) / 5, mode="same")
    loud = np.flatnonzero(smooth_T > smooth_T.max() * 10 ** (-BELOW_PEAK_DB / 10))
    speech_T = np.zeros(frames, bool)
    for start, end in zip(loud, [*loud[1:], loud[-1] + 1], strict=True):
        speech_T[start : end if end - start <= LONGEST_STOP_FRAMES else start + 1] = True
    return speech_T


def trimmed(samples: Samples) -> tuple[Samples, NDArray[np.bool_]]:
    """A clip from its first to its last speech, at one level, and its frames of speech."""
    speech_T = speech_frames(samples)
    first, last = np.flatnonzero(speech_T)[[0, -1]]
    inside_T = speech_T[first : last + 1]
    inside = samples[first * FRAME_SAMPLES : (last + 1) * FRAME_SAMPLES]
    power = np.square(inside.reshape(len(inside_T), -1)[inside_T]).mean()
    return (inside * np.sqrt(10 ** (LEVEL_DB / 10) / power)).astype(np.float32), inside_T


def turns(
    clips_of: Mapping[str, Sequence[Samples]], minutes: float, rng: np.random.Generator
) -> tuple[tuple[str, ...], list[Turn]]:
    """Turns of the speakers of some clips, one after another."""
    speakers, made = tuple(sorted(clips_of)), list[Turn]()
    gain_K = 10 ** (rng.normal(0, LEVEL_SPREAD_DB, len(speakers)) / 20)
    orders = [list(rng.permutation(len(clips_of[name]))) for name in speakers]
    at, speaker, floor = round(rng.uniform(*GAP_S) * SAMPLE_RATE), -1, 0
    while at < minutes * 60 * SAMPLE_RATE:
        speaker = int(rng.choice([k for k in range(len(speakers)) if k != speaker] or [speaker]))
        for _ in range(rng.choice(CLIPS_OF_A_TURN)):
            if not orders[speaker]:
                orders[speaker] = list(rng.permutation(len(clips_of[speakers[speaker]])))
            samples, speech_T = trimmed(clips_of[speakers[speaker]][orders[speaker].pop()])
            made.append(
                Turn(speaker=speaker, start=at, samples=samples * np.float32(gain_K[speaker]), speech_T=speech_T)
            )
            end = at + len(samples)
            at = _on_frame(end + rng.uniform(*PAUSE_S) * SAMPLE_RATE)
        overlaps = rng.random() < OVERLAPPING_TURNS
        at = _on_frame(end + (-rng.uniform(*OVERLAP_S) if overlaps else rng.uniform(*GAP_S)) * SAMPLE_RATE)
        at, floor = max(at, floor), end  # not before the turn before the last one is over
    return speakers, made


def _on_frame(samples: float) -> int:
    return round(samples / FRAME_SAMPLES) * FRAME_SAMPLES


def compose(
    clips_of: Mapping[str, Sequence[Samples]],
    noise: Samples | None,
    snr_db: float,
    minutes: float,
    rng: np.random.Generator,
) -> Conversation:
    """A conversation of all speakers of some clips; the ratio is that of speech, where there is any, to the noise."""
    speakers, parts = turns(clips_of, minutes, rng)
    length = max(turn.start + len(turn.samples) for turn in parts) + SAMPLE_RATE
    length -= length % FRAME_SAMPLES
    voice_KS = np.zeros((len(speakers), length), np.float32)
    speech_TK = np.zeros((length // FRAME_SAMPLES, len(speakers)), bool)
    for turn in parts:
        voice_KS[turn.speaker, turn.start : turn.start + len(turn.samples)] += turn.samples
        first = turn.start // FRAME_SAMPLES
        speech_TK[first : first + len(turn.speech_T), turn.speaker] |= turn.speech_T
    samples = voice_KS.sum(axis=0)
    if noise is not None:
        beside = np.resize(noise, length)
        speech = np.repeat(speech_TK.any(axis=1), FRAME_SAMPLES)
        ratio = np.square(samples[speech]).mean() / max(float(np.square(beside).mean()), 1e-12)
        samples = samples + beside * np.float32(np.sqrt(ratio / 10 ** (snr_db / 10)))
    return Conversation(samples=samples, speech_TK=speech_TK, speakers=speakers, voice_KS=voice_KS)


def telephone(conversation: Conversation, leak_db: float, noise: Samples, snr_db: float) -> NDArray[np.float32]:
    """Two speakers in a channel each, (S, 2), who leak over at so many dB, with noise in both."""
    own_KS = conversation.voice_KS[:2]
    mixed_KS = own_KS + np.float32(10 ** (leak_db / 20)) * own_KS[::-1]
    beside = np.resize(noise, own_KS.shape[1])
    ratio = np.square(own_KS).mean() / max(float(np.square(beside).mean()), 1e-12)
    mixed_KS += beside * np.float32(np.sqrt(ratio / 10 ** (snr_db / 10)))
    return np.ascontiguousarray(mixed_KS.T)
