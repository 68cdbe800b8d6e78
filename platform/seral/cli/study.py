"""Commands of studies over many runs."""

from __future__ import annotations

import typer

study_app = typer.Typer(no_args_is_help=True, help="Measure ways of learning over many runs.")
