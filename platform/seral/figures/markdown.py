"""Tables for people, as Markdown."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import pandas as pd

PERCENT = ("uar", "wa", "macro_f1", "calibration_error", "share", "gain")
"""Endings of columns that are shown in per cent."""


def markdown(table: pd.DataFrame) -> str:
    """A table for people: numbers with their standard deviation (column NAME_std) or interval (NAME_low, NAME_high)."""
    cells = {name: [_cell(line, name) for line in table.to_dict("records")] for name in _columns(table)}
    head = [" | ".join(cells), " | ".join("---" for _ in cells)]
    return "".join(f"| {line} |\n" for line in [*head, *(" | ".join(row) for row in zip(*cells.values(), strict=True))])


def _columns(table: pd.DataFrame) -> list[str]:
    return [name for name in table.columns if not name.endswith(("_std", "_low", "_high"))]


def _cell(line: Mapping[Any, Any], name: str) -> str:
    value = line[name]
    if not isinstance(value, float):
        return str(value)
    if np.isnan(value):
        return ""
    scale, form = (100, ".1f") if name.endswith(PERCENT) else (1, ",.0f" if abs(value) >= 100 else ".3g")
    low, high, std = (scale * line.get(f"{name}_{end}", np.nan) for end in ("low", "high", "std"))
    if f"{name}_low" in line:
        sign = "+" if "gain" in name else ""
        text = format(scale * value, sign + form)
        return text if np.isnan(low) else f"{text} ({low:{sign}{form}} to {high:{sign}{form}})"
    text = format(scale * value, form)
    return text if np.isnan(std) else f"{text} ± {std:{form}}"
