"""A model as one graph, for any batch and any length: `torch.export`, and ONNX."""

# B batch · S samples · C classes · K rated dimensions
from __future__ import annotations

import logging
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from ser_models.build import SerModel
from ser_models.encoders.encoder import SAMPLE_RATE_HZ

INPUTS = ("input_values", "attention_mask")
GRAPH, ONNX = "model.pt2", "model.onnx"


class Graph(nn.Module):
    """Waveforms at 16 kHz (B, S), and 1 where they are no padding (B, S) -> probabilities (B, C), dimensions (B, K)."""

    def __init__(self, model: SerModel, temperature: float) -> None:
        super().__init__()
        self.model, self.temperature = model, temperature
        self.spare = model.encoder.family == "moonshine"
        """torch cannot prove that its graph is right for one clip, so the first is there once more."""

    def forward(self, input_values: Tensor, attention_mask: Tensor) -> tuple[Tensor, ...]:
        wave_BS, mask_BS = input_values * attention_mask, attention_mask
        if self.spare:
            wave_BS, mask_BS = torch.cat([wave_BS, wave_BS[:1]]), torch.cat([mask_BS, mask_BS[:1]])
        output_BO = self.model(wave_BS, mask_BS.sum(1))[: input_values.shape[0]]
        logits_BC, value_BK = self.model.split(output_BO)
        probability_BC = torch.softmax(logits_BC / self.temperature, -1)
        outputs = {"probabilities": probability_BC, "dimensions": value_BK}
        return tuple(outputs[name] for name in output_names(self.model))


def output_names(model: SerModel) -> list[str]:
    """Names of what a graph gives out, in their order."""
    return ["probabilities"] * bool(model.classes) + ["dimensions"] * bool(model.dimensions)


def trace(model: SerModel, *, temperature: float = 1.0) -> torch.export.ExportedProgram:
    """The graph of a model, for 1 clip or more of any length that its encoder takes."""
    wave_BS = torch.zeros(2, min(SAMPLE_RATE_HZ, (model.encoder.limit_samples or 2 * SAMPLE_RATE_HZ) // 2) - 7)
    example = (wave_BS, torch.ones(wave_BS.shape, dtype=torch.long))
    # torch takes sizes of one for constants, so no graph is of a single frame: shorter clips are padded to three.
    shortest = model.encoder.minimal_samples + round(2 * SAMPLE_RATE_HZ / model.encoder.frame_rate_hz)
    any_size: Any = torch.export.Dim.DYNAMIC
    shapes = {name: {0: any_size, 1: any_size(min=shortest)} for name in INPUTS}
    with torch.no_grad():
        return torch.export.export(
            Graph(model, temperature).eval(),
            example,
            dynamic_shapes=shapes,
            strict=False,
            prefer_deferred_runtime_asserts_over_guards=True,
        )


def write_torch_export(model: SerModel, folder: Path, *, temperature: float = 1.0) -> None:
    """Write the graph as model.pt2, which `torch.export.load` reads."""
    torch.export.save(trace(model, temperature=temperature), folder / GRAPH)


def check_onnx(model: SerModel) -> None:
    """Raise ImportError without the packages that write ONNX."""
    if find_spec("onnx") is None or find_spec("onnxscript") is None:
        raise ImportError("graphs in ONNX are written by onnx and onnxscript: pip install 'seral[onnx]'")


def write_onnx(model: SerModel, folder: Path, *, temperature: float = 1.0) -> None:
    """Write the graph as model.onnx, for clips in any number and of any length."""
    with _without_noise():
        torch.onnx.export(
            trace(model, temperature=temperature),
            (),
            folder / ONNX,
            input_names=list(INPUTS),
            output_names=output_names(model),
            dynamo=True,
            external_data=False,
            verbose=False,
        )


@contextmanager
def _without_noise() -> Iterator[None]:
    """Without torch's words on operators of pictures, which no model of speech has, and on its own old functions."""

    def concerns_speech(record: logging.LogRecord) -> bool:
        return not record.getMessage().startswith("torchvision is not installed")

    logger = logging.getLogger("torch.onnx._internal.exporter._registration")
    logger.addFilter(concerns_speech)
    try:
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", r"`isinstance\(treespec, LeafSpec\)` is deprecated", FutureWarning)
            yield
    finally:
        logger.removeFilter(concerns_speech)
