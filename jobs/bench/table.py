"""The table that `make bench` prints."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from statistics import median
from typing import Any

from jobs.bench.both_sides import LONG_ROUND_S, Comparison

HEAD = ("", "seral/s", "plain/s", "cores", "per core", "target", "plain together", "seral s", "plain s", "CPU")


def render(
    comparisons: Sequence[Comparison],
    rounds: Mapping[str, Any],
    starts: Mapping[str, float],
    load: Mapping[str, float],
) -> str:
    """The numbers as plain aligned text."""
    rows = [HEAD, *(_cells(comparison) for comparison in comparisons)]
    widths = [max(len(row[column]) for row in rows) for column in range(len(HEAD))]
    lines = [_line(row, widths) for row in rows]
    count = len(rounds["rounds"])
    return "\n".join(
        [
            *lines,
            "",
            "per core        seral/s over cores x plain/s",
            "plain together  the same ratio for as many plain processes as cores at once: what the machine leaves",
            "CPU             share of its wall-clock for which the plain process had a CPU; well below 1: busy machine",
            "",
            f"rounds: {count} in {rounds['wall_s']:.1f} s, of which compute {rounds['compute_s']:.1f} s; "
            f"not compute: {rounds['share_inside_rounds']:.1%} inside rounds, {rounds['share_of_run']:.1%} of the run",
            f"        {rounds['rest_per_round_s']:.2f} s a round = {rounds['share_of_long_rounds']:.1%} of a round "
            f"of {LONG_ROUND_S / 60:.0f} min (target 10%)",
            "not counted above: " + ", ".join(f"{name} {seconds:.1f} s" for name, seconds in starts.items()),
            "load average: " + ", ".join(f"{value:.1f} {when}" for when, value in load.items()),
        ]
    )


def _line(row: Sequence[str], widths: Sequence[int]) -> str:
    name, *numbers = (cell.rjust(width) for cell, width in zip(row, widths, strict=True))
    return "  ".join([row[0].ljust(len(name)), *numbers])


def _cells(comparison: Comparison) -> tuple[str, ...]:
    def ratio(value: float | None) -> str:
        return "" if value is None else f"{value:.2f}"

    wall_s, cpu_s = (median(getattr(timing, name) for timing in comparison.plain) for name in ("wall_s", "cpu_s"))
    return (
        comparison.name,
        f"{comparison.seral_rate:.1f}",
        f"{comparison.plain_rate:.1f}",
        str(comparison.cores),
        ratio(comparison.per_core),
        ratio(comparison.target),
        ratio(comparison.together_per_core),
        f"{median(comparison.seral_s):.1f}",
        f"{wall_s:.1f}",
        ratio(cpu_s / wall_s),
    )
