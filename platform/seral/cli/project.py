"""Commands that start something: a project's folder, files to start from."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from seral.cli.display import show_lines, show_rows

app = typer.Typer()


@app.command()
def init(folder: Annotated[Path, typer.Argument(help="The folder; it is made where there is none.")]) -> None:
    """Make a project's folder: the file of a first run, with comments, and where data and runs go.

    Example: `seral init speech`
    """
    from seral.verbs.examples import make_project

    words = make_project(folder)
    show_lines([words], {"folder": str(folder), "next": words})


@app.command()
def config(
    name: Annotated[str | None, typer.Argument(help="Which file; without it all are listed.")] = None,
) -> None:
    """Print a file to start from, with its comments: runs and studies, the Dockerfile, the script for SLURM.

    Example: `seral config emodb-lora > run.yaml`
    """
    from seral.verbs.examples import summaries, text_of

    if name is None:
        show_rows(list(summaries()), empty="there are none")
    else:
        text = text_of(name)
        show_lines([text.rstrip("\n")], {"name": name, "text": text})
