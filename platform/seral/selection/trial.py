"""A trial pick of a few made-up clips: options out of range are refused when they are read."""

from __future__ import annotations

from contextlib import suppress
from typing import Any

import numpy as np

from seral.errors import SelectionError
from seral.selection.candidates import COLUMNS, Candidates
from seral.selection.strategies.records import Pick


def try_out(pick: Pick) -> None:
    """Let a strategy pick two of a few made-up clips. Raises OptionError for an option that is out of range.

    What else it may not like about these clips says nothing about its options.
    """
    with suppress(SelectionError):
        pick(made_up(), 2, np.random.default_rng(0))


def made_up() -> Candidates:
    """Clips with every column that a strategy may read, the same each time."""
    rng, values = np.random.default_rng(0), dict[str, Any]()
    for name, column in COLUMNS.items():
        shape = [3] * column.axes
        shape[column.axis] = 4 if column.labelled else 12
        numbers = rng.uniform(0.1, 1, shape)
        if column.kind == "name":
            values[name] = np.array([f"{name}-{row}" for row in range(shape[0])])
        else:  # flags are all raised
            values[name] = numbers / numbers.sum(-1, keepdims=True) if column.distribution else numbers
    return Candidates(**values)
