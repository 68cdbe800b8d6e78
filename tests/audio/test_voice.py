from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from seral.audio.decode import decode
from seral.audio.voice import FRAME_SAMPLES, SPEECH, Samples, second_probability, stream_probability, voice_probability

MakeSpeech = Callable[[float, int], np.ndarray]
DETECTORS = pytest.mark.parametrize("detect", [voice_probability, second_probability])
Detector = Callable[[Samples], np.ndarray]


def hiss(seconds: float) -> np.ndarray:
    return np.random.default_rng(0).normal(0, 0.01, int(seconds * 16_000)).astype(np.float32)


@DETECTORS
@pytest.mark.parametrize("length", [1, 159, 160, 1000, 16_000, 20_001])
def test_there_is_an_answer_for_every_whole_frame(length: int, detect: Detector) -> None:
    probability_F = detect(hiss(2)[:length])
    assert len(probability_F) == max(1, length // FRAME_SAMPLES)
    assert ((probability_F >= 0) & (probability_F <= 1)).all()


@DETECTORS
@pytest.mark.corpora
def test_speech_is_found_where_it_is(shared: Path, detect: Detector) -> None:
    late_s = []
    for file in sorted((shared / "corpora" / "emodb" / "audio").glob("*.flac"))[::50]:
        clip = decode(file).samples
        speech_frames = np.flatnonzero(detect(np.concatenate([hiss(2), clip, hiss(2)])) > SPEECH)
        late_s.append((0.01 * speech_frames[0] - 2, 0.01 * speech_frames[-1] - 2 - len(clip) / 16_000))
    assert np.median(late_s, axis=0) == pytest.approx([0, 0], abs=0.2)


def test_speech_is_louder_than_noise_of_the_same_power(speech: MakeSpeech) -> None:
    voice = speech(2, 1)
    noise = hiss(2) * (voice.std() / hiss(2).std())
    assert (voice_probability(voice) > SPEECH).mean() > 0.8
    assert (voice_probability(noise) > SPEECH).mean() < 0.1
    assert (second_probability(noise) > SPEECH).mean() < 0.1


def test_the_second_detector_remembers_no_clip(speech: MakeSpeech) -> None:
    clip = speech(2, 1)
    once = second_probability(clip)
    second_probability(hiss(2))
    assert np.array_equal(second_probability(clip), once)


@pytest.mark.parametrize("block", [160, 777, 16_000])
def test_a_stream_hears_what_a_whole_clip_hears(speech: MakeSpeech, block: int) -> None:
    samples = np.concatenate([hiss(1), speech(1, 0), hiss(1.003)])
    blocks = [samples[at : at + block] for at in range(0, len(samples), block)]
    streamed_F, whole_F = np.concatenate(list(stream_probability(blocks))), voice_probability(samples)
    assert len(streamed_F) == len(whole_F)
    # Only what is mirrored before the beginning may differ: it is at most as long as the first block.
    assert np.mean((streamed_F > SPEECH) == (whole_F > SPEECH)) > 0.95
    if block == 16_000:
        np.testing.assert_array_equal(streamed_F, whole_F)
