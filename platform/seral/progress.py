"""Progress of long work: a bar on a terminal, a line every few seconds in a log."""

from __future__ import annotations

import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Protocol

from seral.secrets.addresses import mask

LINE_EVERY_S = 5.0
QUIET, USUAL, VERBOSE = -1, 0, 1
_level = {"now": USUAL}


class Advance(Protocol):
    """Report that some units are done."""

    def __call__(self, units: float = 1, /) -> None: ...


def set_level(level: int) -> None:
    """Say less from now on (QUIET: nothing), or more (VERBOSE)."""
    _level["now"] = level


def verbose() -> bool:
    """Whether more is to be said than usual."""
    return _level["now"] >= VERBOSE


@contextmanager
def track(label: str | None, total: float) -> Iterator[Advance]:
    """Show progress over `total` units on standard error while the block runs; none without a label, or with QUIET."""
    if label is None or _level["now"] <= QUIET:
        yield lambda units=1, /: None
        return
    from rich.console import Console  # late: commands without a bar do not wait for it
    from rich.progress import (
        BarColumn,
        MofNCompleteColumn,
        Progress,
        TextColumn,
        TimeElapsedColumn,
        TimeRemainingColumn,
    )

    console = Console(stderr=True)
    if console.is_terminal:
        columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn())
        with Progress(*columns, TimeElapsedColumn(), TimeRemainingColumn(), console=console) as bar:
            task = bar.add_task(label, total=total)
            yield lambda units=1, /: bar.advance(task, units)
        return
    units_done, start_s, last_line_s = 0.0, time.monotonic(), time.monotonic()

    def advance(units: float = 1, /) -> None:
        nonlocal units_done, last_line_s
        units_done += units
        if time.monotonic() - last_line_s >= LINE_EVERY_S:
            last_line_s = time.monotonic()
            print(f"{label}: {units_done:g}/{total:g} after {last_line_s - start_s:.0f} s", file=sys.stderr, flush=True)

    yield advance
    print(f"{label}: {units_done:g}/{total:g} in {time.monotonic() - start_s:.1f} s", file=sys.stderr, flush=True)


def say(message: str) -> None:
    """One line to the person who waits, on standard error so that results can be piped; it goes above a bar."""
    if _level["now"] > QUIET:
        print(mask(message), file=sys.stderr, flush=True)
