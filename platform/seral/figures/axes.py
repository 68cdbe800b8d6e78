"""Axes, colours and marks of every figure: a white ground, told apart by marker and line as well as colour."""

from __future__ import annotations

import io
from collections.abc import Sequence
from typing import Any

from matplotlib import rc_context
from matplotlib.axes import Axes
from matplotlib.axis import Axis
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator, PercentFormatter

Style = tuple[str, str, str | tuple[float, Sequence[float]]]
"""Colour, marker, line."""


# Okabe and Ito's palette: apart under every common colour blindness.
PALETTE = ["#0072B2", "#E69F00", "#009E73", "#CC79A7", "#56B4E9", "#D55E00", "#F0E442", "#000000"]


INK, MUTED, GRID = "#1f2430", "#5b6472", "#e3e6eb"


STYLES: list[Style] = [
    ("#0072B2", "o", "-"),
    ("#009E73", "^", "-."),
    ("#CC79A7", "D", ":"),
    ("#56B4E9", "v", (0, (5, 1))),
]


RANDOM_STYLE: Style = ("#D55E00", "s", "--")


FULL_STYLE: Style = ("#5b6472", "*", ":")


HATCHES = ["", "///", "...", "xxx", "\\\\\\", "---", "ooo", "+++"]


DPI = 144


GROUPS_SHOWN = 12


GROUP_SLOTS = 6
"""Rows a panel of groups has room for at least, so that few groups do not become thick bars."""


def png(figure: Figure) -> bytes:
    """The figure as PNG bytes; no timestamp, so that equal figures are equal files."""
    buffer = io.BytesIO()
    figure.savefig(buffer, format="png", dpi=DPI, facecolor="white", metadata={"Software": None})
    return buffer.getvalue()


def svg(figure: Figure) -> bytes:
    """The figure as SVG bytes, its text as text; no timestamp and no drawn name, so that equal figures are equal."""
    buffer = io.BytesIO()
    with rc_context({"svg.hashsalt": "seral", "svg.fonttype": "none"}):
        figure.savefig(buffer, format="svg", facecolor="white", metadata={"Date": None, "Creator": None})
    return buffer.getvalue()


def hatched(index: int) -> dict[str, Any]:
    """Colour and hatch of the n-th part of a stack."""
    colour, hatch = PALETTE[index % len(PALETTE)], HATCHES[index % len(HATCHES)]
    return {"color": colour, "hatch": hatch, "edgecolor": "white", "linewidth": 0.6}


def percent(axis: Axis) -> None:
    """Shares as percent, at steps whose labels need no rounding."""
    axis.set_major_locator(MaxNLocator(nbins=7, steps=[1, 2, 5, 10]))
    axis.set_major_formatter(PercentFormatter(1.0))


def tidy(axes: Axes, x_label: str, y_label: str) -> Axes:
    """Labels, a light grid behind the data and no box around it."""
    axes.set_xlabel(x_label, color=MUTED)
    axes.set_ylabel(y_label, color=MUTED)
    axes.grid(visible=True, color=GRID, linewidth=0.8)
    axes.set_axisbelow(True)
    axes.spines[["top", "right", "left"]].set_visible(False)
    axes.spines["bottom"].set_color(GRID)
    axes.tick_params(colors=INK, length=0, labelsize=9)
    return axes
