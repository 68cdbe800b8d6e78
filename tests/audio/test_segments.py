from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import soundfile as sf
from hypothesis import given
from hypothesis import strategies as st

from seral.audio.segments import BLOCK_S, read_blocks, recording_voice, utterances
from seral.audio.voice import FRAME_S, SPEECH, voice_probability

LIMITS = {"min_s": 0.3, "max_s": 4.0, "gap_s": 0.5, "pad_s": 0.2}


def voice(*pieces: tuple[float, float]) -> np.ndarray:
    """(seconds, probability) one after another."""
    return np.concatenate([np.full(round(seconds / FRAME_S), p, np.float32) for seconds, p in pieces])


def test_pauses_are_bridged_ends_padded_and_coughs_left_out() -> None:
    voice_T = voice((1, 0), (1, 1), (0.4, 0), (1, 1), (1, 0), (0.2, 1), (1, 0), (1, 1), (0.1, 0))
    assert utterances(voice_T, **LIMITS) == [(0.8, 3.6), (5.4, 6.7)]


def test_neighbours_share_the_pause_between_them() -> None:
    voice_T = voice((1, 1), (0.6, 0), (1, 1))
    assert utterances(voice_T, **(LIMITS | {"pad_s": 0.5})) == [(0, 1.3), (1.3, 2.6)]


def test_a_long_utterance_is_cut_where_it_sounds_least_like_speech() -> None:
    voice_T = voice((3, 0.9), (0.3, 0.6), (3, 0.9))
    (_, cut), (again, _) = utterances(voice_T, **LIMITS)
    assert cut == again
    assert 3 < cut < 3.3


def test_nothing_is_said_in_silence() -> None:
    assert utterances(voice((5, 0.1)), **LIMITS) == []
    assert utterances(np.empty(0, np.float32), **LIMITS) == []


@given(st.lists(st.tuples(st.floats(0.01, 3), st.floats(0, 1)), min_size=1, max_size=40))
def test_utterances_are_apart_short_enough_and_hold_all_long_speech(pieces: list[tuple[float, float]]) -> None:
    voice_T = voice(*pieces)
    spans = utterances(voice_T, **LIMITS)
    flat = [0.0, *(limit for segment in spans for limit in segment), len(voice_T) * FRAME_S]
    assert flat == sorted(flat)
    covered_F = np.zeros(len(voice_T), bool)
    for start_s, end_s in spans:
        assert LIMITS["min_s"] - 1e-6 <= end_s - start_s <= LIMITS["max_s"] + 1e-6
        covered_F[round(start_s / FRAME_S) : round(end_s / FRAME_S)] = True
    run = 0
    for at, speech in enumerate(voice_T > SPEECH):  # a plain loop over what must be in
        run = run + 1 if speech else 0
        if run * FRAME_S >= LIMITS["min_s"]:
            assert covered_F[at]


def test_a_long_recording_comes_in_blocks(tmp_path: Path) -> None:
    rate = 8000
    noise = np.random.default_rng(0).normal(0, 0.1, (10 * 60 * rate, 2))
    sf.write(tmp_path / "long.wav", noise, rate)
    sizes = [len(block) for block in read_blocks(tmp_path / "long.wav")]
    assert max(sizes) <= 1.1 * BLOCK_S * 16_000
    assert sum(sizes) == pytest.approx(10 * 60 * 16_000, abs=2)


def test_a_recording_is_heard_as_a_clip_is(tmp_path: Path) -> None:
    samples = np.random.default_rng(0).normal(0, 0.1, 3 * 16_000).astype(np.float32)
    sf.write(tmp_path / "clip.wav", samples, 16_000, subtype="FLOAT")
    np.testing.assert_allclose(recording_voice(tmp_path / "clip.wav"), voice_probability(samples), atol=0.05)


def test_an_empty_recording_has_no_frames(tmp_path: Path) -> None:
    sf.write(tmp_path / "empty.wav", np.empty(0), 16_000)
    assert len(recording_voice(tmp_path / "empty.wav")) == 0
