"""A model as one graph, for any batch and any length: `torch.export`, and ONNX."""

# B batch · S samples · C classes · K rated dimensions
from __future__ import annotations

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

    def forward(self, input_values: Tensor, attention_mask: Tensor) -> tuple[Tensor, ...]:
        wave_BS = input_values * attention_mask
        logits_BC, value_BK = self.model.split(self.model(wave_BS, attention_mask.sum(1)))
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
    shapes: Any = dict.fromkeys(INPUTS, {0: torch.export.Dim.DYNAMIC, 1: torch.export.Dim.DYNAMIC})
    with torch.no_grad():
        return torch.export.export(Graph(model, temperature).eval(), example, dynamic_shapes=shapes, strict=False, prefer_deferred_runtime_asserts_over_guards=True)


def write_torch_export(model: SerModel, folder: Path, *, temperature: float = 1.0) -> None:
    """Write the graph as model.pt2, which `torch.export.load` reads."""
    torch.export.save(trace(model, temperature=temperature), folder / GRAPH)
