"""espeak-ng through ctypes: text in, samples out. Only `seral.synthesis.corpus` uses it.

The library and its data come from the PyPI package espeakng-loader, the optional extra `demo`: espeak-ng is GPL-3.0,
so nothing else in seral may need it.
"""

from __future__ import annotations

import ctypes
import shutil
import tempfile
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Self

import numpy as np
from numpy.typing import NDArray

from seral.errors import SeralError

RATE_HZ = 22_050
"""Sampling rate of espeak-ng's formant voices."""

# From speak_lib.h.
_SYNCHRONOUS = 2
_DO_NOT_EXIT = 0x8000
_TEXT_IS_UTF8 = 1
_RATE, _VOLUME, _PITCH, _RANGE, _WORD_GAP = 1, 2, 3, 4, 7
_CALLBACK = ctypes.CFUNCTYPE(ctypes.c_int, ctypes.POINTER(ctypes.c_short), ctypes.c_int, ctypes.c_void_p)


@dataclass(frozen=True, kw_only=True)
class Delivery:
    """Voice settings of a text, in espeak-ng's own units."""

    voice: str
    """Language and variant, such as `de+f2`."""
    rate_wpm: int
    """Words per minute, 80..450."""
    pitch: int
    """0..100, 50 = the voice's own."""
    pitch_range: int
    """0..100, 50 = the voice's own, 0 = monotone."""
    word_gap_10ms: int
    """Pause between words, in units of 10 ms at the usual rate."""


class Espeak:
    """One private copy of the espeak-ng library, from `with Espeak() as espeak` to the end of the block.

    espeak-ng keeps its state in process-wide variables, some of which nothing resets (the phase of the glottal pulses,
    the flutter of the pitch), so that a voice depends on everything said before. A copy of the library file is loaded
    with variables of its own: the same calls in the same order give the same samples, also twice in one process.
    """

    def __init__(self) -> None:
        library, data = _locate()
        self._folder = tempfile.TemporaryDirectory(prefix="seral-espeak-")
        home = Path(self._folder.name)
        # espeak-ng cuts the path of its data off at 160 characters, which a path inside a venv can reach.
        (home / "espeak-ng-data").symlink_to(data, target_is_directory=True)
        self._library = ctypes.CDLL(str(shutil.copy(library, home)))
        self._chunks: list[NDArray[np.int16]] = []
        self._callback = _CALLBACK(self._collect)
        rate = self._library.espeak_Initialize(_SYNCHRONOUS, 0, str(home).encode(), _DO_NOT_EXIT)
        if rate != RATE_HZ:
            raise SeralError(f"espeak-ng does not start: espeak_Initialize gave {rate}, expected {RATE_HZ}")
        self._library.espeak_SetSynthCallback(self._callback)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._library.espeak_Terminate()
        self._folder.cleanup()

    def say(self, text: str, delivery: Delivery, *, seed: int = 0) -> NDArray[np.float32]:
        """Speak a text, (S,) float32 at RATE_HZ, full scale = 1."""
        library = self._library
        library.espeak_ng_SetRandSeed(ctypes.c_long(seed))
        self._check(library.espeak_SetVoiceByName(delivery.voice.encode()), f"voice {delivery.voice!r}")
        settings = {
            _VOLUME: 100,
            _RATE: delivery.rate_wpm,
            _PITCH: delivery.pitch,
            _RANGE: delivery.pitch_range,
            _WORD_GAP: delivery.word_gap_10ms,
        }
        for parameter, value in settings.items():
            self._check(library.espeak_SetParameter(parameter, value, 0), f"{delivery}")
        self._chunks.clear()
        encoded = text.encode()
        size = ctypes.c_size_t(len(encoded) + 1)
        self._check(library.espeak_Synth(encoded, size, 0, 0, 0, _TEXT_IS_UTF8, None, None), f"text {text!r}")
        if not self._chunks:
            raise SeralError(f"espeak-ng said nothing for {text!r} with voice {delivery.voice!r}")
        return np.concatenate(self._chunks).astype(np.float32) / np.float32(32768)

    def _collect(self, samples: ctypes._Pointer[ctypes.c_short], count: int, events: int | None) -> int:
        if count > 0:
            self._chunks.append(np.ctypeslib.as_array(samples, (count,)).copy())
        return 0

    def _check(self, status: int, setting: str) -> None:
        if status != 0:
            raise SeralError(f"espeak-ng refused {setting} (status {status})")


def _locate() -> tuple[str, str]:
    """Paths of the library and of its data."""
    try:
        import espeakng_loader
    except ImportError:
        raise SeralError(
            "generating speech needs espeak-ng, which is not installed: pip install 'seral[demo]'"
        ) from None
    return espeakng_loader.get_library_path(), espeakng_loader.get_data_path()
