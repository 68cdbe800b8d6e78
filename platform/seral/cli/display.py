"""What commands print."""

from __future__ import annotations

import json
from typing import Any

import typer
from rich.console import Console
from rich.table import Table


def show(value: Any, *, as_json: bool = False) -> None:
    """Plain values for people, or JSON."""
    if as_json or not isinstance(value, dict):
        typer.echo(json.dumps(value, indent=2, ensure_ascii=False))
        return
    table = Table(show_header=False, box=None, pad_edge=False)
    for key, item in value.items():
        for name, entry in _flat(key, item):
            table.add_row(name, entry)
    Console().print(table)


def _flat(key: str, item: Any) -> list[tuple[str, str]]:
    if isinstance(item, dict):
        return [row for name, inner in item.items() for row in _flat(f"{key}.{name}", inner)]
    return [(key, ", ".join(map(str, item)) if isinstance(item, list) else str(item))]
