"""Speech encoders: one function loads any of them, one interface runs them.

`load_encoder("facebook/wav2vec2-base")`, `load_encoder("path/to/folder")`, `load_encoder("seral-tiny")`.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from torch import nn

from ser_models.checksums import check_checksums, write_checksums
from ser_models.encoders.checkpoint import fingerprint, read_checkpoint
from ser_models.encoders.embedded import seral_tiny, seral_tiny_untrained
from ser_models.encoders.encoder import EncoderOutput, SpeechEncoder
from ser_models.encoders.family import Family, as_family
from ser_models.encoders.moonshine import MOONSHINE, MoonshineSpeechEncoder
from ser_models.encoders.moonshine_streaming import MOONSHINE_STREAMING, MoonshineStreamingSpeechEncoder
from ser_models.encoders.precomputed import FACTS, NETWORK_NEEDED, PrecomputedEncoder
from ser_models.encoders.spectrogram_transformer import DEVIATION, MEAN, SpectrogramTransformerEncoder
from ser_models.encoders.wav2vec2 import Wav2Vec2Encoder
from ser_models.encoders.wav2vec2_bert import Wav2Vec2BertSpeechEncoder
from ser_models.encoders.wav2vec2_conformer import Wav2Vec2ConformerSpeechEncoder
from ser_models.encoders.wavlm import WavLMEncoder
from ser_models.encoders.whisper import QWEN2_AUDIO, VOXTRAL, WHISPER, WhisperSpeechEncoder, WhisperTower
from ser_models.registry import Registry

__all__ = [
    "EMBEDDED",
    "FAMILIES",
    "EncoderOutput",
    "Family",
    "PrecomputedEncoder",
    "SpeechEncoder",
    "fingerprint",
    "load_encoder",
    "save_encoder",
    "wrap",
]

OWN: dict[str, Family] = {
    "wav2vec2": Family(encoder=Wav2Vec2Encoder, licence="Apache-2.0"),
    "wav2vec2-conformer": Family(encoder=Wav2Vec2ConformerSpeechEncoder, licence="Apache-2.0"),
    "wav2vec2-bert": Family(encoder=Wav2Vec2BertSpeechEncoder, licence="MIT"),
    "hubert": Family(encoder=Wav2Vec2Encoder, licence="Apache-2.0"),
    "wavlm": Family(encoder=WavLMEncoder, licence="CC BY-SA 3.0"),
    "data2vec-audio": Family(encoder=Wav2Vec2Encoder, licence="Apache-2.0"),
    "unispeech": Family(encoder=Wav2Vec2Encoder, licence="CC BY-SA 3.0"),
    "unispeech-sat": Family(encoder=Wav2Vec2Encoder, licence="CC BY-SA 3.0"),
    "whisper": Family(encoder=WhisperSpeechEncoder, licence="Apache-2.0", tower=WHISPER),
    "qwen2_audio_encoder": Family(encoder=WhisperTower, licence="Apache-2.0"),
    "qwen2_audio": Family(encoder=WhisperTower, licence="Apache-2.0", tower=QWEN2_AUDIO),
    "voxtral_encoder": Family(encoder=WhisperTower, licence="Apache-2.0"),
    "voxtral": Family(encoder=WhisperTower, licence="Apache-2.0", tower=VOXTRAL),
    "audio-spectrogram-transformer": Family(
        encoder=SpectrogramTransformerEncoder, licence="BSD-3-Clause", preparation={"mean": MEAN, "std": DEVIATION}
    ),
    "moonshine": Family(encoder=MoonshineSpeechEncoder, licence="MIT", tower=MOONSHINE),
    **dict.fromkeys(
        ("moonshine_streaming", "moonshine_streaming_encoder"),
        Family(encoder=MoonshineStreamingSpeechEncoder, licence="MIT", tower=MOONSHINE_STREAMING),
    ),
}
FAMILIES = Registry(OWN, "seral.encoders", as_family)
"""Hugging Face model_type -> the record of its family."""

EMBEDDED: dict[str, Callable[[], SpeechEncoder]] = {
    "seral-tiny": seral_tiny,
    "seral-tiny-untrained": seral_tiny_untrained,
}
"""Encoders that come with the package and need no download; the untrained one is there to compare with."""


def load_encoder(name_or_folder: str | Path) -> SpeechEncoder:
    """An encoder by embedded name, checkpoint folder or hub id, with fp32 weights, in evaluation mode.

    Raises FileNotFoundError where there is none, and ValueError where it is no supported one, or is damaged, or where
    there are features and no network.
    """
    source = str(name_or_folder)
    if source in EMBEDDED:
        return EMBEDDED[source]()
    if (Path(source) / FACTS).is_file():
        raise ValueError(f"{source} {NETWORK_NEEDED}")
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
    return FAMILIES[family].encoder(model, normalise=normalise)


def save_encoder(encoder: SpeechEncoder, folder: str | Path) -> None:
    """Write an encoder without adapters as a Hugging Face folder with the same fingerprint, and its checksums."""
    encoder.save(folder)
    write_checksums(folder)
