"""Figures of sweeps, drawn from leader boards."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pandas as pd
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator
from numpy.typing import NDArray

from seral.figures.axes import (
    GRID,
    INK,
    MUTED,
    PALETTE,
    RANDOM_STYLE,
    percent,
    tidy,
)


def sweep_curves(board: pd.DataFrame, reports: dict[str, list[float]], metric: str) -> Figure:
    """Dev score of every trial after each of its reports; the best one stands out."""
    figure = Figure(figsize=(7.2, 3.8), layout="constrained")
    axes = tidy(figure.subplots(), "Reports: folds and seeds, or epochs or rounds of one", f"Dev {metric.upper()}")
    best = board.iloc[0]["point"]
    for name, values in reports.items():
        step = np.arange(1, len(values) + 1)
        if name != best:
            axes.plot(step, values, color=PALETTE[4], linewidth=0.8, alpha=0.5, marker=".", markersize=3)
    axes.plot(np.arange(1, len(reports[best]) + 1), reports[best], color=RANDOM_STYLE[0], linewidth=2.2, marker="o")
    axes.annotate("best", (len(reports[best]), reports[best][-1]), xytext=(4, 4), textcoords="offset points", color=INK)
    axes.xaxis.set_major_locator(MaxNLocator(integer=True))
    if metric == "uar":
        percent(axes.yaxis)
    return figure


def sweep_progress(board: pd.DataFrame, metric: str) -> Figure:
    """Points in the order of trying: their score, and the best of those seen through so far."""
    figure = Figure(figsize=(7.2, 3.2), layout="constrained")
    axes = tidy(figure.subplots(), "Points in the order of trying", f"Dev {metric.upper()}")
    points = board.dropna(subset=["dev"]).sort_values("number")
    complete = points[points["state"] == "done"]
    stopped = points[points["state"] != "done"]
    axes.plot(stopped["number"], stopped["dev"], "x", color=MUTED, markersize=5, label="stopped early")
    axes.plot(complete["number"], complete["dev"], "o", color=PALETTE[0], markersize=4, label="seen through")
    axes.step(complete["number"], complete["dev"].cummax(), where="post", color=RANDOM_STYLE[0], label="best so far")
    axes.legend(frameon=False, labelcolor=INK)
    axes.xaxis.set_major_locator(MaxNLocator(integer=True))
    if metric == "uar":
        percent(axes.yaxis)
    return figure


def sweep_importance(share: pd.Series) -> Figure:
    """Share of the differences between points that each option explains."""
    figure = Figure(figsize=(7.2, 0.9 + 0.32 * len(share)), layout="constrained")
    axes = tidy(figure.subplots(), "Share of what is explained", "")
    ordered = share.sort_values()
    axes.barh(np.arange(len(ordered)), ordered, color=PALETTE[0], height=0.6)
    axes.set_yticks(np.arange(len(ordered)), ordered.index, color=INK)
    axes.set_xlim(0, max(0.05, 1.15 * float(ordered.max())))
    percent(axes.xaxis)
    return figure


def sweep_parallel(board: pd.DataFrame, paths: Sequence[str], logarithmic: Sequence[str], metric: str) -> Figure:
    """A line a point through its values, the better the darker; what does not apply is below the axes."""
    figure = Figure(figsize=(max(7.2, 1.7 * (len(paths) + 1)), 4.6), layout="constrained")
    axes = figure.subplots()
    ordered = board.dropna(subset=["dev"]).sort_values("dev")
    low, high = float(ordered["dev"].min()), float(ordered["dev"].max())
    axis_of = {path: _scaled(ordered[path], path in logarithmic) for path in paths}
    heights = np.stack([*(axis_of[path][0] for path in paths), (ordered["dev"] - low) / ((high - low) or 1.0)], axis=1)
    at, rank = np.arange(len(paths) + 1), np.linspace(0, 1, len(ordered))
    for line, position in zip(heights, rank, strict=True):
        best = position == 1
        colour = RANDOM_STYLE[0] if best else PALETTE[0]
        axes.plot(
            at, line, color=colour, alpha=1.0 if best else 0.06 + 0.5 * position**3, linewidth=2.2 if best else 1.0
        )
    for position, path in enumerate(paths):
        axes.axvline(position, color=GRID, linewidth=1)
        for height, label in axis_of[path][1]:
            axes.annotate(label, (position, height), xytext=(3, 0), textcoords="offset points", fontsize=7, color=INK)
    for height, value in ((0.0, low), (1.0, high)):
        label = f"{value:.1%}" if metric == "uar" else f"{value:.3f}"
        axes.annotate(label, (len(paths), height), xytext=(3, 0), textcoords="offset points", fontsize=8, color=INK)
    axes.axvline(len(paths), color=INK, linewidth=1)
    names = [".\n".join(path.rsplit(".", 1)) for path in paths]
    axes.set_xticks(at, [*names, f"dev {metric.upper()}"], fontsize=8, color=INK)
    axes.set_yticks([])
    axes.set_ylim(-0.2, 1.06)
    axes.set_xlim(-0.1, len(paths) + 0.45)
    axes.spines[:].set_visible(False)
    axes.tick_params(length=0)
    return figure


def _scaled(values: pd.Series, logarithmic: bool) -> tuple[NDArray[np.float64], list[tuple[float, str]]]:
    """Heights in 0..1 of a column of a space and the ticks beside them; what is missing lies below."""
    is_set = values.map(lambda value: value is not None and value == value)
    numbers = all(isinstance(value, int | float) and not isinstance(value, bool) for value in values[is_set])
    if numbers and values[is_set].nunique() > 6:
        x = values[is_set].to_numpy(dtype=np.float64)
        x = np.log(x) if logarithmic else x
        low, high = float(x.min()), float(x.max())
        ends = [np.exp(end) if logarithmic else end for end in (low, high)]
        ticks = [(0.0, f"{ends[0]:.3g}"), (1.0, f"{ends[1]:.3g}")]
        height = (x - low) / ((high - low) or 1.0)
    else:
        kinds = sorted(values[is_set].unique(), key=lambda value: (isinstance(value, str), value))
        position_of = {kind: index / max(1, len(kinds) - 1) for index, kind in enumerate(kinds)}
        ticks = [(position_of[kind], str(kind)) for kind in kinds]
        height = values[is_set].map(position_of).to_numpy(dtype=np.float64)
    heights = np.full(len(values), -0.15)
    heights[is_set.to_numpy(dtype=bool)] = height
    return heights, ticks if bool(is_set.all()) else [(-0.15, "–"), *ticks]
