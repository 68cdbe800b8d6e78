"""Arguments and options that several commands take."""

from __future__ import annotations

from typing import Annotated

import typer

from seral.cli.completion import complete_setting, of_table

PoolPath = Annotated[str, typer.Argument(metavar="POOL", help="The pool: a folder or an object-store address.")]
RunPath = Annotated[str, typer.Argument(metavar="RUN", help="The run folder.")]
Sets = Annotated[
    list[str] | None,
    typer.Option(
        "--set", metavar="KEY=VALUE", help="Override one option; repeatable.", autocompletion=complete_setting
    ),
]
EncoderName = Annotated[
    str, typer.Option(help="A hub id, a folder, or an embedded encoder.", autocompletion=of_table("encoder"))
]
LedgerUrl = Annotated[
    str,
    typer.Argument(metavar="LEDGER", help="A SQLite file, such as RUN/labels.sqlite, or a database's URL."),
]


def pair(text: str, option: str) -> tuple[str, str]:
    """Split `left=right` into its two sides."""
    left, equals, right = text.partition("=")
    if not equals:
        raise typer.BadParameter(f"expected two names or values joined by =, got {text!r}", param_hint=option)
    return left, right
