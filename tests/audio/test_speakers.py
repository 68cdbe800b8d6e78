from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import soundfile as sf

from seral.audio.parties import own_speech, parties
from seral.audio.segments import SEVERAL, read_blocks, runs, speakers_utterances
from seral.audio.speakers import CHANGE_FRAMES, changes, count_speakers, find_speakers, link, standardised
from seral.audio.voice import FRAME_SAMPLES, Samples
from seral.audio.voices import HOP_FRAMES, WINDOW_FRAMES, embed_windows, mfcc, windows

LIMITS = {"min_s": 0.3, "max_s": 4.0, "gap_s": 0.5, "pad_s": 0.2}


def blobs(counts: list[int], seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    """Points around as many centres as there are counts, and whose each is."""
    rng = np.random.default_rng(seed)
    centre_KD = rng.normal(0, 1, (len(counts), 20))
    owner_N = np.repeat(np.arange(len(counts)), counts)
    return (centre_KD[owner_N] + rng.normal(0, 0.25, (len(owner_N), 20))).astype(np.float32), owner_N


@pytest.mark.parametrize("counts", [[60, 50], [40, 40, 40], [50, 30, 30, 40]])
def test_speakers_are_counted_and_each_frame_is_the_one_of_its_windows(counts: list[int]) -> None:
    x_ND, owner_N = blobs(counts)
    assert count_speakers(standardised(x_ND), most=6) == len(counts)
    spans = [(100 * n, 100 * n + 100) for n in range(len(x_ND))]
    speech_T = np.ones(100 * len(x_ND), bool)
    speech_T[:50] = False
    label_T = find_speakers(x_ND, spans, speech_T, count=None, most=6).label_T
    assert set(label_T[:50]) == {-1}
    per_window_N = label_T[50::100]
    names = {(int(owner), int(label)) for owner, label in zip(owner_N, label_T[75::100], strict=True)}
    assert len(names) == len(counts)
    assert np.bincount(per_window_N).argmax() == 0  # the first is who speaks most


def test_the_number_of_speakers_is_bounded_and_may_be_told() -> None:
    x_ND, _ = blobs([40, 40, 40])
    spans = [(100 * n, 100 * n + 100) for n in range(len(x_ND))]
    speech_T = np.ones(100 * len(x_ND), bool)
    assert find_speakers(x_ND, spans, speech_T, count=None, most=2).label_T.max() == 1
    assert find_speakers(x_ND, spans, speech_T, count=5, most=2).label_T.max() == 4
    assert find_speakers(x_ND[:0], [], speech_T, count=None, most=2).label_T.max() == -1


def test_windows_cover_all_speech_and_do_not_leave_it() -> None:
    stretches = [(10, 60), (100, 100 + WINDOW_FRAMES), (500, 900)]
    spans = windows(stretches)
    covered_T = np.zeros(1000, bool)
    for start, end in spans:
        covered_T[start:end] = True
        assert any(first <= start < end <= last for first, last in stretches)
        assert end - start <= WINDOW_FRAMES
    assert covered_T.sum() == sum(end - start for start, end in stretches)
    assert np.diff([start for start, _ in spans if start >= 500]).max() <= HOP_FRAMES


def test_windows_of_a_stream_are_those_of_the_whole() -> None:
    wave = np.random.default_rng(0).normal(0, 0.1, 20 * 16_000).astype(np.float32)
    spans = windows([(5, 700), (720, 760), (900, 1990)])
    embed = mfcc()
    whole_ND = embed_windows(iter([wave]), spans, embed)
    pieces_ND = embed_windows(iter(np.array_split(wave, 37)), spans, embed)
    np.testing.assert_allclose(pieces_ND, whole_ND, atol=1e-4)
    start, end = (frame * FRAME_SAMPLES for frame in spans[1])
    np.testing.assert_allclose(embed(wave[None, start:end])[0], whole_ND[1], atol=1e-4)
    assert whole_ND.shape == (len(spans), 46)


def test_cepstra_leave_the_level_out() -> None:
    wave_NS = np.random.default_rng(0).normal(0, 0.1, (2, WINDOW_FRAMES * FRAME_SAMPLES)).astype(np.float32)
    np.testing.assert_allclose(mfcc()(wave_NS), mfcc()(4 * wave_NS), atol=0.02)


def test_a_change_without_a_pause_is_where_several_may_speak() -> None:
    label_T = np.concatenate([np.zeros(100), np.ones(100), np.full(50, -1), np.zeros(100)]).astype(np.int8)
    assert np.flatnonzero(changes(label_T)).tolist() == list(range(100 - CHANGE_FRAMES, 100 + CHANGE_FRAMES))


def test_utterances_end_with_their_speaker_and_where_several_speak() -> None:
    label_T = np.concatenate(
        [np.full(100, -1), np.zeros(200), np.full(30, SEVERAL), np.zeros(100), np.ones(150), np.full(100, -1)]
    ).astype(np.int8)
    voice_T = (label_T >= 0).astype(np.float32)
    spans = speakers_utterances(voice_T, label_T, label_T >= 0, **LIMITS)
    assert spans == [(0.8, 3.0, 0), (3.3, 4.3, 0), (4.3, 6.0, 1)]
    assert runs(label_T, 10)[0] == (100, 300)


def test_speakers_of_several_recordings_are_linked_and_those_of_one_stay_apart() -> None:
    centre_PD = np.eye(3, dtype=np.float32)[[0, 1, 0, 2, 0]]
    assert link(centre_PD, np.array([0, 0, 1, 1, 2]), 0.8).tolist() == [0, 1, 0, 3, 0]
    assert link(np.ones((2, 1), np.float32), np.array([0, 0]), 0.8).tolist() == [0, 1]
    assert link(np.ones((1, 1), np.float32), np.array([0]), 0.8).tolist() == [0]


def test_a_leak_is_not_taken_for_speech_of_its_own_and_double_talk_is_of_both() -> None:
    power = np.full((2, 400), 1e-6, np.float32)
    power[0, 50:150], power[1, 50:150] = 1e-2, 1e-4  # the left, 20 dB fainter in the right
    power[0, 200:300], power[1, 200:300] = 1e-4, 1e-2
    power[:, 320:380] = 1e-2
    voice = (power > 1e-5).astype(np.float32)
    left_T, right_T = own_speech(voice[0], voice[1], power[0], power[1])
    for middle, answers in ((100, (True, False)), (250, (False, True)), (350, (True, True)), (10, (False, False))):
        assert (left_T[middle], right_T[middle]) == answers


def test_a_party_that_never_speaks_has_no_speech() -> None:
    power_T = np.full(400, 1e-2, np.float32)
    voice_T = np.ones(400, np.float32)
    left_T, right_T = own_speech(voice_T, voice_T, power_T, power_T / 300)
    assert left_T.all()
    assert not right_T.any()


def test_the_parties_of_a_file_are_its_channels(tmp_path: Path, speech: Callable[[float, int], Samples]) -> None:
    talk = speech(3.0, 1)
    pause = np.zeros(16_000, np.float32)
    left = np.concatenate([pause, talk, pause, 0.1 * talk, pause])
    right = np.concatenate([pause, 0.1 * talk, pause, talk, pause])
    sf.write(tmp_path / "call.wav", np.stack([left, right], axis=1), 16_000)
    both = parties(tmp_path / "call.wav")
    assert both is not None
    first, second = both
    assert (first.channel, second.channel) == ("left", "right")
    assert first.own_T[100:400].sum() > 3 * first.own_T[500:800].sum()
    assert second.own_T[500:800].sum() > 3 * second.own_T[100:400].sum()
    sf.write(tmp_path / "same.wav", np.stack([left, left], axis=1), 16_000)
    assert parties(tmp_path / "same.wav") is None
    blocks = np.concatenate(list(read_blocks(tmp_path / "call.wav", "right")))
    np.testing.assert_allclose(blocks, right, atol=1e-3)
