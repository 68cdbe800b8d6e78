"""Parts of a package that is not seral's: an adapter of its own layers and one of peft's, an objective, an encoder with
its own model_type, and a reader."""

# B clips · S samples · T frames · D encoder width
from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar, Literal

import torch
from peft import LoraConfig, PeftConfig
from torch import Tensor, nn
from transformers import AutoConfig, AutoModel, Wav2Vec2Config, Wav2Vec2Model

from ser_models.adapters import Adapter
from ser_models.adapters.injection import PeftOptions, inject, target_pattern
from ser_models.adapters.lora import draw_lora
from ser_models.adapters.parameters import adapted_layers, put_after, register
from ser_models.encoders import SpeechEncoder
from ser_models.encoders.wav2vec2 import Wav2Vec2Encoder
from ser_models.objectives import ContrastiveObjective, MaskedPredictionOptions, ObjectiveKind
from seral.corpora.reading.utterance import Utterance


@dataclass(frozen=True, kw_only=True)
class TiltOptions:
    """Options of tilts: the strength at which they work."""

    strength: float = 1.0


class Tilt(nn.Module):
    """h · (1 + strength · t), one t for every feature."""

    def __init__(self, width: int, strength: float) -> None:
        super().__init__()
        self.strength = strength
        self.tilt = nn.Parameter(torch.zeros(width))

    def adapter_params(self) -> list[str]:
        """All of it."""
        return ["tilt"]

    def forward(self, hidden_BTD: Tensor) -> Tensor:
        return hidden_BTD * (1 + self.strength * self.tilt)


def attach_tilt(encoder: SpeechEncoder, options: TiltOptions, *, seed: int) -> SpeechEncoder:
    """Put a tilt after the upper two layers of an encoder in place, and freeze the rest."""
    for index in adapted_layers(encoder, 2):
        put_after(encoder, index, "tilt", Tilt(encoder.width, options.strength))
    register(encoder, "tilt", options)
    return encoder


TILT = Adapter(options=TiltOptions, attach=attach_tilt, mergeable=False, lr=5e-3)


@dataclass(frozen=True, kw_only=True)
class StableOptions(PeftOptions):
    """Options of rank-stabilised LoRA, which a configuration of peft alone does not tell from LoRA."""

    rank: int = 2


def attach_stable(encoder: SpeechEncoder, options: StableOptions, *, seed: int) -> SpeechEncoder:
    """Put low-rank updates on the queries and values of the top layer of an encoder in place, and freeze the rest."""
    pattern = target_pattern(encoder, 1, ("q_proj", "v_proj"))
    inject(encoder, "stable", options, LoraConfig(r=options.rank, use_rslora=True, target_modules=pattern))
    draw_lora(encoder, seed)
    return encoder


def is_stable(config: PeftConfig) -> bool:
    """Whether peft made it so."""
    return bool(getattr(config, "use_rslora", False))


STABLE = Adapter(options=StableOptions, attach=attach_stable, peft=is_stable)


class Squared(ContrastiveObjective):
    """The contrastive objective whose loss is squared: what is far off counts for more."""

    def _loss(self, *batch: Any) -> tuple[dict[str, Tensor], dict[str, Tensor]]:
        mean, share = super()._loss(*batch)
        return mean | {"loss": mean["loss"].square()}, share


SQUARED = ObjectiveKind(options=MaskedPredictionOptions, build=Squared, reads="waves", families=("wav2vec2",))


class PartsConfig(Wav2Vec2Config):  # type: ignore[misc]
    """Sizes of the network."""

    model_type = "parts-audio"


class PartsModel(Wav2Vec2Model):  # type: ignore[misc]
    """wav2vec 2.0 by another name."""

    config_class = PartsConfig


class PartsEncoder(Wav2Vec2Encoder):
    """An encoder that hears everything half as loud."""

    targets: ClassVar[tuple[str, ...]] = ("q_proj", "v_proj", "output_dense")

    def project(self, wave_BS: Tensor, length_B: Tensor) -> Tensor:
        """Frames of clips, (B, S), (B,) -> (B, T, D)."""
        return super().project(wave_BS / 2, length_B)


AutoConfig.register("parts-audio", PartsConfig)
AutoModel.register(PartsConfig, PartsModel)


def read_parts(
    root: Path, *, labels: Literal["first", "last"] = "first", limit: int | None = None
) -> Iterator[Utterance]:
    """Files of a corpus, `SPEAKER_EMOTION_NUMBER.flac`, in the order of their names."""
    files = sorted(root.rglob("*.flac"))
    if not files:
        from seral.errors import ReaderError

        raise ReaderError(f"no file of the corpus in {root}")
    for file in files[:limit]:
        speaker, *words, _ = file.stem.split("_")
        yield Utterance(
            audio=file.resolve(),
            source=file.relative_to(root).as_posix(),
            corpus="parts",
            name=file.stem,
            speaker=speaker,
            emotion=words[0 if labels == "first" else -1],
        )
