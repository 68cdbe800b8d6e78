"""Columns of tables that come of the history of a training."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any


def effect_columns(history: Mapping[str, Any]) -> dict[str, Any]:
    """Columns of a training's row in a table, and its warning; nothing of one without adapters.

    first_loss and last_loss: mean training loss of the first and of the last epoch. update and effect as in
    seral.training.adapter_effect, left out where they are None.
    """
    adapter = history.get("adapter", {})
    losses = [epoch["loss"] for epoch in adapter.get("epochs", []) if epoch["loss"] is not None]
    columns = {"first_loss": losses[0], "last_loss": losses[-1]} if losses else {}
    columns |= {name: adapter[name] for name in ("update", "effect", "warning") if adapter.get(name) is not None}
    return columns
