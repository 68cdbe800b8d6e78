"""From an audio file to 16 kHz mono samples and back, where everything that can be wrong has a name.

A pool of speech from the world holds text files called .wav, pointers to files never downloaded, recordings cut off in
the middle and three-hour tapes. Each is a `BadAudio` with one word from `seral.audio.quality.REASONS`; nothing else is
raised, and nothing is read before the header says that it is worth reading.
"""

# S samples at 16 kHz · T frames of the source · C channels
from __future__ import annotations

import hashlib
import io
import os
import struct
from contextlib import nullcontext, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO, cast

import numpy as np
import soundfile as sf
import soxr
from numpy.typing import NDArray

from ser_models.channels import Channel, mix_down
from seral.audio.address import LFS_STUB
from seral.audio.channels import channel_fault
from seral.audio.codecs import INSTALL, CodecError, ContainerSound, container_of, installed
from seral.audio.containers import Inside, open_clip
from seral.audio.limits import USUAL, SoundLimits
from seral.audio.voice import Samples
from seral.errors import PoolError, SeralError
from seral.schema import SAMPLE_RATE

UNKNOWN_LENGTH = 2**62
"""libsndfile gives a frame count beyond this for streams whose header does not say how long they are."""
HARMLESS_GAP_S = 0.02
"""Less than this missing at the end is rounding in a lossy format or a careless cut, not a truncated file."""
SILENCE_DB = -70.0
"""Standard deviation of the samples below this level, dBFS, is silence (a constant offset is silence too)."""
HIGHEST_PEAK = 4.0
"""Peaks up to 12 dB over full scale are overs of a floating-point mix; beyond, the scale is not full scale = 1."""


TOO_LARGE = "more than max_decoded_mb"
BLOCK_SAMPLES = 1 << 20
"""Samples, over all channels, that are decoded at a time."""


class BadAudio(PoolError):
    """A file, or a segment of one, that cannot become an utterance: `reason` from REASONS and what was measured."""

    def __init__(self, reason: str, detail: str) -> None:
        super().__init__(reason, detail)
        self.reason = reason
        self.detail = detail

    def __str__(self) -> str:
        return f"{self.reason}: {self.detail}"


@dataclass(frozen=True, kw_only=True)
class Decoded:
    """One clip, ready for the pool."""

    samples: Samples
    """(S,) float32, 16 kHz, mono, full scale = 1."""
    source_rate_hz: int
    source_channels: int
    channel_fault: str | None
    """A word from seral.audio.channels.CHANNEL_FAULTS."""


def decode(
    path: Path | io.BytesIO,
    *,
    inside: Inside | None = None,
    start_s: float | None = None,
    end_s: float | None = None,
    channel: Channel = "auto",
    limits: SoundLimits = USUAL,
    min_duration_s: float = 0.1,
) -> Decoded:
    """Read a clip, or the seconds from `start_s` to `end_s` of it, as 16 kHz mono. Raises BadAudio, and only that.

    The clip is a file of its own, bytes in memory, or lies `inside` a file. `channel` says which of several it is.
    """
    try:
        with nullcontext(path) if isinstance(path, io.BytesIO) else open_clip(path, inside) as file:
            _check_head(file)
            with _open(file) as sound:
                frames_TC = _read(sound, file, start_s, end_s, limits)
                rate, channels = sound.samplerate, sound.channels
    except FileNotFoundError as error:
        raise BadAudio("missing", str(error) if inside else f"no file at {path}") from None
    except OSError as error:
        raise BadAudio("unreadable", f"{path}: {error.strerror or error}") from None
    except SeralError:
        raise
    except Exception as error:  # whatever a decoder makes of damaged bytes
        raise BadAudio("not-audio", f"{type(error).__name__}: {error}") from error
    samples = to_pool_rate(mix_down(frames_TC, rate, channel), rate)
    if len(samples) < max(1.0, min_duration_s * SAMPLE_RATE):
        raise BadAudio("too-short", f"{len(samples) / SAMPLE_RATE:.3f} s, the least is {min_duration_s:g} s")
    _check_level(samples)
    return Decoded(
        samples=samples,
        source_rate_hz=rate,
        source_channels=channels,
        channel_fault=channel_fault(frames_TC, rate),
    )


def to_pool_rate(samples: Samples, rate_hz: int) -> Samples:
    """Resample to 16 kHz with soxr's high-quality filter; samples at 16 kHz come back untouched."""
    if rate_hz == SAMPLE_RATE:
        return samples
    return np.asarray(soxr.resample(samples, rate_hz, SAMPLE_RATE, quality="HQ"), dtype=np.float32)


def encode_flac(samples: Samples | NDArray[np.int16]) -> bytes:
    """16-bit FLAC of a clip at 16 kHz. Reading it back and encoding again gives the same samples."""
    buffer = io.BytesIO()
    sf.write(buffer, pcm16(samples), SAMPLE_RATE, format="FLAC", subtype="PCM_16")
    return buffer.getvalue()


def decode_flac(data: bytes) -> Samples:
    """The samples of a clip stored by `encode_flac`, (S,). Raises BadAudio when the bytes are damaged."""
    try:
        with sf.SoundFile(_Within(io.BytesIO(data))) as sound:
            if (sound.samplerate, sound.channels) != (SAMPLE_RATE, 1):
                actual = f"{sound.samplerate} Hz with {sound.channels} channels"
                raise BadAudio("not-audio", f"stored audio has {actual}, expected {SAMPLE_RATE} Hz mono")
            announced = sound.frames
            samples = sound.read(dtype="float32")
    except sf.LibsndfileError as error:
        raise BadAudio("not-audio", f"libsndfile: {error.error_string}") from None
    if len(samples) < announced:
        raise BadAudio("truncated", f"{len(samples)} of {announced} samples")
    return np.asarray(samples, dtype=np.float32)


def pcm_hash(samples: Samples | NDArray[np.int16]) -> str:
    """Hash of the clip's 16-bit samples: equal for the same audio in another container. 32 hex digits."""
    return hashlib.blake2b(pcm16(samples).astype("<i2", copy=False).data, digest_size=16).hexdigest()


def pcm16(samples: Samples | NDArray[np.int16]) -> NDArray[np.int16]:
    """The 16-bit samples of a clip that are stored and hashed; they come back as they are."""
    if samples.dtype == np.int16:
        return cast(NDArray[np.int16], samples)
    scaled = samples * np.float32(32768)
    np.rint(scaled, out=scaled)
    np.clip(scaled, -32768, 32767, out=scaled)
    return scaled.astype(np.int16)


def _check_head(file: BinaryIO) -> None:
    head = file.read(len(LFS_STUB))
    if not head:
        raise BadAudio("empty", "0 bytes")
    if head == LFS_STUB:
        raise BadAudio("lfs-stub", "a Git LFS pointer; run `git lfs pull` in the corpus")
    file.seek(0)


class _Within:
    """A file for codecs, which broken headers send before its beginning: it stays where it is, and says so.

    An exception could not get through C, and would be printed.
    """

    def __init__(self, file: BinaryIO) -> None:
        self._file = file
        self.read, self.tell = file.read, file.tell

    def seek(self, offset: int, whence: int = 0) -> int:
        with suppress(OSError, ValueError):
            self._file.seek(offset, whence)
        return self._file.tell()


def _open(file: BinaryIO) -> sf.SoundFile | ContainerSound:
    """By libsndfile; by ffmpeg what libsndfile does not know."""
    try:
        return sf.SoundFile(_Within(file))
    except sf.LibsndfileError as error:
        file.seek(0)
        container = container_of(file.read(16))
        if container is None:
            raise BadAudio("not-audio", f"libsndfile: {error.error_string}") from None
    if not installed():
        raise BadAudio("not-audio", f"{container}, which libsndfile does not read. {INSTALL}")
    file.seek(0)
    try:
        return ContainerSound(cast(BinaryIO, _Within(file)), container)
    except CodecError as error:
        raise BadAudio("not-audio", str(error)) from None


def _read(
    sound: sf.SoundFile | ContainerSound,
    file: BinaryIO,
    start_s: float | None,
    end_s: float | None,
    limits: SoundLimits,
) -> NDArray[np.float32]:
    """The wanted frames, (T, C), after every check that the header allows."""
    rate, channels = int(sound.samplerate), int(sound.channels)
    if channels > limits.channels:
        raise BadAudio("too-large", f"{channels} channels, the most is {limits.channels} (max_channels)")
    announced = _announced(sound)
    start, stop = _span(rate, announced, start_s, end_s)
    limit = int(limits.seconds * rate)
    if stop is not None and stop - start > limit:
        raise BadAudio("too-long", f"{(stop - start) / rate:.1f} s, the most is {limits.seconds:g} s")
    count = limit + 1 if stop is None else stop - start
    most = int(limits.decoded_mb * 1e6) // (4 * max(1, channels))
    if stop is not None and count > most:
        raise BadAudio("too-large", f"{4 * count * channels / 1e6:.0f} MB when decoded, {TOO_LARGE}")
    frames_TC = _read_frames(sound, start, count, most)
    if stop is None and len(frames_TC) > limit:
        raise BadAudio("too-long", f"more than {limits.seconds:g} s")
    missing = 0 if stop is None else count - len(frames_TC)
    if end_s is None:
        missing += sound.missing if isinstance(sound, ContainerSound) else _missing_wav_frames(sound, file)
    if missing > HARMLESS_GAP_S * rate:
        raise BadAudio("truncated", f"{len(frames_TC)} of {len(frames_TC) + missing} frames")
    if not len(frames_TC):
        raise BadAudio("no-frames", "the header is followed by no audio")
    return frames_TC


def _announced(sound: sf.SoundFile | ContainerSound) -> int | None:
    """Frames by the header; containers only say about how many."""
    if isinstance(sound, ContainerSound) or sound.frames >= UNKNOWN_LENGTH:
        return None
    return int(sound.frames)


def _span(rate: int, announced: int | None, start_s: float | None, end_s: float | None) -> tuple[int, int | None]:
    """First frame and the frame after the last one (None: as far as the stream goes)."""
    if announced == 0:
        raise BadAudio("no-frames", "the header announces 0 frames")
    start = 0 if start_s is None else round(start_s * rate)
    stop = announced if end_s is None else round(end_s * rate)
    if announced is not None and stop is not None and announced < stop <= announced + HARMLESS_GAP_S * rate:
        stop = announced
    inside = announced is None or (stop is not None and stop <= announced)
    if start < 0 or not inside or (stop is not None and start >= stop):
        length = "unknown length" if announced is None else f"{announced / rate:.3f} s"
        raise BadAudio("bad-segment", f"start {start_s} s, end {end_s} s in a recording of {length}")
    return start, stop


def _read_frames(sound: sf.SoundFile | ContainerSound, start: int, count: int, most: int) -> NDArray[np.float32]:
    """Read frames, (T, C) float32. A decoder that stops at damaged data in the middle counts as a truncated file.

    Memory grows with what is there, not with what a header announces. Raises BadAudio beyond `most` frames.
    """
    try:
        if start:
            sound.seek(start)
        wanted = min(count, most + 1)
        frames_TC = sound.read(wanted) if isinstance(sound, ContainerSound) else _in_blocks(sound, wanted)
    except sf.LibsndfileError as error:
        raise BadAudio("truncated", f"damaged after the header; libsndfile: {error.error_string}") from None
    except CodecError as error:
        raise BadAudio("truncated", f"damaged after the header; {error}") from None
    if len(frames_TC) > most:
        raise BadAudio("too-large", f"more than {4 * most * frames_TC.shape[1] / 1e6:.0f} MB when decoded, {TOO_LARGE}")
    bad = frames_TC.size - int(np.count_nonzero(np.isfinite(frames_TC)))
    if bad:
        raise BadAudio("not-finite", f"{bad} of {frames_TC.size} samples are NaN or infinite")
    return np.asarray(frames_TC, dtype=np.float32)


def _in_blocks(sound: sf.SoundFile, count: int) -> NDArray[np.float32]:
    """Frames, (T, C), as many as there are, `count` at most."""
    blocks = [np.empty((0, sound.channels), np.float32)]
    size = max(1, BLOCK_SAMPLES // sound.channels)
    while count > 0 and len(block_TC := sound.read(min(size, count), dtype="float32", always_2d=True)):
        blocks.append(block_TC)
        count -= len(block_TC)
    return blocks[1] if len(blocks) == 2 else np.concatenate(blocks)


def _missing_wav_frames(sound: sf.SoundFile, file: BinaryIO) -> int:
    """Frames that a WAV header announces past the end of the file; libsndfile silently counts what is there."""
    if sound.format not in {"WAV", "WAVEX"}:
        return 0
    data_start, data_bytes = _wav_data_chunk(file)
    present = file.seek(0, os.SEEK_END) - data_start
    # Programs that write to a pipe cannot go back to fill in the size and leave 0 or the largest number.
    if not 0 < data_bytes < 0xFFFFFF00 or data_bytes <= present:
        return 0
    bytes_per_frame = present / sound.frames
    return int((data_bytes - present) / bytes_per_frame)


def _wav_data_chunk(file: BinaryIO) -> tuple[int, int]:
    """Offset and announced size in bytes of the data chunk, (0, 0) when there is none."""
    file.seek(12)
    while len(header := file.read(8)) == 8:
        name, size = struct.unpack("<4sI", header)
        if name == b"data":
            return file.tell(), size
        file.seek(size + size % 2, os.SEEK_CUR)
    return 0, 0


def _check_level(samples: Samples) -> None:
    peak = float(max(samples.max(), -samples.min()))
    if peak > HIGHEST_PEAK:
        raise BadAudio("out-of-range", f"peak {peak:.4g}, full scale is 1")
    centred = samples - samples.mean()
    level = float(np.sqrt(np.dot(centred, centred) / len(centred)))
    if level < 10 ** (SILENCE_DB / 20):
        raise BadAudio("silent", f"{20 * np.log10(max(level, 1e-10)):.0f} dBFS, silence is below {SILENCE_DB:g} dBFS")
