import itertools

import numpy as np
import pytest

from jobs.bench.conversations import compose, speech_frames
from jobs.bench.speakers import COLLAR_FRAMES, errors, of_utterances, outside_collars
from seral.audio.voice import FRAME_SAMPLES


def test_errors_are_those_of_the_best_of_all_matchings() -> None:
    rng = np.random.default_rng(0)
    truth_TK, answer_TJ = rng.random((200, 3)) < 0.4, rng.random((200, 4)) < 0.4
    best = max(
        sum((truth_TK[:, k] & answer_TJ[:, j]).sum() for k, j in enumerate(order))
        for order in itertools.permutations(range(4), 3)
    )
    longest = np.maximum(truth_TK.sum(axis=1), answer_TJ.sum(axis=1)).sum()
    measured = errors(truth_TK, answer_TJ, np.ones(200, bool))
    assert measured["der"] == pytest.approx((longest - best) / truth_TK.sum())


def test_a_perfect_answer_under_other_names_has_no_error_and_missing_a_speaker_does() -> None:
    truth_TK = np.repeat(np.eye(2, dtype=bool), 100, axis=0)
    assert errors(truth_TK, truth_TK[:, ::-1], np.ones(200, bool))["der"] == 0
    measured = errors(truth_TK, truth_TK[:, :1], np.ones(200, bool))
    assert (measured["missed"], measured["confused"]) == (0.5, 0)
    assert outside_collars(truth_TK).sum() == 200 - 2 * COLLAR_FRAMES


def test_utterances_of_one_speaker_and_the_speech_in_them() -> None:
    truth_TK = np.repeat(np.eye(2, dtype=bool), 100, axis=0)
    measured = of_utterances(truth_TK, [(0.0, 0.9), (0.9, 1.5)])
    assert measured == {"utterances": 2, "one_speaker": 0.5, "speech_found": 0.75}


def test_the_truth_of_a_conversation_is_where_its_voices_are() -> None:
    rng = np.random.default_rng(0)
    clips = {name: [rng.normal(0, 0.1, 16_000).astype(np.float32) for _ in range(3)] for name in ("a", "b")}
    talk = compose(clips, None, 0.0, 0.5, np.random.default_rng(1))
    again = compose(clips, None, 0.0, 0.5, np.random.default_rng(1))
    assert (talk.samples == again.samples).all()
    power_KT = np.square(talk.voice_KS.reshape(2, -1, FRAME_SAMPLES)).mean(axis=2)
    assert (talk.speech_TK != (power_KT > 0).T).sum() <= 1  # the first clip begins between two frames
    assert talk.speech_TK.any(axis=0).all()
    assert speech_frames(np.concatenate([np.zeros(8_000, np.float32), clips["a"][0]]))[:48].sum() == 0
