"""Formats that libsndfile does not read, such as mp4, m4a and webm, through PyAV where it is installed (`codecs`).

Only files that begin like a container known here are opened, and as that container: left to guess, ffmpeg takes text
for playlists, which may name any other file or address.
"""

# T frames of the source · C channels
from __future__ import annotations

import importlib.util
from collections.abc import Iterator
from typing import BinaryIO, Self

import numpy as np
from numpy.typing import NDArray

from seral.errors import PoolError

INSTALL = "PyAV reads it: pip install 'seral[codecs]', then import again with retry=[not-audio]"
ASF = bytes.fromhex("3026b2758e66cf11")
SEEK_MARGIN_S = 1.0
"""Decoding starts this much before what is wanted: decoders need a little audio to settle."""
LOSSY_GAP_S = 0.5
"""Less than this missing at the end is rounding in the container, not a truncated file."""


class CodecError(PoolError):
    """ffmpeg cannot open or decode a file."""


def container_of(head: bytes) -> str | None:
    """ffmpeg's name of the container that a file's first 16 bytes announce; None for all others."""
    if head[4:8] == b"ftyp":
        return "mp4"
    if head.startswith(b"\x1aE\xdf\xa3"):
        return "matroska"
    if head.startswith(ASF):
        return "asf"
    if head.startswith(b"#!AMR"):
        return "amr"
    if len(head) > 1 and head[0] == 0xFF and head[1] & 0xF6 == 0xF0:
        return "aac"
    return None


def installed() -> bool:
    """Whether PyAV is installed."""
    return importlib.util.find_spec("av") is not None


class ContainerSound:
    """The first audio stream of a file, to be read like a soundfile.SoundFile. Raises CodecError."""

    def __init__(self, file: BinaryIO, container: str) -> None:
        import av

        self._failure = av.FFmpegError
        self._resampler = av.AudioResampler(format="fltp")
        try:
            self._container = av.open(file, mode="r", format=container)
        except av.FFmpegError as error:
            raise CodecError(f"ffmpeg, {container}: {error.strerror}") from None
        if not self._container.streams.audio:
            self._container.close()
            raise CodecError(f"{container} without an audio stream")
        self._stream = self._container.streams.audio[0]
        self._seekable = container not in {"aac", "amr"}
        self._start = 0
        self.samplerate = int(self._stream.rate)
        self.channels = int(self._stream.channels)
        self.missing = 0
        """Frames that the header announces past the end of what was read."""

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._container.close()

    def seek(self, start: int) -> None:
        """The frame that the next `read` begins with, as precisely as the container tells times (webm: about 1 ms)."""
        self._start = start

    def read(self, count: int) -> NDArray[np.float32]:
        """At most `count` frames, (T, C) float32."""
        announced = self._announced()
        end = self._start + count if announced is None else min(self._start + count, announced)
        blocks = [np.empty((0, self.channels), dtype=np.float32)]
        position = self._start
        try:
            for begin, block_TC in self._blocks():
                position = begin + len(block_TC)
                blocks.append(block_TC[max(self._start - begin, 0) : max(end - begin, 0)])
                if position >= end:
                    break
        except self._failure as error:
            raise CodecError(f"ffmpeg: {error.strerror}") from None
        gap = 0 if announced is None else end - position
        self.missing = gap if gap > LOSSY_GAP_S * self.samplerate else 0
        return np.concatenate(blocks)

    def _announced(self) -> int | None:
        """Frames of the stream, where its header says how many; encoders pad beyond that."""
        if self._stream.duration is None or self._stream.time_base is None:
            return None
        return round(self._stream.duration * self._stream.time_base * self.samplerate)

    def _blocks(self) -> Iterator[tuple[int, NDArray[np.float32]]]:
        """Position of the first frame, and frames (T, C), from a little before the start on."""
        early_s = self._start / self.samplerate - SEEK_MARGIN_S
        position: int | None = 0
        if self._seekable and early_s > 0:
            self._container.seek(int(early_s * 1_000_000))
            position = None
        for frame in self._container.decode(self._stream):
            if position is None:
                if frame.time is None:
                    raise CodecError("ffmpeg gives no times, so no segment can be found")
                position = round((frame.time - self._origin_s()) * self.samplerate)
            for ready in self._resampler.resample(frame):
                block_TC = np.ascontiguousarray(ready.to_ndarray().T, dtype=np.float32)
                yield position, block_TC
                position += len(block_TC)

    def _origin_s(self) -> float:
        """Time at which the first frame of the stream is played, in seconds."""
        if self._stream.start_time is None or self._stream.time_base is None:
            return 0.0
        return float(self._stream.start_time * self._stream.time_base)
