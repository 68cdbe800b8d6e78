"""Commands that look over runs, and after their folders."""

from __future__ import annotations

from dataclasses import asdict
from typing import Annotated

import typer

from seral.cli.arguments import RunPath
from seral.cli.display import show_lines, show_rows

app = typer.Typer()
run_app = typer.Typer(name="run", no_args_is_help=True, help="Look after the folder of a run.")
runs_app = typer.Typer(name="runs", no_args_is_help=True, help="Look over the runs of a folder.")
app.add_typer(run_app)
app.add_typer(runs_app)


@run_app.command("check")
def run_check(run: RunPath) -> None:
    """Read every file of a run and compare it with its checksum. Exit status 1 on a problem.

    Covers rounds, models, predictions, cells and records, the run's own cache of features, and its ledger; what lacks
    a checksum, since an older release wrote it, is counted. `seral pool check` does the same for a pool.
    Example: `seral run check runs/emodb`
    """
    from seral.verbs.check_run import check_run

    outcome = check_run(run)
    verdict = "sound" if not outcome.problems else f"{len(outcome.problems)} problems"
    without = f", {len(outcome.without)} have none" if outcome.without else ""
    last = f"{run}: {verdict}; {outcome.files} files compared with their checksums{without}"
    show_lines([*outcome.problems, last], {"run": run, **asdict(outcome)})
    raise typer.Exit(1 if outcome.problems else 0)


@runs_app.command("ls")
def runs_ls(
    folder: Annotated[str, typer.Argument(metavar="DIR", help="The folder that runs lie in.")] = "runs",
) -> None:
    """List the runs in a folder: verb, when it began, labels, score on dev, state.

    Example: `seral runs ls runs`
    """
    from seral.report.listing import list_runs

    show_rows(list_runs(folder), empty=f"no run in {folder}")
