"""Commands about the loop."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from seral.cli.arguments import RunPath, Sets
from seral.cli.configured import command_of
from seral.cli.display import show, show_rows, wants_json

if TYPE_CHECKING:
    from seral.options import Options

app = typer.Typer(name="loop", no_args_is_help=True, help="Run and watch the active-learning loop.")


@command_of(app, "loop")
def loop_run(
    config: Annotated[Path, typer.Argument(help="YAML file of the run; `--options` lists what may stand in it.")],
    settings: Sets = None,
    grown: Annotated[bool, typer.Option("--grown", help="Go on though clips were added to the pool since.")] = False,
) -> tuple[Options, Callable[[Any], None]]:
    """Options of a run; at its end stand the scores of its arms, and its report."""
    from seral.loop.options import LoopOptions
    from seral.options import load

    options = load(LoopOptions, config, [*(settings or []), *(["grown=true"] if grown else [])], "loop")
    return options, _show_run


def _show_run(run: str) -> None:
    """Print the scores of the arms of a run, and where its report is, which is written where it is out of date."""
    from seral.report.outcome import run_outcome

    outcome = run_outcome(run)
    if wants_json():
        show(outcome)
        return
    show_rows(outcome["arms"])
    for warning in outcome["warnings"]:
        typer.echo(warning)
    typer.echo(f"report: {outcome['report']}")


@app.command("status")
def loop_status(run: RunPath) -> None:
    """Show rounds done, labels used and UAR on dev of every trajectory of a run."""
    from seral.loop.status import loop_status as status

    show_rows(status(run), empty="no trajectory yet")
