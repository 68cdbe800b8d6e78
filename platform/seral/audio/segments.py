"""Start and end of the utterances of a long recording, by voice activity; the recording is read as a stream."""

# S samples at 16 kHz · T frames of 10 ms
from __future__ import annotations

from collections.abc import Iterator
from itertools import pairwise
from pathlib import Path

import numpy as np
import soundfile as sf
import soxr
from numpy.typing import NDArray

from seral.audio.channels import mix_down
from seral.audio.voice import FRAME_S, SPEECH, Samples, stream_probability
from seral.schema import SAMPLE_RATE

BLOCK_S = 20
CANCELLED_DB = 10.0
"""Of a block whose channels cancel so much the best is heard, else their mean, in which nobody is missing."""
SMOOTH_FRAMES = 21
"""An utterance that is too long is cut where these frames together sound least like speech."""


def recording_voice(path: Path) -> NDArray[np.float32]:
    """Probability of speech in every 10 ms of a recording of any length, (T,): 1.4 MB an hour, and one block of audio.

    Raises sf.LibsndfileError where the recording cannot be read, and OSError.
    """
    return np.concatenate([np.empty(0, np.float32), *stream_probability(read_blocks(path))])


def read_blocks(path: Path) -> Iterator[Samples]:
    """A recording of any length as blocks at 16 kHz, mono."""
    with path.open("rb") as file, sf.SoundFile(file) as sound:
        resampler = soxr.ResampleStream(sound.samplerate, SAMPLE_RATE, 1, dtype="float32", quality="HQ")
        while len(frames_TC := sound.read(BLOCK_S * sound.samplerate, dtype="float32", always_2d=True)):
            yield resampler.resample_chunk(mix_down(frames_TC, sound.samplerate, most_loss_db=CANCELLED_DB))
        yield resampler.resample_chunk(np.empty(0, np.float32), last=True)


def utterances(
    voice_T: NDArray[np.float32], *, min_s: float, max_s: float, gap_s: float, pad_s: float
) -> list[tuple[float, float]]:
    """Start and end of every utterance in seconds, in order, never overlapping.

    Speech with pauses shorter than `gap_s` is one utterance; one with less than `min_s` from its beginning to its end
    is left out. One longer than `max_s` is cut where it sounds least like speech. Each gets up to `pad_s` of what comes
    before and after it, at most half of the pause it shares with the next one.
    """
    least, most, gap, pad = (round(value / FRAME_S) for value in (min_s, max_s - 2 * pad_s, gap_s, pad_s))
    pieces = [
        piece
        for start, end in _runs(voice_T > SPEECH, gap)
        if end - start >= least
        for piece in _pieces(voice_T, start, end, least, most)
    ]
    limits = [0, *((end + start) // 2 for (_, end), (start, _) in pairwise(pieces)), len(voice_T)]
    return [
        (round(max(start - pad, low) * FRAME_S, 2), round(min(end + pad, high) * FRAME_S, 2))
        for (start, end), (low, high) in zip(pieces, pairwise(limits), strict=False)
    ]


def _runs(speech_T: NDArray[np.bool_], gap: int) -> list[tuple[int, int]]:
    """First frame and the frame after the last of all speech, joined across less than `gap` frames."""
    edges = np.flatnonzero(np.diff(np.concatenate([[False], speech_T, [False]])))
    starts, ends = edges[::2], edges[1::2]
    new_run = starts[1:] - ends[:-1] >= gap
    is_start, is_end = np.concatenate([[True], new_run]), np.concatenate([new_run, [True]])
    return list(zip(starts[is_start].tolist(), ends[is_end].tolist(), strict=True)) if len(starts) else []


def _pieces(voice_T: NDArray[np.float32], start: int, end: int, least: int, most: int) -> Iterator[tuple[int, int]]:
    """The frames from start to end in pieces of `least` to `most`, cut where speech is least likely."""
    while end - start > most:
        low, high = start + most // 2, min(start + most, end - least)
        smooth_T = np.convolve(voice_T[start:end], np.ones(SMOOTH_FRAMES), mode="same")
        cut = low + int(np.argmin(smooth_T[low - start : high - start + 1]))
        yield start, cut
        start = cut
    yield start, end
