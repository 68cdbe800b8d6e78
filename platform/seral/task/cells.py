"""Cells of a study: one computation for every row (a variant), fold and seed, done once and kept.

RUN/cells/<row>.fold-<FF>.seed-<S>.json    results of the cell; a run that is started again computes what is missing
RUN/table.csv, table.md, table.png         the rows, means over folds and seeds
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd
import ray
import torch
from numpy.typing import NDArray

from ser_models.intervals import mean_interval, sign_flip_p
from ser_models.metrics import mean_recall
from seral import storage
from seral.cluster import ClusterOptions, run_side_by_side
from seral.figures.markdown import markdown
from seral.pool.shards import Pool
from seral.progress import track

if TYPE_CHECKING:
    from matplotlib.figure import Figure

Work = Callable[..., dict[str, Any]]
"""(cell, folder, *arguments) -> results that JSON can hold; `folder` is empty and removed afterwards."""
CELLS, WORK = "cells", "work"
SPREAD = ("uar", "wa", "macro_f1", "ccc", "source_uar", "source_ccc")
"""Columns that are shown with their standard deviation."""


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


Results = Mapping[Cell, Mapping[str, Any]]
"""Cell of a study -> its results."""


def file_name(row: str) -> str:
    """A row's name as it may stand in a path."""
    return re.sub("[^A-Za-z0-9._=-]+", "_", row)


def run_cells(
    run: str, work: Work, arguments: Mapping[Cell, Sequence[Any]], on: ClusterOptions, label: str, pool: Pool
) -> dict[Cell, dict[str, Any]]:
    """Compute what is missing, as many cells side by side as there are cores.

    Arguments may be Ray references. A failed cell is named when all others are done. `pool`: what the cells are about.
    """
    uris = {cell: storage.join(run, CELLS, f"{cell.name}.json") for cell in arguments}
    missing = [cell for cell, uri in uris.items() if not storage.exists(uri)]
    reference = ray.put(pool)
    # With Ray Train workers, they hold the cores.
    task = _cell_task.options(num_cpus=0 if on.train_workers else 1, max_retries=on.max_failures)
    waiting = {
        cell.name: partial(
            task.remote, work, cell, uris[cell], storage.join(run, WORK, cell.name), reference, *arguments[cell]
        )
        for cell in missing
    }
    with track(label if missing else None, len(missing)) as advance:
        run_side_by_side(waiting, on, advance)
    storage.tidy(run)
    return {cell: storage.read_json(uri) for cell, uri in uris.items()}


def _run_cell(work: Work, cell: Cell, uri: str, folder: str, pool: Pool, *arguments: Any) -> None:
    torch.set_num_threads(1)  # cells run side by side, and sums do not depend on how many do
    storage.remove(folder)
    with pool.publishing(lambda: [folder, uri]):
        values = work(cell, folder, *arguments)
        storage.remove(folder)
        storage.write_json(uri, values)


_cell_task = ray.remote(_run_cell)


def study_table(results: Results, baseline: Mapping[str, str]) -> pd.DataFrame:
    """One line a row, in the order of the cells: mean of every number over folds and seeds, spread of the metrics.

    `baseline` names the row that a row is compared with: its mean gain in UAR (or CCC), paired by fold and seed, with a
    95 % interval (Student's t) and the p-value of a sign-flip test over folds, since seeds of one fold share their test
    speakers, and the number of folds. `pooled_uar` is the UAR over
    the test clips of all folds together, mean over seeds: where a fold's speakers lack some of the classes, the mean of
    the folds' own UARs says little.
    """
    numbers = [{"row": c.row, "fold": c.fold, "seed": c.seed, **_numbers(values)} for c, values in results.items()]
    cells = pd.DataFrame(numbers)
    lines = []
    for row, own in cells.groupby("row", sort=False):
        line: dict[str, Any] = {"row": row, "cells": len(own)}
        for name in own.columns.drop(["row", "fold", "seed"]):
            line[name] = own[name].mean()
            if name in SPREAD:
                line[f"{name}_std"] = own[name].std(ddof=1)
        pooled = {f"{of}pooled_uar": _pooled_uar(results, str(row), of) for of in ("", "probe_")}
        line |= {name: value for name, value in pooled.items() if value is not None}
        if (base := baseline.get(str(row), row)) != row:
            line |= _gain(own, cells[cells["row"] == base])
        lines.append(line)
    return pd.DataFrame(lines)


def write_table(
    run: str,
    table: pd.DataFrame,
    name: str = "table",
    *,
    shown: pd.DataFrame | str | None = None,
    figure: Figure | None = None,
) -> str:
    """Write a table to RUN/<name>.csv and .md, and its figure to .png; returns the Markdown.

    `shown` is the table as people read it, or its Markdown; None = `table` (UAR and its kin in per cent).
    """
    text = shown if isinstance(shown, str) else markdown(table if shown is None else shown)
    storage.write_bytes(storage.join(run, f"{name}.csv"), table.to_csv(index=False).encode())
    storage.write_bytes(storage.join(run, f"{name}.md"), text.encode())
    if figure is not None:
        from seral.figures.axes import png  # Imported here: workers import this module, and drawing takes a second.

        storage.write_bytes(storage.join(run, f"{name}.png"), png(figure))
    return text


def write_study_table(run: str, results: Results, baseline: Mapping[str, str]) -> str:
    """Write `study_table` with its picture, and warnings of cells below it; returns the Markdown."""
    from seral.figures.studies import study_rows  # Imported here: workers import this module, and drawing is slow.

    table = study_table(results, baseline)
    text = "\n".join([markdown(table), *(f"{warning}\n" for warning in row_warnings(results))])
    return write_table(run, table, shown=text, figure=study_rows(table))


def row_warnings(results: Results) -> list[str]:
    """A sentence a row of which cells have a `warning`: in how many, and the first."""
    warnings: dict[str, list[str | None]] = {}
    for cell, values in results.items():
        warnings.setdefault(cell.row, []).append(values.get("warning"))
    sentences = []
    for row, of_cells in warnings.items():
        if warned := [warning for warning in of_cells if warning]:
            sentences.append(f"Warning, {row}, {len(warned)} of {len(of_cells)} trainings: {warned[0]}.")
    return sentences


def _numbers(values: Mapping[str, Any]) -> dict[str, float]:
    return {name: value for name, value in values.items() if isinstance(value, int | float)}


def _pooled_uar(results: Results, row: str, of: str) -> float | None:
    """Mean over seeds of the UAR of all folds' confusions added up; None where a cell has no confusion matrix."""
    confusion: dict[int, NDArray[np.int64]] = {}
    for cell, values in results.items():
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
    low, high, _ = mean_interval(gain)
    name = "gain" if metric == "uar" else "gain_ccc"
    p = sign_flip_p(gain, np.random.default_rng(0)) if len(gain) > 1 else float("nan")
    mean = float(gain.mean()) if len(gain) else float("nan")
    return {name: mean, f"{name}_low": low, f"{name}_high": high, f"{name}_p": p, "folds": len(gain)}
