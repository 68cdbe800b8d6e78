"""Commands about sweeps."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer
import yaml

from seral.cli.display import show_lines

app = typer.Typer(name="sweep", no_args_is_help=True, help="Look for the best options of a training with Ray Tune.")


@app.command("best")
def sweep_best(
    run: Annotated[str, typer.Argument(metavar="SWEEP", help="The folder of the sweep.")],
    as_config: Annotated[Path | None, typer.Option(help="Write the training at the best point to this file.")] = None,
) -> None:
    """Show the training at the best point so far, as `seral loop run` and `seral sweep run` take it.

    Example: `seral sweep best runs/sweep-heads --as-config run.yaml; seral loop run run.yaml`
    """
    from seral.sweep.board import best_config

    text = best_config(run)
    if as_config is None:
        show_lines([text.rstrip("\n")], yaml.safe_load(text))
    else:
        as_config.write_text(text, encoding="utf-8")
        show_lines([f"{as_config}: seral loop run {as_config}"], {"config": str(as_config)})
