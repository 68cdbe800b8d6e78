"""Studies: the same work in every row (a variant), fold and seed. A cell of the table is computed once and kept.

RUN/cells/<row>.fold-<FF>.seed-<S>.json    what the cell found; a run that is started again computes what is missing
RUN/table.csv, table.md, table.png         the rows, means over folds and seeds
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np
import pandas as pd
import ray
import torch
from numpy.typing import NDArray

from ser_models.metrics import mean_interval, mean_recall
from seral import storage
from seral.cluster import ClusterOptions, run_side_by_side
from seral.figures.markdown import markdown
from seral.progress import track

Work = Callable[..., dict[str, Any]]
"""(cell, folder, *arguments) -> what it found, as JSON; `folder` is empty and removed afterwards."""
CELLS, WORK = "cells", "work"
SPREAD = ("uar", "wa", "macro_f1", "ccc", "source_uar", "source_ccc")
"""Columns that are shown with their deviation."""


@dataclass(frozen=True, kw_only=True)
class Cell:
    """One place in the table of a study."""

    row: str
    fold: int
    seed: int

    @property
    def name(self) -> str:
        """The file's name."""
        return f"{file_name(self.row)}.fold-{self.fold:02d}.seed-{self.seed}"


def file_name(row: str) -> str:
    """A row's name as it may stand in a path."""
    return re.sub("[^A-Za-z0-9._=-]+", "_", row)


def run_cells(
    run: str, work: Work, arguments: Mapping[Cell, Sequence[Any]], on: ClusterOptions, label: str
) -> dict[Cell, dict[str, Any]]:
    """Compute what is missing, as many cells side by side as there are cores.

    Arguments may be Ray references. A failed cell is named when all others are done.
    """
    uris = {cell: storage.join(run, CELLS, f"{cell.name}.json") for cell in arguments}
    missing = [cell for cell, uri in uris.items() if not storage.exists(uri)]
    # With Ray Train workers, they hold the cores.
    task = _cell_task.options(num_cpus=0 if on.train_workers else 1, max_retries=on.max_failures)
    waiting = {
        cell.name: partial(task.remote, work, cell, uris[cell], storage.join(run, WORK, cell.name), *arguments[cell])
        for cell in missing
    }
    with track(label, len(missing)) as advance:
        run_side_by_side(waiting, on, advance)
    storage.tidy(run)
    return {cell: storage.read_json(uri) for cell, uri in uris.items()}


def _run_cell(work: Work, cell: Cell, uri: str, folder: str, *arguments: Any) -> None:
    torch.set_num_threads(1)  # cells run side by side, and sums do not depend on how many do
    storage.remove(folder)
    found = work(cell, folder, *arguments)
    storage.remove(folder)
    storage.write_json(uri, found)


_cell_task = ray.remote(_run_cell)


def study_table(found: Mapping[Cell, Mapping[str, Any]], baseline: Mapping[str, str]) -> pd.DataFrame:
    """One line a row, in the order of the cells: mean of every number over folds and seeds, deviation of the metrics.

    `baseline` names the row that a row is compared with: its mean gain in UAR (or CCC), paired by fold and seed, with a
    95 % bootstrap interval over folds, since seeds of one fold share their test speakers. `pooled_uar` is the UAR over
    the test clips of all folds together, mean over seeds: where a fold's speakers lack some of the classes, the mean of
    the folds' own UARs says little.
    """
    numbers = [{"row": c.row, "fold": c.fold, "seed": c.seed, **_numbers(values)} for c, values in found.items()]
    cells = pd.DataFrame(numbers)
    lines = []
    for row, own in cells.groupby("row", sort=False):
        line: dict[str, Any] = {"row": row, "cells": len(own)}
        for name in own.columns.drop(["row", "fold", "seed"]):
            line[name] = own[name].mean()
            if name in SPREAD:
                line[f"{name}_std"] = own[name].std(ddof=1)
        pooled = {f"{of}pooled_uar": _pooled_uar(found, str(row), of) for of in ("", "probe_")}
        line |= {name: value for name, value in pooled.items() if value is not None}
        if (base := baseline.get(str(row), row)) != row:
            line |= _gain(own, cells[cells["row"] == base])
        lines.append(line)
    return pd.DataFrame(lines)


def write_table(run: str, table: pd.DataFrame) -> str:
    """Write the table as CSV, as Markdown (UAR and its kin in per cent) and as a picture; returns the Markdown."""
    # Imported here: workers import this module, and drawing takes a second to load.
    from seral.figures.axes import png
    from seral.figures.studies import study_rows

    storage.write_bytes(storage.join(run, "table.png"), png(study_rows(table)))
    storage.write_bytes(storage.join(run, "table.csv"), table.to_csv(index=False).encode())
    text = markdown(table)
    storage.write_bytes(storage.join(run, "table.md"), text.encode())
    return text


def _numbers(values: Mapping[str, Any]) -> dict[str, float]:
    return {name: value for name, value in values.items() if isinstance(value, int | float)}


def _pooled_uar(found: Mapping[Cell, Mapping[str, Any]], row: str, of: str) -> float | None:
    """Mean over seeds of the UAR of all folds' confusions added up; None where a cell knows no confusion."""
    confusion: dict[int, NDArray[np.int64]] = {}
    for cell, values in found.items():
        if cell.row != row:
            continue
        if f"{of}confusion" not in values:
            return None
        confusion[cell.seed] = confusion.get(cell.seed, 0) + np.array(values[f"{of}confusion"])
    return float(np.mean([mean_recall(counts) for counts in confusion.values()]))


def _gain(own: pd.DataFrame, base: pd.DataFrame) -> dict[str, float]:
    metric = "uar" if "uar" in own else "ccc"
    both = own.merge(base, on=["fold", "seed"], suffixes=("", "_base"))
    gain = (both[metric] - both[f"{metric}_base"]).groupby(both["fold"]).mean().to_numpy(dtype=np.float64)
    low, high = mean_interval(gain, np.random.default_rng(0))
    name = "gain" if metric == "uar" else "gain_ccc"
    return {name: float(gain.mean()) if len(gain) else float("nan"), f"{name}_low": low, f"{name}_high": high}
