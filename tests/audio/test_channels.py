from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import soundfile as sf

from ser_models.channels import mean_loss_db, mix_down
from seral.audio.channels import CHANNEL_FAULTS, channel_fault
from seral.audio.decode import BadAudio, decode
from seral.schema import SAMPLE_RATE


def tone(seconds: float, hz: float = 440.0) -> np.ndarray:
    return (0.3 * np.sin(2 * np.pi * hz * np.arange(int(seconds * SAMPLE_RATE)) / SAMPLE_RATE)).astype(np.float32)


def hiss(samples: int, level: float, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).normal(0, level, samples).astype(np.float32)


def beside(*channels: np.ndarray) -> np.ndarray:
    return np.stack(channels, axis=1).astype(np.float32)


def test_channels_that_agree_are_averaged() -> None:
    voice = tone(0.5)
    both = beside(voice + hiss(len(voice), 0.003, 1), voice + hiss(len(voice), 0.003, 2))
    np.testing.assert_array_equal(mix_down(both, SAMPLE_RATE), both.mean(axis=1))
    assert channel_fault(both, SAMPLE_RATE) is None
    mono = beside(voice)
    np.testing.assert_array_equal(mix_down(mono, SAMPLE_RATE, "right"), voice)


def test_a_channel_can_be_named() -> None:
    both = beside(tone(0.5), 0.5 * tone(0.5, 600))
    for channel, samples in {"mean": both.mean(axis=1), "left": both[:, 0], "right": both[:, 1]}.items():
        np.testing.assert_array_equal(mix_down(both, SAMPLE_RATE, channel), samples)  # type: ignore[arg-type]
    np.testing.assert_array_equal(mix_down(both[:, ::-1], SAMPLE_RATE, "loudest"), both[:, 0])


@pytest.mark.parametrize(
    ("other", "loss_db"), [(lambda v: v, 0.0), (np.zeros_like, 6.02), (lambda v: hiss(len(v), 0.1, 4) * (v != 0), 3.0)]
)
def test_the_loss_of_the_mean_is_what_is_said_of_it(other: object, loss_db: float) -> None:
    voice = hiss(5 * SAMPLE_RATE, 0.1, 3)
    voice[:SAMPLE_RATE] = 0
    _, loss = mean_loss_db(beside(voice, other(voice)), SAMPLE_RATE)  # type: ignore[operator]
    assert loss == pytest.approx(loss_db, abs=0.6)


def test_more_than_two_channels_give_the_one_that_speaks() -> None:
    centre = np.zeros((8000, 6), np.float32)
    centre[:, 2] = tone(0.5)
    np.testing.assert_array_equal(mix_down(centre, SAMPLE_RATE), centre[:, 2])
    assert channel_fault(centre + hiss(6 * 8000, 0.01).reshape(-1, 6), SAMPLE_RATE) == "many"


def real_clips(shared: Path) -> list[tuple[np.ndarray, int]]:
    files = [*sorted((shared / "corpora/emodb/audio").glob("*.flac"))[::67]]
    files += sorted((shared / "corpora/ravdess/audio").glob("*.flac"))[::160]
    return [sf.read(file, dtype="float32") for file in files]


def stereo(voice: np.ndarray, kind: str) -> np.ndarray:
    """Two channels of a real clip: the first is the better one."""
    quiet = 0.02 * float(voice.std())
    one, two = hiss(len(voice), quiet, 1), hiss(len(voice), quiet, 2)
    return {
        "same": lambda: beside(voice + one, voice + two),
        "delayed": lambda: beside(voice + one, 0.7 * np.roll(voice, 23) + 5 * two),
        "dead": lambda: beside(voice, np.zeros_like(voice)),
        "opposite": lambda: beside(voice + one, -0.9 * voice + two),
        "alone": lambda: beside(voice + one, two),
        "alone beside a loud hiss": lambda: beside(voice + one, hiss(len(voice), 2 * float(voice.std()), 2)),
    }[kind]()


FAULTS = {
    "same": None,
    "delayed": "apart",
    "dead": "dead",
    "opposite": "anti-phase",
    "alone": "apart",
    "alone beside a loud hiss": "apart",
}


@pytest.mark.corpora
@pytest.mark.parametrize("kind", FAULTS)
@pytest.mark.parametrize("swapped", [False, True])
def test_real_clips_in_two_channels_keep_the_voice(shared: Path, kind: str, swapped: bool, tmp_path: Path) -> None:
    clips = real_clips(shared)
    faults, best = [], []
    for voice, rate in clips:
        both = stereo(voice, kind)
        sf.write(tmp_path / "stereo.wav", both[:, ::-1] if swapped else both, rate, subtype="FLOAT")
        decoded = decode(tmp_path / "stereo.wav")
        faults.append(decoded.channel_fault)
        expected = both.mean(axis=1) if FAULTS[kind] is None else both[:, 0]
        best.append(np.allclose(decoded.samples, expected, atol=1e-6))
    assert set(faults) == {FAULTS[kind]} or (kind == "alone" and set(faults) <= {"apart", "dead"})
    assert all(best)


def test_the_channel_is_an_option_of_decoding_and_the_words_are_told(tmp_path: Path) -> None:
    voice = tone(0.5)
    file = tmp_path / "stereo.wav"
    sf.write(file, beside(voice, -voice), SAMPLE_RATE, subtype="FLOAT")
    np.testing.assert_array_equal(decode(file, channel="right").samples, -voice)
    assert decode(file, channel="right").channel_fault == "anti-phase"
    with pytest.raises(BadAudio, match="silent"):
        decode(file, channel="mean")


def test_channel_faults() -> None:
    voice, other = tone(1) + hiss(SAMPLE_RATE, 0.001), hiss(SAMPLE_RATE, 0.001, seed=1)
    channels = {
        None: [voice, voice + other],
        "dead": [voice, np.zeros_like(voice)],
        "anti-phase": [voice, -voice],
        "apart": [voice, 0.2 * voice + other],
        "many": [voice, voice, voice],
        "offset": [voice + 0.1],
    }
    fault_of = {fault: channel_fault(beside(*signals), SAMPLE_RATE) for fault, signals in channels.items()}
    assert fault_of == {fault: fault for fault in channels}
    assert {fault for fault in channels if fault} == set(CHANNEL_FAULTS)
