"""Files that libsndfile does not read, made by PyAV itself."""

from __future__ import annotations

import io
import sys
from pathlib import Path

import av
import numpy as np
import pytest
from numpy.typing import NDArray

from seral.audio.codecs import CodecError, ContainerSound, container_of
from seral.audio.decode import BadAudio, decode
from seral.audio.limits import SoundLimits
from seral.corpora import READERS
from seral.schema import SAMPLE_RATE

KINDS = {"m4a": ("mp4", "aac", 44_100), "mp4": ("mp4", "aac", 48_000), "webm": ("webm", "libopus", 48_000)}
"""Suffix -> container, codec, rate."""
FIT = 0.1
"""Largest change by the codecs; a shift by one sample changes more."""


def sweep(seconds: float, rate: int, channels: int = 1) -> NDArray[np.float32]:
    """A tone that rises from 200 Hz by 100 Hz a second: no two moments of it are alike. (C, N)."""
    time_s = np.arange(int(seconds * rate)) / rate
    tone = (0.3 * np.sin(2 * np.pi * (200 + 50 * time_s) * time_s)).astype(np.float32)
    return np.tile(tone, (channels, 1))


def write(path: Path, seconds: float, *, layout: str = "mono", video: bool = False, options: str = "") -> Path:
    container, codec, rate = KINDS[path.suffix[1:]]
    samples_CN = sweep(seconds, rate, av.AudioLayout(layout).nb_channels)
    with av.open(path, "w", format=container, options={"movflags": options} if options else {}) as out:
        audio = out.add_stream(codec, rate=rate)
        audio.layout = layout
        if video:
            _draw(out)
        for start in range(0, samples_CN.shape[1], 1024):
            block = np.ascontiguousarray(samples_CN[:, start : start + 1024])
            frame = av.AudioFrame.from_ndarray(block, format="fltp", layout=layout)
            frame.rate, frame.pts = rate, start
            out.mux(audio.encode(frame))
        out.mux(audio.encode(None))
    return path


def _draw(out: av.container.OutputContainer) -> None:
    picture = out.add_stream("mpeg4", rate=10)
    picture.width, picture.height = 32, 32
    for _ in range(5):
        out.mux(picture.encode(av.VideoFrame.from_ndarray(np.zeros((32, 32, 3), np.uint8), format="rgb24")))
    out.mux(picture.encode(None))


def misfit(samples: NDArray[np.float32], start_s: float) -> float:
    """Root mean square of the difference from the tone at 16 kHz, without the edges, relative to the tone."""
    first = round(start_s * SAMPLE_RATE)
    expected = sweep(start_s + len(samples) / SAMPLE_RATE + 1, SAMPLE_RATE)[0][first : first + len(samples)]
    inner = slice(800, -800)
    return float(np.sqrt(np.mean((samples - expected)[inner] ** 2) / np.mean(expected[inner] ** 2)))


@pytest.fixture
def without_pyav(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "av", None)


@pytest.mark.parametrize("suffix", KINDS)
def test_containers_are_decoded_where_they_are(tmp_path: Path, suffix: str) -> None:
    decoded = decode(write(tmp_path / f"clip.{suffix}", 1.5))
    assert decoded.source_rate_hz == KINDS[suffix][2]
    assert len(decoded.samples) == pytest.approx(1.5 * SAMPLE_RATE, abs=SAMPLE_RATE * 0.02)
    assert misfit(decoded.samples, 0.0) < FIT


def test_the_name_does_not_matter(tmp_path: Path) -> None:
    """A phone that calls its m4a wav."""
    write(tmp_path / "clip.m4a", 1.0).rename(tmp_path / "clip.wav")
    assert misfit(decode(tmp_path / "clip.wav").samples, 0.0) < FIT


@pytest.mark.parametrize("suffix", KINDS)
@pytest.mark.parametrize(("start_s", "end_s"), [(0.25, 0.75), (3.5, 4.25), (3.5, None)])
def test_segments_are_where_they_should_be(tmp_path: Path, suffix: str, start_s: float, end_s: float | None) -> None:
    decoded = decode(write(tmp_path / f"tape.{suffix}", 5.0), start_s=start_s, end_s=end_s)
    assert len(decoded.samples) == pytest.approx(((end_s or 5.0) - start_s) * SAMPLE_RATE, abs=SAMPLE_RATE * 0.02)
    shifts = range(-20, 21) if suffix == "webm" else (0,)  # webm keeps times in whole milliseconds
    assert min(misfit(decoded.samples, start_s + shift / SAMPLE_RATE) for shift in shifts) < FIT


def test_a_film_in_surround_sound_gives_its_speech(tmp_path: Path) -> None:
    decoded = decode(write(tmp_path / "dia0_utt0.mp4", 1.0, layout="5.1", video=True))
    assert decoded.source_channels == 6
    assert misfit(decoded.samples, 0.0) < 0.3


@pytest.mark.parametrize("suffix", KINDS)
def test_long_tapes_are_refused(tmp_path: Path, suffix: str) -> None:
    path = write(tmp_path / f"tape.{suffix}", 3.0)
    with pytest.raises(BadAudio, match="too-long"):
        decode(path, limits=SoundLimits(seconds=2))
    assert len(decode(path, start_s=1, end_s=2.5, limits=SoundLimits(seconds=2)).samples) == 24_000
    with pytest.raises(BadAudio, match="truncated"):
        decode(path, start_s=1, end_s=9)


def test_a_file_cut_off_is_truncated(tmp_path: Path) -> None:
    whole = write(tmp_path / "whole.m4a", 4.0, options="faststart").read_bytes()
    (tmp_path / "cut.m4a").write_bytes(whole[: len(whole) // 2])
    with pytest.raises(BadAudio, match="truncated"):
        decode(tmp_path / "cut.m4a")


def test_a_file_that_only_begins_like_one_is_no_audio(tmp_path: Path) -> None:
    (tmp_path / "a.mp4").write_bytes(b"\0\0\0\x18ftypmp42" + bytes(400))
    with pytest.raises(BadAudio, match="not-audio: ffmpeg, mp4: "):
        decode(tmp_path / "a.mp4")


def test_a_film_without_sound_is_no_audio(tmp_path: Path) -> None:
    with av.open(tmp_path / "silent.mp4", "w") as out:
        _draw(out)
    with pytest.raises(BadAudio, match="not-audio: mp4 without an audio stream"):
        decode(tmp_path / "silent.mp4")


@pytest.mark.usefixtures("without_pyav")
def test_without_pyav_the_reason_says_what_to_install(tmp_path: Path) -> None:
    (tmp_path / "a.m4a").write_bytes(b"\0\0\0\x18ftypM4A " + bytes(400))
    with pytest.raises(BadAudio, match=r"not-audio: mp4, which libsndfile does not read\. .*'seral\[codecs\]'"):
        decode(tmp_path / "a.m4a")
    (tmp_path / "a.wav").write_text("no sound in here")
    with pytest.raises(BadAudio, match="not-audio: libsndfile"):
        decode(tmp_path / "a.wav")


@pytest.mark.parametrize(
    ("head", "container"),
    [
        (b"\0\0\0\x18ftypM4A \0\0\0\0", "mp4"),
        (b"\x1aE\xdf\xa3\x9fB\x86\x81", "matroska"),
        (bytes.fromhex("3026b2758e66cf11a6d900aa0062ce6c"), "asf"),
        (b"#!AMR\n", "amr"),
        (b"\xff\xf1P\x80", "aac"),
        (b"\xff\xfbP\x80", None),  # mp3, which libsndfile reads
        (b"#EXTM3U\nhttp://x", None),  # a playlist is never followed
        (b"ffconcat version", None),
        (b"RIFF", None),
        (b"", None),
    ],
)
def test_only_known_containers_are_handed_on(head: bytes, container: str | None) -> None:
    assert container_of(head) == container


def test_a_playlist_handed_on_as_a_container_is_refused() -> None:
    with pytest.raises(CodecError, match="ffmpeg, mp4"):
        ContainerSound(io.BytesIO(b"#EXTM3U\nfile:///etc/hostname\n"), "mp4")


def test_clips_of_meld_are_decoded_from_their_videos(tmp_path: Path) -> None:
    folder = tmp_path / "train" / "train_splits"
    folder.mkdir(parents=True)
    write(folder / "dia0_utt0.mp4", 1.0, layout="5.1", video=True)
    columns = "Utterance,Speaker,Emotion,Dialogue_ID,Utterance_ID,Season,Episode"
    (tmp_path / "train_sent_emo.csv").write_text(f"{columns}\nHey!,Ross,joy,0,0,1,1\n")
    (utterance,) = READERS["meld"](tmp_path)
    assert len(decode(utterance.audio).samples) == pytest.approx(SAMPLE_RATE, abs=400)  # type: ignore[union-attr]
