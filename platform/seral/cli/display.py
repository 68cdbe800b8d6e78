"""What commands print."""

from __future__ import annotations

import json
import sys
from collections.abc import Mapping, Sequence
from typing import Any

import typer
from rich.console import Console
from rich.table import Table

WIDEST = 1_000_000
"""Characters of a line that nobody looks at in a terminal."""


def show(value: Any, *, as_json: bool = False) -> None:
    """Plain values for people, or JSON."""
    if as_json or not isinstance(value, dict):
        typer.echo(json.dumps(value, indent=2, ensure_ascii=False))
        return
    table = Table(show_header=False, box=None, pad_edge=False)
    for key, item in value.items():
        for name, entry in _flat(key, item):
            table.add_row(name, entry)
    _print(table)


def show_rows(rows: Sequence[Mapping[str, Any]], *, as_json: bool = False) -> None:
    """Rows with the same keys: a table for people, numbers to three digits, or JSON."""
    if as_json:
        typer.echo(json.dumps(list(rows), indent=2, ensure_ascii=False))
        return
    table = Table(*(rows[0] if rows else ()), box=None, pad_edge=False)
    for row in rows:
        table.add_row(*(_cell(value) for value in row.values()))
    _print(table)


def _print(table: Table) -> None:
    """In a terminal long entries are folded; elsewhere every row is one line. Nothing is cut off."""
    for column in table.columns:
        column.overflow = "fold"
    if sys.stdout.isatty():
        Console().print(table)
        return
    console = Console(width=WIDEST)
    with console.capture() as told:
        console.print(table)
    typer.echo("\n".join(line.rstrip() for line in told.get().splitlines()))


def _cell(value: Any) -> str:
    if value is None:
        return "–"
    return f"{value:.3f}" if isinstance(value, float) else str(value)


def _flat(key: str, item: Any) -> list[tuple[str, str]]:
    if isinstance(item, dict):
        return [row for name, inner in item.items() for row in _flat(f"{key}.{name}", inner)]
    return [(key, ", ".join(map(str, item)) if isinstance(item, list) else str(item))]
