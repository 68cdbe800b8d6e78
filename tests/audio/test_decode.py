from __future__ import annotations

import io
import os
import pickle
import struct
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import soundfile as sf
from hypothesis import given, settings
from hypothesis import strategies as st

from seral.audio.decode import BadAudio, decode, decode_flac, encode_flac, pcm_hash, to_pool_rate
from seral.audio.limits import SoundLimits
from seral.audio.quality import REASONS
from seral.schema import SAMPLE_RATE


def tone(seconds: float, rate: int = SAMPLE_RATE, hz: float = 220.0, amplitude: float = 0.3) -> np.ndarray:
    return (amplitude * np.sin(2 * np.pi * hz * np.arange(int(seconds * rate)) / rate)).astype(np.float32)


def wav(path: Path, samples: np.ndarray, rate: int = SAMPLE_RATE, subtype: str = "PCM_16") -> Path:
    sf.write(path, samples, rate, subtype=subtype)
    return path


NOBODY = 65534


def reason_of(path: Path, **limits: float) -> str:
    with pytest.raises(BadAudio) as caught:
        decode(path, **limits)
    assert caught.value.reason in REASONS
    assert caught.value.detail
    return caught.value.reason


def test_audio_at_the_pool_rate_comes_back_bit_for_bit(tmp_path: Path) -> None:
    samples = np.rint(tone(1) * 32768) / np.float32(32768)
    decoded = decode(wav(tmp_path / "a.wav", samples))
    np.testing.assert_array_equal(decoded.samples, samples)
    assert decoded.samples.dtype == np.float32
    assert (decoded.source_rate_hz, decoded.source_channels) == (SAMPLE_RATE, 1)


@pytest.mark.parametrize("rate", [8_000, 11_025, 22_050, 44_100, 48_000])
@pytest.mark.parametrize(("suffix", "subtype"), [("wav", "PCM_24"), ("flac", "PCM_16"), ("wav", "FLOAT")])
def test_other_rates_are_resampled(tmp_path: Path, rate: int, suffix: str, subtype: str) -> None:
    decoded = decode(wav(tmp_path / f"a.{suffix}", tone(1, rate), rate, subtype))
    assert decoded.source_rate_hz == rate
    assert len(decoded.samples) == pytest.approx(SAMPLE_RATE, abs=2)
    inner = slice(1000, 15_000)
    np.testing.assert_allclose(decoded.samples[inner], tone(1)[inner], atol=2e-3)


def test_segments_are_cut_in_seconds(tmp_path: Path) -> None:
    ramp = (np.arange(SAMPLE_RATE * 2) / 40_000).astype(np.float32)
    path = wav(tmp_path / "a.wav", ramp, subtype="FLOAT")
    np.testing.assert_array_equal(decode(path, start_s=0.5, end_s=1.25).samples, ramp[8_000:20_000])
    np.testing.assert_array_equal(decode(path, start_s=1.5).samples, ramp[24_000:])
    np.testing.assert_array_equal(decode(path, end_s=0.25).samples, ramp[:4_000])


@pytest.mark.parametrize(("start_s", "end_s"), [(1.0, 0.5), (0.5, 0.5), (-0.1, 0.5), (0.0, 9.0), (5.0, None)])
def test_segments_outside_the_recording_are_named(tmp_path: Path, start_s: float, end_s: float | None) -> None:
    path = wav(tmp_path / "a.wav", tone(1))
    with pytest.raises(BadAudio, match=r"bad-segment.*1\.000 s"):
        decode(path, start_s=start_s, end_s=end_s)


def test_a_segment_of_a_long_tape_is_fine(tmp_path: Path) -> None:
    path = wav(tmp_path / "a.wav", tone(5))
    assert reason_of(path, limits=SoundLimits(seconds=2)) == "too-long"
    assert len(decode(path, start_s=1, end_s=2.5, limits=SoundLimits(seconds=2)).samples) == 24_000


def test_a_long_tape_is_refused_before_it_is_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = wav(tmp_path / "tape.wav", np.zeros(SAMPLE_RATE * 120, dtype=np.int16))

    def read(*_: object, **__: object) -> None:
        raise AssertionError("read although the header says it is too long")

    monkeypatch.setattr(sf.SoundFile, "read", read)
    assert reason_of(path) == "too-long"


def _truncated_wav(path: Path) -> None:
    wav(path, tone(2))
    os.truncate(path, path.stat().st_size // 2)


def _truncated_flac(path: Path) -> None:
    sf.write(path, np.random.default_rng(0).normal(0, 0.1, SAMPLE_RATE * 2), SAMPLE_RATE, format="FLAC")
    os.truncate(path, path.stat().st_size // 2)


def _header_only(path: Path) -> None:
    wav(path, np.zeros(0, dtype=np.float32))


def _with_nan(path: Path) -> None:
    samples = tone(1)
    samples[100:103] = [np.nan, np.inf, -np.inf]
    wav(path, samples, subtype="FLOAT")


def _lfs_stub(path: Path) -> None:
    path.write_text("version https://git-lfs.github.com/spec/v1\noid sha256:4d7a2146\nsize 12345\n")


def _silent_stereo(path: Path) -> None:
    sf.write(path, np.stack([np.zeros(SAMPLE_RATE)] * 2, axis=1), SAMPLE_RATE)


BROKEN: dict[str, tuple[str, Callable[[Path], object]]] = {
    "zero bytes": ("empty", lambda path: path.write_bytes(b"")),
    "text named wav": ("not-audio", lambda path: path.write_text("this is not audio at all\n" * 20)),
    "random bytes": ("not-audio", lambda path: path.write_bytes(np.random.default_rng(0).bytes(5_000))),
    "git lfs": ("lfs-stub", _lfs_stub),
    "header only": ("no-frames", _header_only),
    "half a wav": ("truncated", _truncated_wav),
    "half a flac": ("truncated", _truncated_flac),
    "nan": ("not-finite", _with_nan),
    "integer scale in a float file": ("out-of-range", lambda path: wav(path, tone(1) * 32768, subtype="FLOAT")),
    "too short": ("too-short", lambda path: wav(path, tone(0.05))),
    "one sample": ("too-short", lambda path: wav(path, tone(1)[1:2])),
    "zeros": ("silent", lambda path: wav(path, np.zeros(SAMPLE_RATE, dtype=np.float32))),
    "constant offset": ("silent", lambda path: wav(path, np.full(SAMPLE_RATE, 0.2, dtype=np.float32))),
    "below the silence level": ("silent", lambda path: wav(path, tone(1, amplitude=3e-4))),
    "silent in stereo": ("silent", _silent_stereo),
    "a folder": ("unreadable", lambda path: path.mkdir()),
    "not there": ("missing", lambda path: None),
}


@pytest.mark.parametrize("case", BROKEN)
def test_every_broken_file_has_its_reason(case: str, tmp_path: Path) -> None:
    expected, make = BROKEN[case]
    path = tmp_path / "broken.wav"
    make(path)
    assert reason_of(path) == expected


def test_a_file_without_permission_is_unreadable(tmp_path: Path) -> None:
    path = wav(tmp_path / "a.wav", tone(1))
    path.chmod(0)
    user = os.geteuid()
    if user == 0:
        os.seteuid(NOBODY)  # root may read everything
    try:
        assert reason_of(path) == "unreadable"
    finally:
        os.seteuid(user)


def test_every_cut_of_a_good_file_is_read_whole_or_refused(tmp_path: Path) -> None:
    whole = {suffix: tmp_path / f"whole.{suffix}" for suffix in ("wav", "flac", "ogg")}
    for path in whole.values():
        sf.write(path, tone(1), SAMPLE_RATE)
    for path in whole.values():
        data = path.read_bytes()
        for size in np.linspace(0, len(data) - 700, 12).astype(int):
            cut = tmp_path / f"cut{path.suffix}"
            cut.write_bytes(data[:size])
            try:
                decoded = decode(cut)
            except BadAudio:
                continue
            # Ogg pages carry no total length: what was cut off leaves no trace.
            assert path.suffix == ".ogg" or len(decoded.samples) == SAMPLE_RATE


def test_a_wav_written_to_a_pipe_has_no_size_and_is_read_whole(tmp_path: Path) -> None:
    path = wav(tmp_path / "pipe.wav", tone(1))
    data = bytearray(path.read_bytes())
    offset = data.index(b"data") + 4
    data[offset : offset + 4] = struct.pack("<I", 0xFFFFFFFF)
    path.write_bytes(data)
    assert len(decode(path).samples) == SAMPLE_RATE


def test_what_was_wrong_with_the_channels_is_told(tmp_path: Path) -> None:
    left_channel = tone(0.5)
    sf.write(tmp_path / "stereo.wav", np.stack([left_channel, -left_channel], axis=1), SAMPLE_RATE)
    assert decode(tmp_path / "stereo.wav").channel_fault == "anti-phase"
    assert decode(wav(tmp_path / "mono.wav", left_channel)).channel_fault is None


def test_flac_damaged_in_storage_is_bad_audio() -> None:
    data = encode_flac(np.random.default_rng(0).normal(0, 0.1, SAMPLE_RATE).astype(np.float32))
    for damaged in (b"", b"fLaC", data[: len(data) // 2], b"\0" * 100):
        with pytest.raises(BadAudio):
            decode_flac(damaged)


def test_flac_of_another_rate_is_refused() -> None:
    buffer = io.BytesIO()
    sf.write(buffer, tone(1, 8_000), 8_000, format="FLAC")
    with pytest.raises(BadAudio, match="8000 Hz with 1 channels, expected 16000 Hz mono"):
        decode_flac(buffer.getvalue())


@settings(max_examples=30)
@given(st.integers(0, 2**32 - 1), st.integers(1, 4_000), st.floats(0.001, 3.0))
def test_flac_round_trip_is_exact_after_the_first_rounding(seed: int, length: int, scale: float) -> None:
    samples = (np.random.default_rng(seed).standard_normal(length) * scale).astype(np.float32)
    once = decode_flac(encode_flac(samples))
    np.testing.assert_allclose(once, np.clip(samples, -1, 1), atol=1 / 32768)
    np.testing.assert_array_equal(decode_flac(encode_flac(once)), once)
    assert pcm_hash(samples) == pcm_hash(once)


def test_the_hash_sees_the_audio_and_not_the_container(tmp_path: Path) -> None:
    pcm = (tone(1) * 32768).astype(np.int16)
    as_wav, as_flac = (decode(wav(tmp_path / f"a.{suffix}", pcm)) for suffix in ("wav", "flac"))
    assert pcm_hash(as_wav.samples) == pcm_hash(as_flac.samples)
    assert pcm_hash(as_wav.samples) != pcm_hash(as_wav.samples[:-1])


def test_resampling_to_the_same_rate_returns_the_same_array() -> None:
    samples = tone(0.2)
    assert to_pool_rate(samples, SAMPLE_RATE) is samples


def test_bad_audio_survives_the_way_between_processes() -> None:
    error = pickle.loads(pickle.dumps(BadAudio("silent", "-80 dBFS")))
    assert (error.reason, error.detail, str(error)) == ("silent", "-80 dBFS", "silent: -80 dBFS")
