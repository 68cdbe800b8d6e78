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

from ser_models.channels import Channel, mix_down
from seral.audio.voice import FRAME_S, SPEECH, Samples, stream_probability
from seral.schema import SAMPLE_RATE

BLOCK_S = 20
CANCELLED_DB = 10.0
"""Of a block whose channels cancel so much the best is heard, else their mean, in which nobody is missing."""
SEVERAL = 127
"""In the place of a speaker: frames in which several speak, which no utterance takes."""
SMOOTH_FRAMES = 21
"""An utterance that is too long is cut where these frames together sound least like speech."""


def recording_voice(path: Path, channel: Channel = "auto") -> NDArray[np.float32]:
    """Probability of speech in every 10 ms of a recording of any length, (T,): 1.4 MB an hour, and one block of audio.

    Raises sf.LibsndfileError where the recording cannot be read, and OSError.
    """
    return np.concatenate([np.empty(0, np.float32), *stream_probability(read_blocks(path, channel))])


def read_blocks(path: Path, channel: Channel = "auto") -> Iterator[Samples]:
    """A recording of any length as blocks at 16 kHz, mono; `auto` is the mean unless the channels cancel."""
    with path.open("rb") as file, sf.SoundFile(file) as sound:
        resampler = soxr.ResampleStream(sound.samplerate, SAMPLE_RATE, 1, dtype="float32", quality="HQ")
        while len(frames_TC := sound.read(BLOCK_S * sound.samplerate, dtype="float32", always_2d=True)):
            mono = mix_down(frames_TC, sound.samplerate, channel, most_loss_db=CANCELLED_DB)
            yield resampler.resample_chunk(mono)
        yield resampler.resample_chunk(np.empty(0, np.float32), last=True)


def utterances(
    voice_T: NDArray[np.float32], *, min_s: float, max_s: float, gap_s: float, pad_s: float
) -> list[tuple[float, float]]:
    """Start and end of every utterance in seconds, in order, never overlapping.

    Speech with pauses shorter than `gap_s` is one utterance; one with less than `min_s` from its beginning to its end
    is left out. One longer than `max_s` is cut where it sounds least like speech. Each gets up to `pad_s` of what comes
    before and after it, at most half of the pause it shares with the next one.
    """
    label_T = np.where(voice_T > SPEECH, 0, -1).astype(np.int8)
    spans = speakers_utterances(voice_T, label_T, None, min_s=min_s, max_s=max_s, gap_s=gap_s, pad_s=pad_s)
    return [(start_s, end_s) for start_s, end_s, _ in spans]


def speakers_utterances(
    voice_T: NDArray[np.float32],
    label_T: NDArray[np.int8],
    barred_T: NDArray[np.bool_] | None,
    *,
    min_s: float,
    max_s: float,
    gap_s: float,
    pad_s: float,
) -> list[tuple[float, float, int]]:
    """Start and end in seconds, and the speaker, of every utterance, as `utterances`, each of one speaker alone.

    `label_T` is the speaker of every frame, -1 where nobody speaks and SEVERAL where more than one does, which ends an
    utterance. Padding does not reach into frames that are barred.
    """
    least, most, gap, pad = (round(value / FRAME_S) for value in (min_s, max_s - 2 * pad_s, gap_s, pad_s))
    pieces = [
        piece
        for start, end in runs(label_T, gap)
        if end - start >= least and label_T[start] != SEVERAL
        for piece in _pieces(voice_T, start, end, least, most)
    ]
    middles = [0, *((end + start) // 2 for (_, end), (start, _) in pairwise(pieces)), len(voice_T)]
    barred = np.flatnonzero(barred_T) if barred_T is not None else np.empty(0, np.int64)
    spans = list[tuple[float, float, int]]()
    for (start, end), (low, high) in zip(pieces, pairwise(middles), strict=False):
        before, after = np.searchsorted(barred, start), np.searchsorted(barred, end)
        low = max(low, int(barred[before - 1]) + 1 if before else 0)
        high = min(high, int(barred[after]) if after < len(barred) else len(voice_T))
        first, last = max(start - pad, low), min(end + pad, high)
        spans.append((round(first * FRAME_S, 2), round(last * FRAME_S, 2), int(label_T[start:end].max())))
    return spans


def runs(label_T: NDArray[np.int8], gap: int) -> list[tuple[int, int]]:
    """First frame and the frame after the last of all speech of one speaker, joined across less than `gap` frames."""
    spoken = np.flatnonzero(label_T >= 0)
    if not len(spoken):
        return []
    new_run = (np.diff(spoken) > gap) | (np.diff(label_T[spoken]) != 0)
    starts, ends = spoken[np.concatenate([[True], new_run])], spoken[np.concatenate([new_run, [True]])] + 1
    return list(zip(starts.tolist(), ends.tolist(), strict=True))


def _pieces(voice_T: NDArray[np.float32], start: int, end: int, least: int, most: int) -> Iterator[tuple[int, int]]:
    """The frames from start to end in pieces of `least` to `most`, cut where speech is least likely."""
    while end - start > most:
        low, high = start + most // 2, min(start + most, end - least)
        smooth_T = np.convolve(voice_T[start:end], np.ones(SMOOTH_FRAMES), mode="same")
        cut = low + int(np.argmin(smooth_T[low - start : high - start + 1]))
        yield start, cut
        start = cut
    yield start, end
