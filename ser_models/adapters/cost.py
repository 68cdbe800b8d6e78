"""Costs of adapters: trained parameters, memory and time of a training step, on an encoder of a published size."""

# B batch · S samples
from __future__ import annotations

import ctypes
import gc
import multiprocessing
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import median

import torch

from ser_models.adapters.composition import attach_adapters
from ser_models.adapters.parameters import adapter_parameters, count_parameters
from ser_models.encoders import SpeechEncoder, wrap
from ser_models.encoders.encoder import SAMPLE_RATE_HZ

PROCESS = Path("/proc/self")
GEOMETRIES = {"base": (768, 12), "large": (1024, 24)}
"""Width and layers of wav2vec 2.0, HuBERT and WavLM."""


@dataclass(frozen=True, kw_only=True)
class AdapterCost:
    """Measured costs of one adapter."""

    spec: str
    trained: int
    """Parameters that are trained, the head's aside."""
    total: int
    """Parameters of the adapted encoder."""
    step_s: float
    """Median seconds of a training step: forward, backward, optimiser."""
    memory_mb: float
    """Peak memory of training above that of the loaded encoder, in MB."""


def measure_adapters(
    specs: Sequence[str],
    *,
    geometry: str = "base",
    batch: int = 4,
    seconds: float = 3.0,
    steps: int = 5,
    device: str = "cpu",
    threads: int = 1,
) -> list[AdapterCost]:
    """Train each adapter for a few steps on noise, each in a process of its own so that memory is its own."""
    if geometry not in GEOMETRIES:
        raise ValueError(f"no geometry {geometry!r}; known: {', '.join(GEOMETRIES)}")
    costs = []
    for spec in specs:
        with multiprocessing.get_context("spawn").Pool(1) as process:
            costs.append(process.apply(_measure, (spec, geometry, batch, seconds, steps, device, threads)))
    return costs


def render_costs(costs: Sequence[AdapterCost]) -> str:
    """The table as plain aligned text; times and memory also as a ratio to the last row's."""
    last = costs[-1]
    rows = [("adapter", "trained", "share %", "step s", "of last", "memory MB", "of last")]
    rows += [
        (
            cost.spec,
            f"{cost.trained:,}",
            f"{100 * cost.trained / cost.total:.2f}",
            f"{cost.step_s:.2f}",
            f"{cost.step_s / last.step_s:.2f}",
            f"{cost.memory_mb:.0f}",
            f"{cost.memory_mb / max(1.0, last.memory_mb):.2f}",
        )
        for cost in costs
    ]
    widths = [max(len(row[column]) for row in rows) for column in range(len(rows[0]))]
    lines = ([name.ljust(widths[0]), *map(str.rjust, numbers, widths[1:])] for name, *numbers in rows)
    return "\n".join("  ".join(line) for line in lines)


def published_geometry(geometry: str) -> SpeechEncoder:
    """An encoder of a published size with random weights: costs do not depend on what weights say."""
    from transformers import Wav2Vec2Config, Wav2Vec2Model

    width, layers = GEOMETRIES[geometry]
    config = Wav2Vec2Config(
        hidden_size=width, num_hidden_layers=layers, num_attention_heads=width // 64, intermediate_size=4 * width
    )
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        return wrap(Wav2Vec2Model(config))


def _measure(
    spec: str, geometry: str, batch: int, seconds: float, steps: int, device: str, threads: int
) -> AdapterCost:
    torch.set_num_threads(threads)
    encoder = attach_adapters(published_geometry(geometry), spec, seed=0).to(device).train()
    trained, total = count_parameters(encoder)
    optimiser = torch.optim.AdamW(adapter_parameters(encoder).values(), lr=1e-4) if trained else None
    generator = torch.Generator().manual_seed(0)
    wave_BS = 0.1 * torch.randn(batch, int(seconds * SAMPLE_RATE_HZ), generator=generator).to(device)
    length_B = torch.full((batch,), wave_BS.shape[1], device=device)
    before_mb = forget_peak_mb(device)
    times = []
    for _ in range(steps):
        started = time.perf_counter()
        loss = encoder(wave_BS, length_B).hidden_LBTD.square().mean()
        if optimiser is not None:
            optimiser.zero_grad()
            loss.backward()
            optimiser.step()
        if device == "cuda":
            torch.cuda.synchronize()
        times.append(time.perf_counter() - started)
    return AdapterCost(
        spec=spec,
        trained=trained,
        total=total,
        step_s=median(times[1:] or times),
        memory_mb=peak_mb(device) - before_mb,
    )


def forget_peak_mb(device: str) -> float:
    """Start the peak anew at what is in use now, and return that."""
    gc.collect()
    if device == "cuda":
        torch.cuda.reset_peak_memory_stats()
    elif PROCESS.is_dir():
        # What was freed but not yet given back would hide as much of what comes.
        if trim := getattr(ctypes.CDLL(None), "malloc_trim", None):
            trim(0)
        (PROCESS / "clear_refs").write_text("5")
    return peak_mb(device)


def peak_mb(device: str) -> float:
    """Peak memory since it was last forgotten, in MB; NaN where neither CUDA nor Linux counts it."""
    if device == "cuda":
        return torch.cuda.max_memory_allocated() / 1e6
    if not PROCESS.is_dir():
        return float("nan")
    # Not getrusage: its peak counts the process this one was started from.
    status = dict(line.split(":", 1) for line in (PROCESS / "status").read_text().splitlines())
    return int(status["VmHWM"].split()[0]) / 1e3
