"""The report's figures: explicit Figure objects on a white ground, told apart by marker and line as well as colour."""

from __future__ import annotations

import io
from collections.abc import Sequence
from typing import Any

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.axis import Axis
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator, PercentFormatter
from numpy.typing import NDArray

from seral.report.comparison import curve, full_uar, last_rounds, phase_seconds
from seral.report.records import FULL, RANDOM, RunRecords

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


def arm_styles(arms: Sequence[str]) -> dict[str, Style]:
    """Colour, marker and line of every arm; random and full always look the same."""
    fixed: dict[str, Style] = {RANDOM: RANDOM_STYLE, FULL: FULL_STYLE}
    others = [arm for arm in arms if arm not in fixed]
    return fixed | {arm: STYLES[index % len(STYLES)] for index, arm in enumerate(others)}


def png(figure: Figure) -> bytes:
    """The figure as PNG bytes; no timestamp, so that equal figures are equal files."""
    buffer = io.BytesIO()
    figure.savefig(buffer, format="png", dpi=DPI, facecolor="white", metadata={"Software": None})
    return buffer.getvalue()


def learning_curves(records: RunRecords) -> Figure:
    """UAR against the share of labels, mean with a band of one standard deviation; all labels as a level."""
    figure = Figure(figsize=(7.2, 4.2), layout="constrained")
    axes = tidy(figure.subplots(), "Labels, share of the training part", "Test UAR")
    styles = arm_styles(records.arms)
    for arm in records.arms:
        if arm == FULL:
            continue
        means, (colour, marker, line) = curve(records, arm), styles[arm]
        x, y, spread = means["fraction"], means["uar"], means["uar_std"]
        axes.fill_between(x, y - spread, y + spread, color=colour, alpha=0.14, linewidth=0)
        axes.plot(x, y, color=colour, marker=marker, linestyle=line, linewidth=2, markersize=6, label=arm)
    _full_level(axes, records)
    axes.axhline(1 / len(records.classes), color=MUTED, linewidth=1, linestyle=(0, (1, 3)), label="chance")
    percent(axes.xaxis)
    percent(axes.yaxis)
    axes.legend(frameon=False, loc="center left", bbox_to_anchor=(1.0, 0.5), labelcolor=INK)
    return figure


def _full_level(axes: Axes, records: RunRecords) -> None:
    level = full_uar(records)
    if level is None:
        return
    spread = float(last_rounds(records.rounds).query("arm == @FULL")["uar"].std(ddof=1))
    spread = 0.0 if np.isnan(spread) else spread
    axes.axhspan(level - spread, level + spread, color=MUTED, alpha=0.14, linewidth=0)
    axes.axhline(level, color=MUTED, linewidth=1.5, linestyle=FULL_STYLE[2], label="all labels")


def confusion_matrices(records: RunRecords) -> Figure:
    """Row-normalised test confusion of each arm's last round; counts in the cells."""
    arms, count = records.arms, len(records.classes)
    side = max(2.6, 0.62 * count + 1.0)
    figure = Figure(figsize=(side * len(arms) + 0.6, side + 0.5), layout="constrained")
    for axes, arm in zip(np.atleast_1d(figure.subplots(1, len(arms))), arms, strict=True):
        _confusion(axes, records.confusion[arm], records.classes)
        axes.set_title(arm, color=INK, fontsize=11, fontweight="bold")
    return figure


def said_together(together_CC: NDArray[np.float64], classes: Sequence[str]) -> Figure:
    """How often one person says the row and another the column of a clip, row-normalised; counts in the cells."""
    side = max(2.6, 0.62 * len(classes) + 1.0)
    figure = Figure(figsize=(side + 0.6, side + 0.5), layout="constrained")
    count_CC = np.rint(together_CC).astype(np.int64)
    _confusion(figure.subplots(), count_CC, classes, rows="one says", columns="another says")
    return figure


def _confusion(
    axes: Axes, count_CC: NDArray[np.int64], classes: Sequence[str], rows: str = "truth", columns: str = "predicted"
) -> None:
    share_CC = count_CC / np.maximum(count_CC.sum(axis=1, keepdims=True), 1)
    axes.imshow(share_CC, cmap="Blues", vmin=0, vmax=1)
    for (row, column), count in np.ndenumerate(count_CC):
        share = share_CC[row, column]
        colour = "white" if share > 0.55 else INK
        axes.text(column, row, f"{share:.0%}\n{count}", ha="center", va="center", fontsize=8, color=colour)
    ticks = np.arange(len(classes))
    axes.set_xticks(ticks, classes, rotation=40, ha="right", fontsize=9, color=INK)
    axes.set_yticks(ticks, classes, fontsize=9, color=INK)
    axes.set_xlabel(columns, color=MUTED)
    axes.set_ylabel(rows, color=MUTED)
    axes.spines[:].set_visible(False)
    axes.tick_params(length=0)


def picked_classes(composed: pd.DataFrame, classes: Sequence[str]) -> Figure:
    """What was answered each round, as shares of the round, one panel an arm."""
    shown = composed.assign(
        emotion=composed["emotion"].astype(object).where(composed["answer"].eq("label"), "no label")
    )
    names = [*classes, *(["no label"] if (shown["emotion"] == "no label").any() else [])]
    arms = sorted(shown["arm"].unique(), key=lambda arm: (arm == RANDOM, arm))
    figure = Figure(figsize=(3.6 * len(arms) + 1.6, 3.4), layout="constrained")
    panels = np.atleast_1d(figure.subplots(1, len(arms), sharey=True))
    for axes, arm in zip(panels, arms, strict=True):
        count = pd.crosstab(shown.loc[shown["arm"] == arm, "round"], shown.loc[shown["arm"] == arm, "emotion"])
        share = count.reindex(columns=names, fill_value=0).div(count.sum(axis=1), axis=0)
        _stack(tidy(axes, "round", "share of the answers" if axes is panels[0] else ""), share)
        axes.set_title(arm, color=INK, fontsize=11, fontweight="bold")
        percent(axes.yaxis)
    panels[-1].legend(frameon=False, loc="center left", bbox_to_anchor=(1.0, 0.5), labelcolor=INK, reverse=True)
    return figure


def _stack(axes: Axes, share: pd.DataFrame) -> None:
    """Stacked columns, one per row of the frame, hatched so that greyscale tells them apart."""
    ticks, base = np.arange(len(share)), np.zeros(len(share))
    for index, name in enumerate(share.columns):
        height = share[name].to_numpy(dtype=np.float64)
        axes.bar(ticks, height, 0.72, bottom=base, label=str(name), **_look(index))
        base += height
    axes.set_xticks(ticks, [str(row) for row in share.index])
    axes.grid(visible=False, axis="x")


def picked_groups(composed: pd.DataFrame, metadata: pd.DataFrame) -> Figure:
    """Shares of picks by speaker and by corpus, each arm beside the pool."""
    figure = Figure(figsize=(8.6, 4.4), layout="constrained")
    panels = figure.subplots(1, 2, width_ratios=[1.6, 1])
    pool = metadata.assign(arm="pool")
    for axes, column in zip(panels, ("speaker", "corpus"), strict=True):
        both = pd.concat([composed[["arm", column]], pool[["arm", column]]]).fillna({column: "unknown"})
        share = pd.crosstab(both[column], both["arm"], normalize="columns")
        top = share["pool"].sort_values(ascending=False, kind="stable").index[:GROUPS_SHOWN]
        if len(share) > len(top):
            rest = share.drop(top).sum().rename(f"{len(share) - len(top)} others")
            share = pd.concat([share.loc[top], rest.to_frame().T])
        else:
            share = share.loc[top]
        _side_by_side(tidy(axes, "share", ""), share)
        axes.set_title(f"by {column}", color=INK, fontsize=11, fontweight="bold")
    panels[1].legend(frameon=False, loc="upper left", bbox_to_anchor=(1.0, 1.0), labelcolor=INK)
    return figure


def _side_by_side(axes: Axes, share: pd.DataFrame) -> None:
    """Horizontal bars, one group per row of the frame; the pool as a tick to compare with."""
    arms = sorted((arm for arm in share.columns if arm != "pool"), key=lambda arm: (arm == RANDOM, arm))
    styles, ticks, height = arm_styles(arms), np.arange(len(share)), 0.8 / max(1, len(arms))
    for index, arm in enumerate(arms):
        place = ticks - 0.4 + height * (index + 0.5)
        hatch = "///" if arm == RANDOM else HATCHES[0 if index == 0 else index + 1]
        axes.barh(place, share[arm], height, color=styles[arm][0], hatch=hatch, edgecolor="white", label=arm)
    axes.vlines(share["pool"], ticks - 0.46, ticks + 0.46, color=INK, linewidth=2, label="pool")
    axes.set_yticks(ticks, [str(name) for name in share.index])
    axes.set_ylim(max(len(share), GROUP_SLOTS) - 0.5, -0.5)
    axes.grid(visible=False, axis="y")
    percent(axes.xaxis)


def picked_quality(composed: pd.DataFrame, metadata: pd.DataFrame) -> Figure:
    """Density of the signal-to-noise ratio of the picks against that of the pool."""
    figure = Figure(figsize=(7.2, 3.4), layout="constrained")
    axes = tidy(figure.subplots(), "SNR, dB", "share of utterances")
    pool = metadata["snr_db"].dropna().to_numpy(dtype=np.float64)
    if not len(pool):
        axes.text(0.5, 0.5, "no SNR was measured", ha="center", color=MUTED, transform=axes.transAxes)
        return figure
    edges = np.histogram_bin_edges(pool, bins=20).tolist()
    axes.hist(pool, edges, weights=np.full(len(pool), 1 / len(pool)), color="#d5d9e0", label="pool")
    arms = sorted(composed["arm"].unique(), key=lambda arm: (arm == RANDOM, arm))
    for arm, (colour, _, line) in ((arm, arm_styles(arms)[arm]) for arm in arms):
        snr = composed.loc[composed["arm"] == arm, "snr_db"].dropna().to_numpy(dtype=np.float64)
        look: dict[str, Any] = {"histtype": "step", "color": colour, "linestyle": line, "linewidth": 2}
        axes.hist(snr, edges, weights=np.full(len(snr), 1 / max(1, len(snr))), label=f"picked by {arm}", **look)
    percent(axes.yaxis)
    axes.legend(frameon=False, loc="center left", bbox_to_anchor=(1.0, 0.5), labelcolor=INK)
    return figure


def time_by_phase(records: RunRecords) -> Figure:
    """Mean seconds of a trajectory by phase, one bar an arm."""
    seconds = phase_seconds(records)
    figure = Figure(figsize=(7.2, 0.55 * len(seconds) + 1.5), layout="constrained")
    axes = tidy(figure.subplots(), "seconds per trajectory, all rounds", "")
    ticks, base = np.arange(len(seconds)), np.zeros(len(seconds))
    for index, phase in enumerate(seconds.columns):
        width = seconds[phase].to_numpy(dtype=np.float64)
        axes.barh(ticks, width, 0.62, left=base, label=phase, **_look(index))
        base += width
    axes.set_yticks(ticks, list(seconds.index))
    axes.invert_yaxis()
    axes.grid(visible=False, axis="y")
    axes.xaxis.set_major_locator(MaxNLocator(nbins=7))
    axes.legend(frameon=False, loc="center left", bbox_to_anchor=(1.0, 0.5), labelcolor=INK)
    return figure


def pretraining_curves(
    history: Sequence[dict[str, float]],
    held_out: Sequence[dict[str, float]],
    names: Sequence[str] = ("loss", "accuracy", "perplexity"),
) -> Figure:
    """What is measured of a training without labels by step, on its batches and on the held-out clips."""
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


def study_rows(table: pd.DataFrame) -> Figure:
    """UAR (or CCC) of every row of a study, with one standard deviation, and its linear probe."""
    metric = "uar" if "uar" in table else "ccc"
    figure = Figure(figsize=(7.2, 1.1 + 0.3 * len(table)), layout="constrained")
    axes = tidy(figure.subplots(), f"Test {metric.upper()}, mean ± deviation over folds and seeds", "")
    row = np.arange(len(table))
    colour, marker, _ = STYLES[0]
    spread = table[f"{metric}_std"].fillna(0.0)
    axes.errorbar(table[metric], row, xerr=spread, fmt=marker, color=colour, capsize=3, linewidth=1.5, label="row")
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
    left, right = figure.subplots(1, 2)
    tidy(left, "Labels, share of the training part", "Test UAR")
    # Colours and lines of different lengths, so that each pair of them comes once.
    lines = ["-", "--", ":", "-.", (0, (5, 1))]
    for index, line in enumerate(table.to_dict("records")):
        y = [line[f"{share:.0%}_uar"] for share in shares]
        look: dict[str, Any] = {"color": PALETTE[index % 7], "linestyle": lines[index % 5], "linewidth": 1.3}
        look |= {"color": INK, "linestyle": "-", "linewidth": 2.8} if line["row"] == RANDOM else {}
        left.plot(shares, y, label=line["row"], **look)
    left.legend(frameon=False, fontsize=7, ncols=2, labelcolor=INK)
    tidy(right, "Gain on random, mean over the budgets", "")
    others = table[table["row"] != RANDOM]
    height = np.arange(len(others))[::-1]
    error = np.abs(others[["gain_low", "gain_high"]].to_numpy().T - others["gain"].to_numpy())
    right.errorbar(others["gain"], height, xerr=error, fmt="o", color=PALETTE[0], ecolor=MUTED, capsize=3)
    right.axvline(0, color=INK, linewidth=1)
    right.set_yticks(height, others["row"])
    for axis in (left.xaxis, left.yaxis, right.xaxis):
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
        percent(axes.xaxis)
    return figure


def sweep_curves(board: pd.DataFrame, reports: dict[str, list[float]], metric: str) -> Figure:
    """What every trial had reached on dev after each of its reports; the best one stands out."""
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
    tried = board.dropna(subset=["dev"]).sort_values("number")
    done = tried[tried["state"] == "done"]
    stopped = tried[tried["state"] != "done"]
    axes.plot(stopped["number"], stopped["dev"], "x", color=MUTED, markersize=5, label="stopped early")
    axes.plot(done["number"], done["dev"], "o", color=PALETTE[0], markersize=4, label="seen through")
    axes.step(done["number"], done["dev"].cummax(), where="post", color=RANDOM_STYLE[0], label="best so far")
    axes.legend(frameon=False, labelcolor=INK)
    axes.xaxis.set_major_locator(MaxNLocator(integer=True))
    if metric == "uar":
        percent(axes.yaxis)
    return figure


def sweep_importance(share: pd.Series) -> Figure:
    """Share of the differences between points that each option explains."""
    figure = Figure(figsize=(7.2, 0.9 + 0.32 * len(share)), layout="constrained")
    axes = tidy(figure.subplots(), "Share of what is explained", "")
    shown = share.sort_values()
    axes.barh(np.arange(len(shown)), shown, color=PALETTE[0], height=0.6)
    axes.set_yticks(np.arange(len(shown)), shown.index, color=INK)
    axes.set_xlim(0, max(0.05, 1.15 * float(shown.max())))
    percent(axes.xaxis)
    return figure


def sweep_parallel(board: pd.DataFrame, paths: Sequence[str], logarithmic: Sequence[str], metric: str) -> Figure:
    """A line a point through its values, the better the darker; what does not apply is below the axes."""
    figure = Figure(figsize=(max(7.2, 1.7 * (len(paths) + 1)), 4.6), layout="constrained")
    axes = figure.subplots()
    shown = board.dropna(subset=["dev"]).sort_values("dev")
    low, high = float(shown["dev"].min()), float(shown["dev"].max())
    axis_of = {path: _scaled(shown[path], path in logarithmic) for path in paths}
    heights = np.stack([*(axis_of[path][0] for path in paths), (shown["dev"] - low) / ((high - low) or 1.0)], axis=1)
    at, rank = np.arange(len(paths) + 1), np.linspace(0, 1, len(shown))
    for line, place in zip(heights, rank, strict=True):
        best = place == 1
        colour = RANDOM_STYLE[0] if best else PALETTE[0]
        axes.plot(at, line, color=colour, alpha=1.0 if best else 0.06 + 0.5 * place**3, linewidth=2.2 if best else 1.0)
    for place, path in enumerate(paths):
        axes.axvline(place, color=GRID, linewidth=1)
        for height, told in axis_of[path][1]:
            axes.annotate(told, (place, height), xytext=(3, 0), textcoords="offset points", fontsize=7, color=INK)
    for height, value in ((0.0, low), (1.0, high)):
        told = f"{value:.1%}" if metric == "uar" else f"{value:.3f}"
        axes.annotate(told, (len(paths), height), xytext=(3, 0), textcoords="offset points", fontsize=8, color=INK)
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
    held = values.map(lambda value: value is not None and value == value)
    numbers = all(isinstance(value, int | float) and not isinstance(value, bool) for value in values[held])
    if numbers and values[held].nunique() > 6:
        x = values[held].to_numpy(dtype=np.float64)
        x = np.log(x) if logarithmic else x
        low, high = float(x.min()), float(x.max())
        ends = [np.exp(end) if logarithmic else end for end in (low, high)]
        ticks = [(0.0, f"{ends[0]:.3g}"), (1.0, f"{ends[1]:.3g}")]
        height = (x - low) / ((high - low) or 1.0)
    else:
        kinds = sorted(values[held].unique(), key=lambda value: (isinstance(value, str), value))
        place = {kind: index / max(1, len(kinds) - 1) for index, kind in enumerate(kinds)}
        ticks = [(place[kind], str(kind)) for kind in kinds]
        height = values[held].map(place).to_numpy(dtype=np.float64)
    found = np.full(len(values), -0.15)
    found[held.to_numpy(dtype=bool)] = height
    return found, ticks if bool(held.all()) else [(-0.15, "–"), *ticks]


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


def _look(index: int) -> dict[str, Any]:
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
