"""AFTER as it was run, from its configuration, small."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from seral.loop.loop import run_loop
from seral.loop.options import LoopOptions
from seral.options import load

CONFIG = Path(__file__).resolve().parents[2] / "jobs" / "configs" / "after-paper.yaml"


@pytest.mark.ray
@pytest.mark.slow
def test_the_configuration_of_after_runs(run_values: dict[str, Any]) -> None:
    task = {name: run_values[name] for name in ("pool", "run", "encoder", "classes", "split", "folds", "seeds")}
    values = task | {"corpora": None, "others": [], "random_arm": False, "full_arm": False, "cluster": {}}
    small = [
        "tapt.steps=3",
        "tapt.batch_s=6",
        "tapt.crop_s=3",
        "tapt.warmup_steps=1",
        "tapt.eval_every=3",
        "finetune.epochs=1",
    ]
    overrides = [f"{name}={json.dumps(value)}" for name, value in values.items()]
    options = load(LoopOptions, CONFIG, [*overrides, *small, "budget.fractions=[0.2, 0.3]"], "loop")
    assert (options.finetune.pooling, options.finetune.batch_size, options.finetune.lr) == ("relu_mean", 64, 1e-4)
    run = Path(run_loop(options))
    for metrics in sorted(run.glob("trajectories/entropy.*/rounds/*/metrics.json")):
        history = json.loads(metrics.read_text(encoding="utf-8"))["training"]
        assert history["adapter"]["trainable"] > 0.98 * history["adapter"]["parameters"]
        assert len(history["adapter"]["epochs"]) == 2
    assert (run / "config.yaml").read_text(encoding="utf-8").count("relu_mean") == 1
