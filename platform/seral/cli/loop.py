"""Commands about the loop."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console
from rich.table import Table

from seral.cli.arguments import AsJson, RunPath, Sets
from seral.cli.display import show

loop_app = typer.Typer(no_args_is_help=True, help="Run and watch the active-learning loop.")


@loop_app.command("run")
def loop_run(
    config: Annotated[Path, typer.Argument(help="YAML file of the run; `--options` lists what may stand in it.")],
    settings: Sets = None,
) -> None:
    """Run the main job: features, then rounds of select, label, train and score, beside a random arm.

    Run it again after an interruption: it resumes after the last complete round and ends in the same numbers.

    With `people` in the configuration it ends with status 75 when it awaits their labels; run again, it goes on.

    Example: `seral loop run jobs/configs/emodb-lora.yaml --set seeds=[0]`
    """
    from seral.loop.loop import run_loop
    from seral.loop.options import LoopOptions
    from seral.options import load
    from seral.report import write_run_report

    run = run_loop(load(LoopOptions, config, settings or []))
    typer.echo(f"report: {write_run_report(run)}")


@loop_app.command("options")
def loop_options() -> None:
    """List every option of `loop run` with its default and meaning."""
    from seral.loop.options import LoopOptions
    from seral.options import describe

    typer.echo(describe(LoopOptions))


@loop_app.command("status")
def loop_status(run: RunPath, as_json: AsJson = False) -> None:
    """Rounds done, labels used and UAR on dev of every trajectory of a run."""
    from seral.loop.loop import loop_status as status

    rows = status(run)
    if as_json or not rows:
        show(rows, as_json=True)
        return
    table = Table(*rows[0])
    for row in rows:
        table.add_row(*("" if value is None else str(value) for value in row.values()))
    Console().print(table)
