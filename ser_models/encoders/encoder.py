"""The one face every speech encoder shows: waveforms in, all hidden states and a frame mask out.

What zero padding a clip receives, and which clips share its batch, changes nothing on its real frames. The network is
cut in two so that what is frozen can be cached: `stem` turns audio into the input of the first transformer layer,
`upper` runs the layers from any hidden state on. The stem itself is `project`, audio into frames, then `add_positions`:
masked pretraining hides frames between the two, so that a hidden one still has its position.

# B batch · S samples · T frames · D features · L hidden states (transformer layers + 1, index 0 = input of the first)
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Any, ClassVar, Self

import torch
from torch import Tensor, nn

SAMPLE_RATE_HZ = 16_000


@dataclass(frozen=True)
class EncoderOutput:
    """All hidden states of a batch, and which of its frames are real audio."""

    hidden_LBTD: Tensor
    """(L, B, T, D); index 0 is the input of the first transformer layer, the last is the network's own output."""
    mask_BT: Tensor
    """(B, T) bool, True on frames of real audio; what padded frames hold has no meaning."""


class SpeechEncoder(nn.Module, ABC):
    """A pretrained Hugging Face encoder (`self.model`) behind one padding-invariant interface.

    Input is 16 kHz mono float in [-1, 1], zero padded to one length, which is that of the longest clip or more. The
    last hidden state is what the network returns as `last_hidden_state`: in pre-norm networks it has passed the final
    layer norm, unlike `hidden_states[-1]` of Hugging Face's wav2vec 2.0, HuBERT and WavLM. Layers are never dropped
    (layerdrop is ignored) and nothing is masked in training: augmentation belongs to the caller.
    """

    config_fields: ClassVar[tuple[str, ...]]
    """Configuration that changes the output but cannot be read off the weights: part of the fingerprint."""
    depth_fields: ClassVar[tuple[str, ...]] = ("num_hidden_layers",)
    """Fields of the configuration that hold the number of layers."""
    targets: ClassVar[tuple[str, ...]] = ()
    """Last names of the linears where adapters go by default: those of queries, keys, values and output of the
    attention, then both of the feed-forward, the second last."""
    unused: ClassVar[tuple[str, ...]] = ()
    """Beginnings of the names of weights that no hidden state depends on; they are saved, and never trained."""
    limit_samples: int | None = None
    """The longest clip that can be encoded; None = any."""

    def __init__(self, model: nn.Module, *, width: int, frame_rate_hz: float, equal_lengths_only: bool) -> None:
        super().__init__()
        # Any: transformers types submodules as `Tensor | Module`, which would need a cast at every access.
        self.model: Any = model
        config: Any = model.config
        for name, weight in model.named_parameters():
            if name.startswith(self.unused):
                weight.requires_grad_(False)
        self.family: str = config.model_type
        self.adapters: dict[str, Any] = {}
        """Adapters attached (ser_models.adapters), kind -> options, in the order in which they are attached."""
        # What adapters put behind a layer; empty, it passes everything through.
        self.after_layers = nn.ModuleList(nn.Sequential() for _ in self.layers)
        # What adapters make of a hidden state, (B, T, D), (B, T) -> (B, T, D), before anything else is given it.
        self.on_states = nn.ModuleList(nn.ModuleDict() for _ in range(len(self.layers) + 1))
        self.width = width
        self.frame_rate_hz = frame_rate_hz
        self.equal_lengths_only = equal_lengths_only
        """True where the wrapped network's *own* forward lets zero padding change real frames (GroupNorm over time)."""
        self.eval()

    def train(self, mode: bool = True) -> Self:
        """Batch norms stay with their stored statistics, so that a batch never shifts its clips."""
        super().train(mode)
        for module in self.modules():
            if isinstance(module, nn.BatchNorm1d):
                module.eval()
        return self

    @property
    def layers(self) -> nn.ModuleList:
        """The transformer layers, lowest first."""
        layers: nn.ModuleList = self.model.layers
        return layers

    @property
    def num_layers(self) -> int:
        return len(self.layers)

    @property
    def final_norm(self) -> nn.Module | None:
        """The layer norm after the last layer, or None in post-norm networks."""
        norm: nn.Module = self.model.layer_norm
        return norm

    @property
    @abstractmethod
    def minimal_samples(self) -> int:
        """The shortest clip that yields a frame, in samples."""

    @abstractmethod
    def frames(self, length_B: Tensor) -> Tensor:
        """Number of frames of real audio that clips of so many samples give, (B,) -> (B,)."""

    @property
    @abstractmethod
    def front(self) -> list[nn.Module]:
        """The convolutions between audio and frames with their norms; fine-tuning usually leaves them as they are."""

    @abstractmethod
    def project(self, wave_BS: Tensor, length_B: Tensor) -> Tensor:
        """Frames of checked clips before positions are added, as many as S samples give, (B, S), (B,) -> (B, T, D)."""

    def add_positions(self, frame_BTD: Tensor, mask_BT: Tensor) -> Tensor:
        """Hidden state 0 from the frames of `project`: positions, and what the family does with them."""
        return frame_BTD

    @abstractmethod
    def checkpoint(self) -> Any:
        """The transformers model to save: one that `AutoModel` loads back."""

    @abstractmethod
    def feature_extractor(self) -> Any:
        """The transformers feature extractor that describes the input this encoder expects."""

    def forward(self, wave_BS: Tensor, length_B: Tensor) -> EncoderOutput:
        """Every hidden state of a zero-padded batch, (B, S), (B,) in samples -> (L, B, T, D)."""
        hidden_BTD, mask_BT = self.stem(wave_BS, length_B)
        return EncoderOutput(self.upper(hidden_BTD, mask_BT, start=0), mask_BT)

    def stem(self, wave_BS: Tensor, length_B: Tensor) -> tuple[Tensor, Tensor]:
        """Hidden state 0 and the mask of real frames, (B, S), (B,) -> (B, T, D), (B, T)."""
        check_clips(wave_BS, length_B, self.minimal_samples)
        frames_B = self.frames(length_B)
        frame_BTD = self.project(wave_BS, length_B)
        mask_BT = prefix_mask(frames_B, frame_BTD.shape[1])
        return self.add_positions(frame_BTD, mask_BT), mask_BT

    def upper(self, hidden_BTD: Tensor, mask_BT: Tensor, *, start: int) -> Tensor:
        """Hidden states from `start` on, computed from hidden state `start`, (B, T, D) -> (L-start, B, T, D)."""
        return torch.stack(list(self.states(hidden_BTD, mask_BT, start=start)))

    def states(self, hidden_BTD: Tensor, mask_BT: Tensor, *, start: int) -> Iterator[Tensor]:
        """Hidden states from `start` on, one after the other, each (B, T, D), so that a caller may stop at any."""
        if not 0 <= start <= self.num_layers:
            raise ValueError(f"start must be a hidden state 0..{self.num_layers} of this encoder, got {start}")
        # Padded frames of a cached state may hold anything; 0 · NaN would still be NaN inside the attention.
        hidden_BTD = self._adapt_state(start, hidden_BTD.masked_fill(~mask_BT.unsqueeze(-1), 0.0), mask_BT)
        yield hidden_BTD
        inputs = self._layer_inputs(hidden_BTD, mask_BT)
        for index in range(start, self.num_layers):
            hidden_BTD = self._adapt_state(index + 1, self._next_state(index, hidden_BTD, inputs), mask_BT)
            yield hidden_BTD

    def lower(self, wave_BS: Tensor, length_B: Tensor, *, stop: int) -> tuple[Tensor, Tensor]:
        """Hidden state `stop` as `upper` takes it, before what adapters make of it, and the mask of real frames.

        (B, S), (B,) in samples -> (B, T, D), (B, T); the layers above are not run.
        """
        hidden_BTD, mask_BT = self.stem(wave_BS, length_B)
        if stop == 0:
            return hidden_BTD, mask_BT
        below_BTD = next(islice(self.states(hidden_BTD, mask_BT, start=0), stop - 1, None))
        return self._next_state(stop - 1, below_BTD, self._layer_inputs(hidden_BTD, mask_BT)), mask_BT

    def _next_state(self, index: int, hidden_BTD: Tensor, inputs: dict[str, Any]) -> Tensor:
        """Hidden state `index` + 1, of the one before it."""
        hidden_BTD = self.after_layers[index](self._run_layer(self.layers[index], hidden_BTD, inputs))
        last = index == self.num_layers - 1
        return hidden_BTD if not last or self.final_norm is None else self.final_norm(hidden_BTD)

    def _adapt_state(self, index: int, hidden_BTD: Tensor, mask_BT: Tensor) -> Tensor:
        modules: Any = self.on_states[index]
        for module in modules.values():
            hidden_BTD = module(hidden_BTD, mask_BT)
        return hidden_BTD

    def _layer_inputs(self, hidden_BTD: Tensor, mask_BT: Tensor) -> dict[str, Any]:
        """Inputs of every layer besides the hidden state, computed once for the batch."""
        return {"attention_mask": attention_bias(mask_BT, hidden_BTD.dtype)}

    def _run_layer(self, layer: nn.Module, hidden_BTD: Tensor, inputs: dict[str, Any]) -> Tensor:
        output: Tensor = layer(hidden_BTD, **inputs)
        return output

    def keep_layers(self, count: int) -> None:
        """Cut the network down to its first layers, in place; the final norm, where there is one, follows the last."""
        if not 1 <= count <= self.num_layers:
            raise ValueError(f"expected 1 to {self.num_layers} layers to keep, as many as there are, got {count}")
        if self.adapters:
            raise ValueError("this encoder carries adapters: merge them before its layers are cut")
        del self.layers[count:]
        del self.after_layers[count:]
        del self.on_states[count + 1 :]
        for field in self.depth_fields:
            setattr(self.model.config, field, count)

    def save(self, folder: str | Path) -> None:
        """Write config.json, model.safetensors and preprocessor_config.json, which `load_encoder` reads back."""
        if self.adapters:
            raise ValueError("this encoder carries adapters: write them with save_adapter, or merge them before saving")
        with quiet_transformers():
            self.checkpoint().save_pretrained(folder)
            self.feature_extractor().save_pretrained(folder)


@contextmanager
def quiet_transformers() -> Iterator[None]:
    """Silence transformers' bars for weights that are read or written in a blink, and its tables of those left out."""
    from transformers.utils import logging

    words: Any = logging  # Any: these functions of transformers are unannotated
    shown, level = words.is_progress_bar_enabled(), words.get_verbosity()
    words.disable_progress_bar()
    words.set_verbosity_error()
    try:
        yield
    finally:
        words.set_verbosity(level)
        if shown:
            words.enable_progress_bar()


def attention_of(layer: Any) -> nn.Module:
    """The self-attention of a transformer layer, whatever its family calls it."""
    attention: nn.Module = layer.attention if hasattr(layer, "attention") else layer.self_attn
    return attention


def head_width(attention: Any) -> int:
    """Features of one head of a self-attention, whatever its family calls them."""
    width: int = attention.head_dim if hasattr(attention, "head_dim") else attention.head_size
    return width


def refuse_to_standardise(model: nn.Module, normalise: bool) -> None:
    """Raise ValueError where clips were to be standardised for a network whose log-mel input has its own scaling."""
    if normalise:
        raise ValueError(f"do_normalize is not supported with {type(model).__name__}: log-mel has its own scaling")


def check_clips(wave_BS: Tensor, length_B: Tensor, minimal_samples: int) -> None:
    """Refuse a batch whose lengths do not fit its samples, or that holds a clip too short for a single frame."""
    if torch.compiler.is_compiling():  # a graph that is traced for clips of any length has no lengths to look at
        return
    if wave_BS.ndim != 2 or length_B.shape != wave_BS.shape[:1] or len(length_B) == 0:
        raise ValueError(
            f"expected waves (B, S) and lengths (B,) with B > 0, got {tuple(wave_BS.shape)} and {tuple(length_B.shape)}"
        )
    for index, length in enumerate(length_B.tolist()):
        if length < minimal_samples:
            raise ValueError(
                f"clip {index} has {length} samples; this encoder needs at least {minimal_samples} "
                f"({1000 * minimal_samples / SAMPLE_RATE_HZ:.1f} ms at 16 kHz) for one frame: drop it or pad it"
            )
        if length > wave_BS.shape[1]:
            raise ValueError(f"clip {index} claims {length} samples, but the batch is {wave_BS.shape[1]} samples long")


def prefix_mask(length_B: Tensor, size: int) -> Tensor:
    """True on the first length_B positions, (B,) -> (B, size)."""
    return torch.arange(size, device=length_B.device) < length_B.unsqueeze(1)


def attention_bias(mask_BT: Tensor, dtype: torch.dtype) -> Tensor | None:
    """Bias on attention scores that leaves padded frames without weight: (B, T) -> (B, 1, 1, T), None if all real.

    Additive rather than bool, because the eager and the fused attention of transformers both accept it.
    """
    if not torch.compiler.is_compiling() and bool(mask_BT.all()):
        return None
    bias_BT = torch.zeros(mask_BT.shape, dtype=dtype, device=mask_BT.device)
    return bias_BT.masked_fill(~mask_BT, torch.finfo(dtype).min)[:, None, None, :]
