"""Commands about sweeps."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from seral.cli.arguments import Sets, StudyPath

sweep_app = typer.Typer(no_args_is_help=True, help="Look for the best options of a training with Ray Tune.")


@sweep_app.command("run")
def sweep_run(config: StudyPath, settings: Sets = None) -> None:
    """Try points of a space of options side by side, stop the worse ones early, test the best; resumes after a kill.

    Example: `seral sweep run jobs/configs/sweep-heads.yaml --set trials=50`
    """
    from seral.options import load
    from seral.sweep.plan import SweepOptions
    from seral.sweep.run import run_sweep

    typer.echo(run_sweep(load(SweepOptions, config, settings or [])))


@sweep_app.command("best")
def sweep_best(
    run: Annotated[str, typer.Argument(metavar="SWEEP", help="The folder of the sweep.")],
    as_config: Annotated[Path | None, typer.Option(help="Write the training at the best point to this file.")] = None,
) -> None:
    """Show the training at the best point so far, as `seral loop run` and `seral sweep run` take it.

    Example: `seral sweep best runs/sweep-heads --as-config run.yaml; seral loop run run.yaml`
    """
    from seral.sweep.run import best_config

    text = best_config(run)
    if as_config is None:
        typer.echo(text, nl=False)
    else:
        as_config.write_text(text, encoding="utf-8")
        typer.echo(f"{as_config}: seral loop run {as_config}")
