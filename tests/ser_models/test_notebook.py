"""The library as a researcher uses it, without Ray: load, adapt, train, save, load."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from ser_models.adapters.composition import attach_adapters
from ser_models.adapters.parameters import adapter_parameters
from ser_models.adapters.store import load_adapter, save_adapter
from ser_models.build import SerModel, build_model, load_model, save_model
from ser_models.encoders import load_encoder
from ser_models.losses import multitask_loss
from ser_models.pooling import masked_mean_std

ROOT = Path(__file__).resolve().parents[2]
CLASSES, DIMENSIONS = ("calm", "excited"), ("valence", "arousal")

# B batch · S samples · K dimensions


def clips(speech: Callable[[float, int], NDArray[np.float32]]) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Eight voices of different length, every other one loud: waves (B, S), lengths, classes, ratings (B, K)."""
    rng = np.random.default_rng(0)
    label_B = torch.arange(8) % 2
    voices = [speech(0.4 + 0.05 * row, row) * (1.0 if row % 2 else 0.1) for row in range(8)]
    wave_BS = torch.nn.utils.rnn.pad_sequence([torch.from_numpy(voice) for voice in voices], batch_first=True)
    rating_BK = torch.from_numpy(rng.normal(3, 1, size=(8, 2)).astype(np.float32)) + 2 * label_B[:, None]
    return wave_BS, torch.tensor([len(voice) for voice in voices]), label_B, rating_BK


def train(model: SerModel, wave_BS: Tensor, length_B: Tensor, label_B: Tensor, rating_BK: Tensor) -> list[float]:
    """Fifteen steps; one clip has no class, another no ratings."""
    labelled_B, rated_B = torch.arange(8) != 3, torch.arange(8) != 5
    optimiser = torch.optim.AdamW([p for p in model.parameters() if p.requires_grad], lr=5e-3)
    losses = []
    for _ in range(15):
        logits_BC, value_BK = model.split(model(wave_BS, length_B))
        loss = multitask_loss(logits_BC, label_B, value_BK, rating_BK, labelled_B=labelled_B, rated_B=rated_B)
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
        losses.append(float(loss.detach()))
    return losses


def test_a_multi_task_model_with_adapters_learns_and_comes_back_from_disk(
    tmp_path: Path, speech: Callable[[float, int], NDArray[np.float32]]
) -> None:
    wave_BS, length_B, label_B, rating_BK = clips(speech)
    encoder = attach_adapters(load_encoder("seral-tiny"), "lora+gate", seed=0)
    model = build_model(encoder, CLASSES, dimensions=DIMENSIONS)
    with torch.no_grad():
        output = encoder(wave_BS, length_B)
        mean_LBD, std_LBD = masked_mean_std(output.hidden_LBTD, output.mask_BT)
        model.pool.fit(mean_LBD.transpose(0, 1), std_LBD.transpose(0, 1))
    with torch.no_grad():
        model.head.output.bias[len(CLASSES) :] = rating_BK.mean(0)
    before = {name: parameter.detach().clone() for name, parameter in adapter_parameters(encoder).items()}

    # Evaluation mode: no dropout, so the losses of two steps differ by what was learnt between them.
    losses = train(model.eval(), wave_BS, length_B, label_B, rating_BK)
    assert abs(losses[0] - (np.log(2) + 1)) < 1e-4, "it starts undecided, and a constant has a CCC of 0"
    assert losses[-1] < 0.5 * losses[0]
    assert any(not torch.equal(parameter, before[name]) for name, parameter in adapter_parameters(encoder).items())

    save_model(model, tmp_path / "model")
    save_adapter(encoder, tmp_path / "adapter")
    again = load_model(tmp_path / "model", load_adapter(load_encoder("seral-tiny"), tmp_path / "adapter")).eval()
    with torch.no_grad():
        torch.testing.assert_close(again(wave_BS, length_B), model(wave_BS, length_B), atol=0, rtol=0)


def test_importing_every_module_loads_neither_ray_nor_the_platform() -> None:
    """Including what its libraries import in their turn, which the syntax tree of its files does not show."""
    script = """
import importlib, pkgutil, sys, ser_models
for module in pkgutil.walk_packages(ser_models.__path__, "ser_models."):
    importlib.import_module(module.name)
    print(module.name)
sys.exit(", ".join({"ray", "seral", "faiss", "pyarrow"} & set(sys.modules)) or 0)
"""
    done = subprocess.run([sys.executable, "-c", script], cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0, f"loaded by importing ser_models: {done.stderr}"
    assert {"ser_models.build", "ser_models.adapters.lora"} <= set(done.stdout.split())
