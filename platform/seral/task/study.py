"""A study: a run whose results are cells of a table, computed side by side, each once."""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from seral import storage
from seral.task.cells import Cell, Results, Work, run_cells
from seral.task.context import RunContext, open_run
from seral.task.options import TaskT

Arguments = Mapping[Cell, Sequence[Any]]
"""Cell -> arguments of its computation, Ray references among them; rows come in the order of the cells."""


@dataclass(frozen=True, kw_only=True)
class Study:
    """The rows of a study, the computation of a cell, and the table."""

    cell: Work
    stages: Sequence[tuple[str, Arguments]]
    """Cells with a label for their progress; a stage begins when the one before has ended."""
    write: Callable[[Results], str]
    """Writes the tables of all results to the run folder and returns the text to print."""


Plan = Callable[[RunContext[TaskT]], Study]
"""Makes the study of an open run."""


def compute(context: RunContext[TaskT], study: Study) -> Results:
    """The results of all cells, computed where they are missing."""
    results: dict[Cell, dict[str, Any]] = {}
    for label, arguments in study.stages:
        results |= run_cells(context.options.run, study.cell, arguments, context.options.cluster, label, context.pool)
    return results


def run_study(options: TaskT, verb: str, may_change: Collection[str], plan: Plan[TaskT]) -> str:
    """Open a run, compute the missing cells of its study and write the tables; returns their text."""
    context = open_run(options, verb, may_change)
    with storage.writing_to(context.options.run):
        study = plan(context)
        return study.write(compute(context, study))
