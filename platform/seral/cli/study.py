"""Commands of studies over many runs."""

from __future__ import annotations

import typer

app = typer.Typer(name="study", no_args_is_help=True, help="Measure ways of learning over many runs.")
