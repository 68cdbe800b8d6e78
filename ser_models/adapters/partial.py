"""Training weights of the encoder itself: its biases (BitFit), its top layers, or all of it.

BitFit: Ben Zaken et al. 2022 (arXiv 2106.10199).
"""

from __future__ import annotations

from dataclasses import dataclass

from torch import nn

from ser_models.adapters.parameters import adapted_layers, mark_as_adapter, register
from ser_models.encoders import SpeechEncoder


@dataclass(frozen=True, kw_only=True)
class BitfitOptions:
    """Options of BitFit: the layers whose biases are trained."""

    top_layers: int | None = None
    """Only the top n transformer layers, so the frozen ones below can be cached; None = all. Differs from the paper,
    which trains every bias: those of the convolutional front and of the final norm stay as they are."""


@dataclass(frozen=True, kw_only=True)
class LastBlockOptions:
    """Options of training the top of the encoder: the number of layers."""

    blocks: int = 1
    """Transformer layers from the top, and the final norm."""

    def __post_init__(self) -> None:
        if self.blocks < 1:
            raise ValueError(f"blocks must be at least 1, got {self.blocks}; use the 'frozen' adapter for none")


@dataclass(frozen=True, kw_only=True)
class FullOptions:
    """Options of full fine-tuning: the parts that are left out."""

    stem: bool = False
    """Train the convolutions too; they are usually left as they are. Baevski et al. 2020, section 4.2."""


def attach_bitfit(encoder: SpeechEncoder, options: BitfitOptions, *, seed: int) -> SpeechEncoder:
    """Train the biases of the adapted layers, and nothing else."""
    for index in adapted_layers(encoder, options.top_layers):
        _train(encoder.layers[index], "bitfit", only=("bias",))
    register(encoder, "bitfit", options)
    return encoder


def attach_last_block(encoder: SpeechEncoder, options: LastBlockOptions, *, seed: int) -> SpeechEncoder:
    """Train the top layers as they are."""
    for index in adapted_layers(encoder, options.blocks):
        _train(encoder.layers[index], "last_block")
    if encoder.final_norm is not None:
        _train(encoder.final_norm, "last_block")
    register(encoder, "last_block", options)
    return encoder


def attach_full(encoder: SpeechEncoder, options: FullOptions, *, seed: int) -> SpeechEncoder:
    """Train the whole encoder, or all of it above the stem."""
    for part in [encoder.model] if options.stem else [*encoder.layers, encoder.final_norm]:
        if part is not None:
            _train(part, "full", but=encoder.unused)
    register(encoder, "full", options)
    return encoder


def _train(part: nn.Module, tag: str, only: tuple[str, ...] | None = None, but: tuple[str, ...] = ()) -> None:
    """Mark the own weights of every module of a part, except those whose names in it begin with one of `but`."""
    for path, module in part.named_modules():
        names = [name for name, _ in module.named_parameters(recurse=False) if only is None or name in only]
        mark_as_adapter(module, [name for name in names if not f"{path}.{name}".lstrip(".").startswith(but)], tag)
