"""Tables as commands print them."""

from __future__ import annotations

import json
import sys
from collections.abc import Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

import typer

from seral.secrets.addresses import mask

if TYPE_CHECKING:
    from rich.table import Table

WIDEST = 1_000_000
"""Characters of a line that nobody looks at in a terminal."""
_wanted = {"json": False}


def wants_json() -> bool:
    """Whether JSON is printed."""
    return _wanted["json"]


def print_json(on: bool) -> None:
    """Print JSON from now on, or no longer (`--json`)."""
    _wanted["json"] = on


def show_outcome(outcome: object) -> None:
    """Print what a verb returned: counts as a table, anything else but None as it is; as JSON, words are `outcome`."""
    if isinstance(outcome, dict):
        show(outcome)
    elif outcome is not None:
        show_lines([str(outcome)], {"outcome": str(outcome)})


def show_lines(lines: Iterable[str], value: Any) -> None:
    """Print lines for people, or the value that they tell of as JSON."""
    if _wanted["json"]:
        show(value)
        return
    for line in lines:
        typer.echo(line)


def show_plan(plan: Mapping[str, Any]) -> None:
    """Print what a command would do: a line a part, or JSON."""
    show_lines((f"{part:<8} {words}" for part, words in plan.items()), dict(plan))


def show(value: Any) -> None:
    """Print plain values for people, or JSON."""
    if _wanted["json"] or not isinstance(value, dict):
        typer.echo(mask(json.dumps(value, indent=2, ensure_ascii=False, default=str)))
        return
    from rich.table import Table

    table = Table(show_header=False, box=None, pad_edge=False)
    for key, item in value.items():
        for name, entry in _flat(key, item):
            table.add_row(name, entry)
    _print(table)


def show_rows(rows: Sequence[Mapping[str, Any]], *, empty: str = "none") -> None:
    """Print rows with the same keys: a table with numbers to three digits, `empty` if there are none, or JSON."""
    if _wanted["json"]:
        show(list(rows))
        return
    if not rows:
        typer.echo(empty)
        return
    from rich.table import Table

    table = Table(*rows[0], box=None, pad_edge=False)
    for row in rows:
        table.add_row(*(_cell(value) for value in row.values()))
    _print(table)


def _print(table: Table) -> None:
    """Fold long entries in a terminal, and elsewhere print a line a row; nothing is cut off."""
    from rich.console import Console

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
