"""Options of strategies that are out of range are refused by name."""

from __future__ import annotations

import math

from seral.errors import OptionError


def at_least(least: int, strategy: str, **values: float | None) -> None:
    """Raise OptionError for an option that is not a finite number >= `least`; None passes."""
    for option, value in values.items():
        if value is not None and not (math.isfinite(value) and value >= least):
            kind = "a finite " if isinstance(value, float) else ""
            raise OptionError(f"{strategy} needs {kind}{option} >= {least}, got {value}")
