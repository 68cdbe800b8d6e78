"""Measures of what a training made of adapters, against their definitions and against models that must have none."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from training.ground import Ground

from ser_models.adapters.composition import attach_adapters
from ser_models.adapters.effect import LEAST_EFFECT, merged_update, parameter_changes, state_distance
from ser_models.adapters.parameters import adapter_parameters
from ser_models.encoders import load_encoder
from seral.task.cells import Cell, row_warnings
from seral.training.history import effect_columns

pytestmark = pytest.mark.ray
SHORT = {"top_layers": 1, "epochs": 2, "batch_size": 8, "mixup": 0.0, "time_mask_prob": 0.0}


@pytest.fixture(scope="module")
def ground(speech_pool: str) -> Ground:
    return Ground(speech_pool)


def moved(spec: str, by: float) -> Any:
    """seral-tiny with adapters whose parameters are all so much larger than at their start."""
    encoder = attach_adapters(load_encoder("seral-tiny"), spec, seed=0)
    with torch.no_grad():
        for parameter in adapter_parameters(encoder).values():
            parameter.add_(by)
    return encoder


@pytest.mark.parametrize("spec", ["lora", "gate", "bottleneck+bitfit", "ia3+gate", "full", "prefix"])
def test_changes_are_root_mean_squares_of_every_part(spec: str) -> None:
    for by in (0.0, 0.25):
        changes = parameter_changes(moved(spec, 0.0), moved(spec, by))
        assert changes
        assert list(changes.values()) == pytest.approx([by] * len(changes), abs=1e-6)


def test_encoders_with_other_adapters_are_refused() -> None:
    with pytest.raises(ValueError, match="carry other adapters: gate and lora_A, lora_B"):
        parameter_changes(moved("gate", 0.0), moved("lora", 0.0))


def test_the_merged_update_is_that_of_the_weights_it_changes() -> None:
    plain = load_encoder("seral-tiny")
    assert merged_update(plain, moved("bitfit", 0.0)) == 0.0
    assert merged_update(plain, moved("gate", 0.5)) is None
    names = [name for name, _ in plain.model.named_parameters() if name.endswith("bias") and ".layers." in name]
    biases = torch.cat([dict(plain.model.named_parameters())[name].detach().flatten() for name in names])
    expected = 0.5 * len(biases) ** 0.5 / float(biases.norm())
    assert merged_update(plain, moved("bitfit", 0.5)) == pytest.approx(expected, rel=1e-4)
    update = merged_update(plain, moved("lora+gate", 0.01))
    assert update is not None
    assert 0 < update < 1


def test_state_distance_counts_in_spreads_over_clips_whatever_the_scale() -> None:
    generator = torch.Generator().manual_seed(0)
    scale_D = 10.0 ** torch.arange(-2, 3)
    mean_BLD = torch.randn(200, 2, 5, generator=generator) * scale_D + 40 * scale_D
    std_BLD = torch.rand(200, 2, 5, generator=generator)
    shifted_BLD = mean_BLD + 0.1 * mean_BLD.std(0, correction=0)
    plain = mean_BLD, std_BLD
    assert state_distance(plain, plain, std_gain=0.4) == 0.0
    assert state_distance(plain, (shifted_BLD, std_BLD), std_gain=0.0) == pytest.approx(0.1, rel=1e-3)


def test_a_training_that_moves_nothing_says_so_and_one_that_does_not(ground: Ground, tmp_path: Path) -> None:
    still = ground.train(tmp_path / "still", SHORT | {"adapter": "lora+gate", "lr": 1e-9})
    moving = ground.train(tmp_path / "moving", SHORT | {"adapter": "lora+gate", "lr": 2e-2}, judged=False)
    adapter = still["adapter"]
    assert adapter["effect"] < LEAST_EFFECT <= moving["adapter"]["effect"]
    assert set(adapter["changes"]) == {"lora_A", "lora_B", "gate"}
    assert "the adapter lora+gate does nothing" in adapter["warning"]
    assert moving["adapter"]["warning"] is None
    assert adapter["update"] < 1e-4 < moving["adapter"]["update"]
    columns = effect_columns(moving)
    losses = [epoch["loss"] for epoch in moving["adapter"]["epochs"][1:]]
    assert (columns["first_loss"], columns["last_loss"]) == (losses[0], losses[-1])
    assert "warning" not in columns
    assert effect_columns({"head": {"loss": 1.0}}) == {}
    results = {
        Cell(row="lora", fold=0, seed=0): effect_columns(still),
        Cell(row="lora", fold=1, seed=0): columns,
        Cell(row="frozen", fold=0, seed=0): {},
    }
    (sentence,) = row_warnings(results)
    assert sentence.startswith("Warning, lora, 1 of 2 trainings: the adapter lora+gate does nothing: it moves")


@pytest.mark.parametrize("kind", ["dora", "adalora", "prefix", "wap", "full", "last_block"])
def test_every_kind_is_measured(kind: str, ground: Ground, tmp_path: Path) -> None:
    adapter = ground.train(tmp_path, SHORT | {"adapter": kind, "epochs": 1})["adapter"]
    assert adapter["effect"] >= 0
    assert (adapter["update"] is None) == (kind in ("prefix", "wap"))
    assert all(change >= 0 for change in adapter["changes"].values())
