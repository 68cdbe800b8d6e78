"""Audio and text: vectors of transcripts, and their late fusion with the audio.

de Oliveira et al. 2023 (arXiv 2305.19184): a distilled audio encoder and a text encoder, each averaged over time or
tokens, `y = W2 tanh(W1 [a; s])`. Words carry valence, which audio alone tells badly.
"""

# N rows of a feature cache · B batch · T tokens · L hidden states of the audio encoder · D features · U embedding
# E features of a transcript
from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from ser_models.defaults import STD_GAIN, TEXT_GAIN
from ser_models.encoders.checkpoint import digest_weights
from ser_models.encoders.encoder import quiet_transformers
from ser_models.heads import SCALE_FLOOR, LayerPool
from ser_models.moments import PooledMoments

MAX_TOKENS = 256
"""Longer transcripts are cut; an utterance of 30 s has about 100 tokens."""


@dataclass(frozen=True, kw_only=True)
class TextInput:
    """Input of transcripts to a model: width and gain of their vectors."""

    width: int
    """Features E of a transcript's vector."""
    alone: bool = False
    """Text without audio, to see what the words by themselves are worth."""
    gain: float = TEXT_GAIN
    """Factor on the standardised vector."""

    def __post_init__(self) -> None:
        if self.width < 1 or self.gain <= 0:
            raise ValueError(f"expected a width and a gain above 0, got {self.width} and {self.gain}")


class AudioTextPool(LayerPool):
    """The layers' embedding with the standardised vector of the transcript behind it, (B, U).

    A clip without transcript gets the average one, zeros, and one more feature that says so; so it is judged by its
    audio, and a model of audio and text needs no second one for what nobody has transcribed.
    """

    centre_text: Tensor
    scale_text: Tensor

    def __init__(
        self, num_states: int, width: int, text: TextInput, *, std_gain: float = STD_GAIN, standardised: bool = True
    ) -> None:
        super().__init__(num_states, width, std_gain=std_gain, standardised=standardised)
        self.text = text
        self.register_buffer("centre_text", torch.zeros(text.width))
        self.register_buffer("scale_text", torch.ones(text.width))

    @property
    def out_width(self) -> int:
        """Width U of the embedding."""
        return (0 if self.text.alone else super().out_width) + self.text.width + 1

    @torch.no_grad()
    def fit_moments(self, moments: PooledMoments) -> None:
        """Set the standardisation from the moments of (unlabelled) training features and transcripts' vectors."""
        super().fit_moments(moments)
        transcripts = 0 if moments.text is None else moments.text.count
        if moments.text is None or transcripts < 2:
            raise ValueError(f"a model that reads needs at least 2 clips with a transcript, got {transcripts}")
        scale_E = moments.text.scale()
        self.centre_text.copy_(moments.text.mean)
        self.scale_text.copy_(scale_E.clamp_min(max(SCALE_FLOOR * float(scale_E.median()), 1e-8)))

    def join(self, audio_BU: Tensor, text_BE: Tensor | None) -> Tensor:
        """The combined layers, unless text stands alone, the standardised text, and whether there is none."""
        if text_BE is None:
            text_BE = audio_BU.new_full((audio_BU.shape[0], self.text.width), torch.nan)
        if text_BE.shape != (len(audio_BU), self.text.width):
            raise ValueError(
                f"expected vectors of transcripts ({len(audio_BU)}, {self.text.width}), got {tuple(text_BE.shape)}"
            )
        missing_B1 = ~_has_text(text_BE)[:, None]
        standard_BE = self.text.gain * (text_BE.float() - self.centre_text) / self.scale_text
        standard_BE = standard_BE.masked_fill(missing_B1, 0.0)
        parts = [standard_BE, missing_B1.to(standard_BE)]
        return torch.cat(parts if self.text.alone else [audio_BU, *parts], -1)


def make_pool(
    num_states: int, width: int, *, std_gain: float, standardised: bool = True, text: TextInput | None = None
) -> LayerPool:
    """The pool of a model of audio, or of one that reads as well."""
    if text is None:
        return LayerPool(num_states, width, std_gain=std_gain, standardised=standardised)
    return AudioTextPool(num_states, width, text, std_gain=std_gain, standardised=standardised)


def _has_text(text_NE: Tensor) -> Tensor:
    """Whether each row has a transcript, (N,) bool."""
    return torch.isfinite(text_NE).all(-1)


class TextEncoder(nn.Module):
    """A frozen text encoder of transformers: transcripts in, the mean of their tokens' last hidden states out."""

    def __init__(self, model: nn.Module, tokenizer: Any) -> None:
        super().__init__()
        # Any: transformers types submodules as `Tensor | Module`, which would need a cast at every access.
        self.model: Any = model
        self.tokenizer = tokenizer
        self.width: int = _config(model).hidden_size
        self.requires_grad_(False).eval()

    @property
    def limit(self) -> int:
        """Tokens of a transcript that are read, at most."""
        return min(MAX_TOKENS, getattr(self.model.config, "max_position_embeddings", MAX_TOKENS))

    def lengths(self, texts: Sequence[str]) -> list[int]:
        """Number of tokens of each transcript that are read."""
        return [len(ids) for ids in self.tokenizer(list(texts), truncation=True, max_length=self.limit)["input_ids"]]

    @torch.inference_mode()
    def forward(self, texts: Sequence[str], length: int | None = None) -> Tensor:
        """Vectors (B, E) of transcripts, none of them empty; padding and the rest of the batch change nothing.

        They are padded to `length` tokens, or to the longest.
        """
        if not texts or (empty := [row for row, text in enumerate(texts) if not text.strip()]):
            raise ValueError(f"expected transcripts with words in them, got {'none' if not texts else empty}")
        device = next(self.model.parameters()).device
        shape: dict[str, Any] = {"max_length": self.limit, "padding": True}
        if length is not None:
            shape = {"max_length": length, "padding": "max_length"}
        tokens = self.tokenizer(list(texts), truncation=True, return_tensors="pt", **shape)
        tokens = {name: tensor.to(device) for name, tensor in tokens.items()}
        hidden_BTE = self.model(**tokens).last_hidden_state.float()
        mask_BT1 = tokens["attention_mask"].unsqueeze(-1).float()
        mean_BE: Tensor = (hidden_BTE * mask_BT1).sum(1) / mask_BT1.sum(1)
        return mean_BE

    def fingerprint(self) -> str:
        """16 hex digits that name the encoder: its configuration, its vocabulary and every weight."""
        vocabulary = hashlib.sha256(json.dumps(self.tokenizer.get_vocab(), sort_keys=True).encode()).hexdigest()
        head = {"model": self.model.config.model_type, "vocabulary": vocabulary}
        return digest_weights(head, self.model.state_dict())


def _config(model: Any) -> Any:
    return model.config


def load_text_encoder(name_or_folder: str) -> TextEncoder:
    """A text encoder by hub id or folder, with fp32 weights. Raises OSError when it cannot be found."""
    from transformers import AutoModel, AutoTokenizer

    loader: Any = AutoModel  # Any: these classes of transformers are unannotated
    reader: Any = AutoTokenizer
    with quiet_transformers():
        model = loader.from_pretrained(name_or_folder, dtype=torch.float32)
        tokenizer = reader.from_pretrained(name_or_folder)
    return TextEncoder(model.get_encoder() if model.config.is_encoder_decoder else model, tokenizer)
