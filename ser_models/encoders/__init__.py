"""Speech encoders: one function loads any of them, one interface runs them.

`load_encoder("facebook/wav2vec2-base")`, `load_encoder("path/to/folder")`, `load_encoder("seral-tiny")`.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

from torch import nn

from ser_models.checksums import check_checksums, write_checksums
from ser_models.encoders.checkpoint import fingerprint, read_checkpoint
from ser_models.encoders.embedded import seral_tiny, seral_tiny_untrained
from ser_models.encoders.encoder import EncoderOutput, SpeechEncoder
from ser_models.encoders.moonshine import MoonshineSpeechEncoder
from ser_models.encoders.wav2vec2 import Wav2Vec2Encoder
from ser_models.encoders.wavlm import WavLMEncoder
from ser_models.encoders.whisper import WhisperSpeechEncoder
from ser_models.registry import Registry

__all__ = [
    "EMBEDDED",
    "FAMILIES",
    "EncoderOutput",
    "SpeechEncoder",
    "fingerprint",
    "load_encoder",
    "save_encoder",
    "wrap",
]

EncoderClass = Callable[..., SpeechEncoder]
"""(network of transformers, normalise=...) -> the encoder around it."""


def as_family(part: Any) -> EncoderClass:
    """A class of encoders of somebody else's. ValueError for anything else."""
    if not (isinstance(part, type) and issubclass(part, SpeechEncoder)):
        raise ValueError(f"{part!r} is no subclass of ser_models.encoders.SpeechEncoder")
    return part


OWN: dict[str, EncoderClass] = {
    "wav2vec2": Wav2Vec2Encoder,
    "hubert": Wav2Vec2Encoder,
    "wavlm": WavLMEncoder,
    "data2vec-audio": Wav2Vec2Encoder,
    "whisper": WhisperSpeechEncoder,
    "moonshine": MoonshineSpeechEncoder,
}
FAMILIES = Registry(OWN, "seral.encoders", as_family)
"""Hugging Face model_type -> the class that runs it."""

EMBEDDED: dict[str, Callable[[], SpeechEncoder]] = {
    "seral-tiny": seral_tiny,
    "seral-tiny-untrained": seral_tiny_untrained,
}
"""Encoders that come with the package and need no download; the untrained one is there to compare with."""


def load_encoder(name_or_folder: str | Path) -> SpeechEncoder:
    """An encoder by embedded name, checkpoint folder or hub id, with fp32 weights, in evaluation mode.

    Raises FileNotFoundError where there is none, and ValueError where it is no supported one, or is damaged.
    """
    source = str(name_or_folder)
    if source in EMBEDDED:
        return EMBEDDED[source]()
    check_checksums(source)
    try:
        model, normalise = read_checkpoint(source, FAMILIES)
    except OSError as error:
        embedded = ", ".join(sorted(EMBEDDED))
        raise FileNotFoundError(f"cannot load encoder {source!r}: {error} (without a download: {embedded})") from error
    return wrap(model, normalise=normalise)


def wrap(model: nn.Module, *, normalise: bool = False) -> SpeechEncoder:
    """The uniform interface around an encoder network of transformers that is already in memory."""
    family = getattr(getattr(model, "config", None), "model_type", type(model).__name__)
    if family not in FAMILIES:
        raise ValueError(f"{family!r} is not a supported encoder family; known: {', '.join(sorted(FAMILIES))}")
    return FAMILIES[family](model, normalise=normalise)


def save_encoder(encoder: SpeechEncoder, folder: str | Path) -> None:
    """Write an encoder without adapters as a Hugging Face folder with the same fingerprint, and its checksums."""
    encoder.save(folder)
    write_checksums(folder)
