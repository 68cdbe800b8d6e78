"""Tables as commands print them."""

from __future__ import annotations

import json
import sys
from collections.abc import Mapping, Sequence
from typing import Any

import typer
from rich.console import Console
from rich.table import Table

from seral.secrets.addresses import mask

WIDEST = 1_000_000
"""Characters of a line that nobody looks at in a terminal."""


def show_outcome(outcome: object) -> None:
    """Print what a verb returned: counts as a table, anything else but None as it is."""
    if isinstance(outcome, dict):
        show(outcome)
    elif outcome is not None:
        typer.echo(outcome)


def show(value: Any, *, as_json: bool = False) -> None:
    """Print plain values for people, or JSON."""
    if as_json or not isinstance(value, dict):
        typer.echo(mask(json.dumps(value, indent=2, ensure_ascii=False)))
        return
    table = Table(show_header=False, box=None, pad_edge=False)
    for key, item in value.items():
        for name, entry in _flat(key, item):
            table.add_row(name, entry)
    _print(table)


def show_rows(rows: Sequence[Mapping[str, Any]], *, as_json: bool = False, empty: str = "none") -> None:
    """Print rows with the same keys: a table with numbers to three digits, `empty` if there are none, or JSON."""
    if as_json:
        typer.echo(mask(json.dumps(list(rows), indent=2, ensure_ascii=False)))
        return
    if not rows:
        typer.echo(empty)
        return
    table = Table(*rows[0], box=None, pad_edge=False)
    for row in rows:
        table.add_row(*(_cell(value) for value in row.values()))
    _print(table)


def _print(table: Table) -> None:
    """Fold long entries in a terminal, and elsewhere print a line a row; nothing is cut off."""
    for column in table.columns:
        column.overflow = "fold"
    if sys.stdout.isatty():
        Console().print(table)
        return
    console = Console(width=WIDEST)
    with console.capture() as printed:
        console.print(table)
    typer.echo("\n".join(line.rstrip() for line in printed.get().splitlines()))


def _cell(value: Any) -> str:
    if value is None:
        return "–"
    return f"{value:.3f}" if isinstance(value, float) else mask(str(value))


def _flat(key: str, item: Any) -> list[tuple[str, str]]:
    if isinstance(item, dict):
        return [row for name, inner in item.items() for row in _flat(f"{key}.{name}", inner)]
    return [(key, mask(", ".join(map(str, item)) if isinstance(item, list) else str(item)))]
