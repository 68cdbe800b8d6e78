from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import soxr

from seral.audio.decode import decode
from seral.audio.listening import listen
from seral.audio.quality import foreground, frame_power, measure, voice_ratio
from seral.audio.voice import voice_probability

SHOUTS = ("09b10Wa", "13a02Fa", "13b10Fa", "14b01Fc", "16a04Wb", "16a05Wc", "16a07Wa", "16b01Fa", "16b03Fa", "16b03Wb")
"""Anger and joy of women whose score was below 0.1 with one listening."""
LAUGHTER = ("ravdess/03-01-03-02-01-01-06", "urdu/SM5_F7_H061", "urdu/SM7_F11_H083", "urdu/SM22_F1_N019")
"""A scream at 800 Hz, words that end in laughter, laughter, and words, whose score was below 0.1 with one detector."""


def share_heard(samples: np.ndarray, voice_T: np.ndarray) -> float:
    return voice_ratio(foreground(frame_power(samples)), voice_T)


@pytest.mark.parametrize("length", [1, 160, 16_000, 20_001])
def test_there_is_an_answer_for_every_whole_frame(length: int, speech: Callable[[float, int], np.ndarray]) -> None:
    samples = speech(2, 0)[:length]
    assert len(listen(samples)) == len(voice_probability(samples))


@pytest.mark.corpora
def test_shouting_is_heard_as_speech(shared: Path) -> None:
    for name in SHOUTS:
        samples = decode(shared / "corpora" / "emodb" / "audio" / f"{name}.flac").samples
        quality = measure(samples, listen(samples))
        assert quality.voice_ratio is not None
        assert quality.voice_ratio > 0.6, name
        assert quality.quality > 0.1, name


@pytest.mark.corpora
def test_laughter_and_screams_are_heard_as_speech_and_sneezes_and_babies_are_not(shared: Path) -> None:
    for name in LAUGHTER:
        corpus, clip = name.split("/")
        samples = decode(shared / "corpora" / corpus / "audio" / f"{clip}.flac").samples
        assert measure(samples, listen(samples)).quality > 0.3, name
    noises = sorted((shared / "corpora" / "esc50_subset" / "audio").glob("baby_cry_*.flac"))
    noises += sorted((shared / "corpora" / "esc50_subset" / "audio").glob("person_sneeze_2-*.flac"))
    assert len(noises) > 6
    for file in noises:
        samples = decode(file).samples
        assert measure(samples, listen(samples)).quality < 0.1, file.name


@pytest.mark.corpora
def test_faint_and_raised_voices_are_heard_and_noise_is_not(shared: Path) -> None:
    folder = shared / "corpora" / "ravdess" / "audio"
    clips = [decode(file).samples for file in sorted(folder.glob("*.flac"))[::100]]
    quiet = [np.rint(clip * 50 / np.abs(clip).max()).astype(np.float32) / 32768 for clip in clips]
    raised = [soxr.resample(clip, 24_000, 16_000).astype(np.float32) for clip in clips]
    for kind in (clips, quiet, raised):
        assert np.mean([share_heard(clip, listen(clip)) for clip in kind]) > 0.75
    once = np.mean([share_heard(clip, voice_probability(clip)) for clip in raised])
    assert np.mean([share_heard(clip, listen(clip)) for clip in raised]) > once + 0.1
    noises = shared / "corpora" / "esc50_subset"
    rows = [json.loads(line) for line in (noises / "manifest.jsonl").read_text().splitlines()]
    names = [row["audio"] for row in rows if row["category"] in {"Rain", "Chainsaw", "Sea waves", "Helicopter"}]
    assert names
    scores = [measure(clip, listen(clip)).quality for clip in (decode(noises / name).samples for name in names[::3])]
    assert max(scores) < 0.1
