"""Figures of studies and of pretraining, drawn from tables."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import pandas as pd
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from seral.figures.axes import (
    FULL_STYLE,
    INK,
    MUTED,
    PALETTE,
    RANDOM_STYLE,
    STYLES,
    percent,
    tidy,
)
from seral.schema import RANDOM


def pretraining_curves(
    history: Sequence[dict[str, float]],
    held_out: Sequence[dict[str, float]],
    names: Sequence[str] = ("loss", "accuracy", "perplexity"),
) -> Figure:
    """Measures of a training without labels by step, on its batches and on the held-out clips."""
    figure = Figure(figsize=(10.8, 3.2), layout="constrained")
    curves = {"training": (history, STYLES[0]), "held out": (held_out, RANDOM_STYLE)}
    panels = figure.subplots(1, len(names))
    for axes, name in zip(panels, names, strict=True):
        tidy(axes, "step", name)
        for label, (rows, (colour, marker, line)) in curves.items():
            if not rows:
                continue
            x, y = [row["step"] for row in rows], [row[name] for row in rows]
            axes.plot(x, y, color=colour, marker=marker, linestyle=line, linewidth=2, markersize=5, label=label)
        axes.xaxis.set_major_locator(MaxNLocator(nbins=5, integer=True))
    if any("target_perplexity" in row for row in held_out):
        x, y = [row["step"] for row in held_out], [row["target_perplexity"] for row in held_out]
        panels[-1].plot(x, y, color=MUTED, linewidth=1.5, linestyle=FULL_STYLE[2], label="targets, held out")
    panels[-1].set_ylim(bottom=0)
    panels[-1].legend(frameon=False, loc="center left", bbox_to_anchor=(1.0, 0.5), labelcolor=INK)
    return figure


def label_curves(table: pd.DataFrame, shares: Sequence[float]) -> Figure:
    """UAR by the share of the labels, a panel for every encoder and target, a line for every row."""
    panels = list(table.groupby(["encoder", "target"], sort=False))
    columns = min(2, len(panels))
    rows = -(-len(panels) // columns)
    figure = Figure(figsize=(5.4 * columns, 3.6 * rows + 0.8), layout="constrained")
    grid = np.atleast_1d(figure.subplots(rows, columns, squeeze=False)).flatten()
    for axes, (names, own) in zip(grid, panels, strict=False):
        tidy(axes, "Labels, share of the training part", "Test UAR")
        axes.set_title(" · ".join(map(str, names)), color=INK, fontsize=10)
        for index, line in enumerate(own.to_dict("records")):
            y = [line[f"{share:.3g}"] for share in shares]
            label = ", ".join(str(line[name]) for name in ("arm", "source", "normalise"))
            colour, marker = PALETTE[index % len(PALETTE)], STYLES[index % len(STYLES)][1]
            axes.plot(shares, y, color=colour, marker=marker, linewidth=1.6, markersize=4, label=label)
        axes.set_xscale("log")
        percent(axes.yaxis)
        axes.set_xticks(shares, [f"{100 * share:g} %" for share in shares], fontsize=8)
        axes.minorticks_off()
    for axes in grid[len(panels) :]:
        axes.set_axis_off()
    handles, labels = grid[0].get_legend_handles_labels()
    figure.legend(handles, labels, frameon=False, loc="outside lower center", ncols=3, labelcolor=INK, fontsize=8)
    return figure


def transferred(uar_of: Mapping[str, float], shares: Mapping[str, float]) -> Figure:
    """UAR on each source corpus by a head of the others, and the shares of the classes in the target."""
    figure = Figure(figsize=(10.0, 1.3 + 0.3 * max(len(uar_of), len(shares))), layout="constrained")
    panels = figure.subplots(1, 2)
    titles = ("UAR on a corpus by labels of the others", "Share of the predictions for the pool")
    for axes, title, values, colour in zip(panels, titles, (uar_of, shares), PALETTE, strict=False):
        tidy(axes, title, "")
        names = list(values)[::-1]
        axes.barh(range(len(names)), [values[name] for name in names], color=colour, height=0.6)
        axes.set_yticks(range(len(names)), names)
        axes.set_xlim(left=0)
        percent(axes.xaxis)
    return figure


def study_rows(table: pd.DataFrame) -> Figure:
    """UAR (or CCC) of every row of a study, with one standard deviation, and its linear probe."""
    metric = "uar" if "uar" in table else "ccc"
    figure = Figure(figsize=(7.2, 1.1 + 0.3 * len(table)), layout="constrained")
    axes = tidy(figure.subplots(), f"Test {metric.upper()}, mean ± deviation over folds and seeds", "")
    row = np.arange(len(table))
    colour, marker, _ = STYLES[0]
    std = table[f"{metric}_std"].fillna(0.0)
    axes.errorbar(table[metric], row, xerr=std, fmt=marker, color=colour, capsize=3, linewidth=1.5, label="row")
    if (probe := f"probe_{metric}") in table:
        axes.plot(table[probe], row, RANDOM_STYLE[1], color=RANDOM_STYLE[0], markersize=4, label="its linear probe")
    axes.set_yticks(row, table["row"], color=INK)
    axes.set_ylim(len(table) - 0.5, -0.5)
    if metric == "uar":
        percent(axes.xaxis)
    axes.legend(frameon=False, loc="center left", bbox_to_anchor=(1.0, 0.5), labelcolor=INK)
    return figure


def strategy_curves(table: pd.DataFrame, shares: Sequence[float]) -> Figure:
    """UAR of every strategy over the budgets, and what it gains on random on average over them."""
    figure = Figure(figsize=(11, max(3.8, 0.3 * len(table) + 1.4)), layout="constrained")
    curves, gains = figure.subplots(1, 2)
    tidy(curves, "Labels, share of the training part", "Test UAR")
    # Colours and lines of different lengths, so that each pair of them comes once.
    lines = ["-", "--", ":", "-.", (0, (5, 1))]
    for index, line in enumerate(table.to_dict("records")):
        y = [line[f"{share:.0%}_uar"] for share in shares]
        look: dict[str, Any] = {"color": PALETTE[index % 7], "linestyle": lines[index % 5], "linewidth": 1.3}
        look |= {"color": INK, "linestyle": "-", "linewidth": 2.8} if line["row"] == RANDOM else {}
        curves.plot(shares, y, label=line["row"], **look)
    curves.legend(frameon=False, fontsize=7, ncols=2, labelcolor=INK)
    tidy(gains, "Gain on random, mean over the budgets", "")
    others = table[table["row"] != RANDOM]
    height = np.arange(len(others))[::-1]
    error = np.abs(others[["gain_low", "gain_high"]].to_numpy().T - others["gain"].to_numpy())
    gains.errorbar(others["gain"], height, xerr=error, fmt="o", color=PALETTE[0], ecolor=MUTED, capsize=3)
    gains.axvline(0, color=INK, linewidth=1)
    gains.set_yticks(height, others["row"])
    for axis in (curves.xaxis, curves.yaxis, gains.xaxis):
        percent(axis)
    return figure


def strategy_gains(table: pd.DataFrame) -> Figure:
    """Gain of every strategy on random with its interval, a panel a situation, the best on average at the top."""
    situations = table["situation"].unique()
    names = table.groupby("row")["gain"].mean().sort_values().index
    figure = Figure(figsize=(2.4 + 1.9 * len(situations), 1.2 + 0.26 * len(names)), layout="constrained")
    height = np.arange(len(names))
    for axes, situation in zip(figure.subplots(1, len(situations), squeeze=False)[0], situations, strict=True):
        tidy(axes, f"Gain on random\n{situation}", "")
        rows = table[table["situation"] == situation].set_index("row").loc[names]
        error = np.abs(rows[["gain_low", "gain_high"]].to_numpy().T - rows["gain"].to_numpy())
        axes.errorbar(rows["gain"], height, xerr=error, fmt="o", color=PALETTE[0], ecolor=MUTED, markersize=4)
        axes.axvline(0, color=INK, linewidth=1)
        axes.set_yticks(height, names if situation == situations[0] else [""] * len(names))
        axes.xaxis.set_major_locator(MaxNLocator(nbins=4))
        percent(axes.xaxis)
    return figure


def layer_relevance(table: pd.DataFrame) -> Figure:
    """Weight or score of every hidden state with its interval, one panel a measure, one line a target."""
    measures = {
        "weight": "Learned weight",
        "single": "This state alone: UAR or CCC",
        "truncated": "States up to this: UAR or CCC",
    }
    figure = Figure(figsize=(11.4, 3.6), layout="constrained")
    panels = figure.subplots(1, len(measures))
    for axes, (measure, label) in zip(panels, measures.items(), strict=True):
        tidy(axes, "hidden state", label)
        for index, (target, rows) in enumerate(table[table["measure"] == measure].groupby("target", sort=False)):
            colour, marker, line = STYLES[index % len(STYLES)]
            axes.fill_between(rows["layer"], rows["low"], rows["high"], color=colour, alpha=0.14, linewidth=0)
            style = {"color": colour, "marker": marker, "linestyle": line, "linewidth": 2, "markersize": 5}
            axes.plot(rows["layer"], rows["score"], label=str(target), **style)
        axes.set_ylim(bottom=min(0.0, axes.get_ylim()[0]))
        axes.xaxis.set_major_locator(MaxNLocator(nbins=9, integer=True))
    panels[-1].legend(frameon=False, loc="center left", bbox_to_anchor=(1.0, 0.5), labelcolor=INK)
    return figure


def probe_by_state(scores: pd.DataFrame) -> Figure:
    """UAR of every encoder's hidden states with the range over seeds; what has one state only is a level."""
    figure = Figure(figsize=(7.6, 4.0), layout="constrained")
    axes = tidy(figure.subplots(), "hidden state", "UAR of a linear probe, unseen speakers")
    for index, (encoder, rows) in enumerate(scores.groupby("encoder", sort=False)):
        over_seeds = rows.groupby("state")["uar"].agg(["mean", "min", "max"])
        if len(over_seeds) == 1:
            axes.axhline(over_seeds["mean"].iloc[0], color=MUTED, linestyle=FULL_STYLE[2], label=str(encoder))
            continue
        colour, marker, line = STYLES[index % len(STYLES)]
        axes.fill_between(over_seeds.index, over_seeds["min"], over_seeds["max"], color=colour, alpha=0.14, linewidth=0)
        x, y = over_seeds.index, over_seeds["mean"]
        axes.plot(x, y, color=colour, marker=marker, linestyle=line, linewidth=2, markersize=5, label=str(encoder))
    axes.set_ylim(bottom=0)
    percent(axes.yaxis)
    axes.xaxis.set_major_locator(MaxNLocator(nbins=9, integer=True))
    axes.legend(frameon=False, loc="center left", bbox_to_anchor=(1.0, 0.5), labelcolor=INK)
    return figure


def layer_similarity(table: pd.DataFrame) -> Figure:
    """A heat map a measure: pairs (source, target) by hidden states, each pair's most similar state marked."""
    measures = list(table.index.unique("measure"))
    pairs = max(len(table.loc[measure]) for measure in measures)
    size = (len(measures) * (2.4 + 0.32 * table.shape[1]), 1.4 + 0.32 * pairs)
    figure = Figure(figsize=size, layout="constrained")
    panels = figure.subplots(1, len(measures), squeeze=False)[0]
    for axes, measure in zip(panels, measures, strict=True):
        wide = table.loc[measure]
        tidy(axes, "hidden state", "").grid(visible=False)
        image = axes.imshow(wide.to_numpy(), cmap="cividis", aspect="auto")
        best = wide.to_numpy().argmax(1)
        axes.plot(best, range(len(wide)), "o", markerfacecolor="none", markeredgecolor="white", markersize=9)
        axes.set_yticks(range(len(wide)), [f"{source} - {target}" for source, target in wide.index], color=INK)
        axes.xaxis.set_major_locator(MaxNLocator(nbins=9, integer=True))
        axes.set_title(measure, fontsize=10, color=INK)
        figure.colorbar(image, ax=axes, shrink=0.8).outline.set_visible(False)
    return figure


def transfer_rows(table: pd.DataFrame) -> Figure:
    """UAR of every row, one panel a pair of languages; what is better or worse than source only is filled."""
    pairs = list(table["pair"].unique())
    across = min(4, len(pairs))
    down = -(-len(pairs) // across)
    rows = list(table["row"].unique())
    figure = Figure(figsize=(1.6 + 2.5 * across, 0.6 + down * (0.8 + 0.22 * len(rows))), layout="constrained")
    panels = figure.subplots(down, across, squeeze=False, sharex=True, sharey=True).flatten()
    for axes, pair in zip(panels, pairs, strict=False):
        own = table[table["pair"] == pair]
        tidy(axes, "", "").set_title(pair, fontsize=10, color=INK)
        clear = (own["low"] > 0) | (own["high"] < 0)
        colours = np.where(clear, STYLES[0][0], "white")
        axes.scatter(own["uar"], range(len(own)), c=colours, edgecolors=STYLES[0][0], zorder=3)
        axes.axvline(own["uar"].iloc[0], color=RANDOM_STYLE[0], linewidth=1, linestyle=RANDOM_STYLE[2])
        axes.set_yticks(range(len(rows)), rows, color=INK)
        axes.set_ylim(len(rows) - 0.5, -0.5)
        percent(axes.xaxis)
    for axes in panels[len(pairs) :]:
        axes.set_visible(False)
    figure.supxlabel("Test UAR", color=MUTED, fontsize=10)
    return figure
