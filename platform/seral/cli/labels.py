"""Commands about labels and the people who give them."""

from __future__ import annotations

import typer

from seral.cli.arguments import AsJson, LedgerUrl
from seral.cli.display import show

labels_app = typer.Typer(no_args_is_help=True, help="People who label: who they are, what they said, and how well.")


@labels_app.command("progress")
def labels_progress(ledger: LedgerUrl, as_json: AsJson = False) -> None:
    """How far the batches of a ledger are.

    Example: `seral labels progress runs/calls/labels.sqlite`
    """
    from dataclasses import asdict

    from seral.annotate.ledger import Ledger

    show([asdict(batch) for batch in Ledger(ledger).progress()], as_json=as_json)
