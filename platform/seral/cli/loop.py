"""Commands about the loop."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from seral.cli.arguments import AsJson, RunPath, Sets
from seral.cli.configured import command_of
from seral.cli.display import show_rows

loop_app = typer.Typer(no_args_is_help=True, help="Run and watch the active-learning loop.")


@command_of(loop_app, "loop")
def loop_run(
    config: Annotated[Path, typer.Argument(help="YAML file of the run; `--options` lists what may stand in it.")],
    settings: Sets = None,
    grown: Annotated[bool, typer.Option("--grown", help="Go on though clips were added to the pool since.")] = False,
) -> None:
    """Run the loop, and write the report of the run."""
    from seral.loop.loop import run_loop
    from seral.loop.options import LoopOptions
    from seral.options import load
    from seral.report.report import write_run_report

    run = run_loop(load(LoopOptions, config, [*(settings or []), *(["grown=true"] if grown else [])], "loop"))
    typer.echo(f"report: {write_run_report(run)}")


@loop_app.command("status")
def loop_status(run: RunPath, as_json: AsJson = False) -> None:
    """Show rounds done, labels used and UAR on dev of every trajectory of a run."""
    from seral.loop.status import loop_status as status

    show_rows(status(run), as_json=as_json, empty="no trajectory yet")
