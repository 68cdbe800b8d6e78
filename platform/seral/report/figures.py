"""Figures of runs and of pools: explicit Figure objects on white, told apart by marker and line as well as colour."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
import pandas as pd
import pyarrow as pa
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator
from numpy.typing import NDArray

from seral.figures.axes import (
    FULL_STYLE,
    GROUP_SLOTS,
    GROUPS_SHOWN,
    HATCHES,
    INK,
    MUTED,
    PALETTE,
    RANDOM_STYLE,
    STYLES,
    Style,
    hatched,
    percent,
    tidy,
)
from seral.report.comparison import curve, full_score, last_rounds
from seral.report.records import RunRecords
from seral.report.shares import POOL, arms_in
from seral.schema import FULL, RANDOM

ACROSS = 4
BINS = 30
UNITS = {"_db": "dB", "_s": "s", "_hz": "Hz"}
"""End of a measure's name -> its unit."""


def arm_styles(arms: Sequence[str]) -> dict[str, Style]:
    """Colour, marker and line of every arm; random and full always look the same."""
    fixed: dict[str, Style] = {RANDOM: RANDOM_STYLE, FULL: FULL_STYLE}
    others = [arm for arm in arms if arm not in fixed]
    return fixed | {arm: STYLES[index % len(STYLES)] for index, arm in enumerate(others)}


def learning_curves(records: RunRecords) -> Figure:
    """UAR against the share of labels, mean with a band of one standard deviation; all labels as a level."""
    figure = Figure(figsize=(7.2, 4.2), layout="constrained")
    axes = tidy(figure.subplots(), "Labels, share of the training part", f"{records.judged.capitalize()} UAR")
    styles = arm_styles(records.arms)
    for arm in records.arms:
        if arm == FULL:
            continue
        means, (colour, marker, line) = curve(records, arm), styles[arm]
        x, y, std = means["fraction"], means["uar"], means["uar_std"]
        axes.fill_between(x, y - std, y + std, color=colour, alpha=0.14, linewidth=0)
        axes.plot(x, y, color=colour, marker=marker, linestyle=line, linewidth=2, markersize=6, label=arm)
    _full_level(axes, records)
    if len(records.source):
        level = records.source["uar"].mean()
        axes.axhline(level, color=PALETTE[1], linewidth=1.5, linestyle=(0, (4, 2)), label="other corpora, no label")
    axes.axhline(1 / len(records.classes), color=MUTED, linewidth=1, linestyle=(0, (1, 3)), label="chance")
    percent(axes.xaxis)
    percent(axes.yaxis)
    axes.legend(frameon=False, loc="center left", bbox_to_anchor=(1.0, 0.5), labelcolor=INK)
    return figure


def _full_level(axes: Axes, records: RunRecords) -> None:
    level = full_score(records)
    if level is None:
        return
    std = float(last_rounds(records.rounds).query("arm == @FULL")["uar"].std(ddof=1))
    std = 0.0 if np.isnan(std) else std
    axes.axhspan(level - std, level + std, color=MUTED, alpha=0.14, linewidth=0)
    axes.axhline(level, color=MUTED, linewidth=1.5, linestyle=FULL_STYLE[2], label="all labels")


def confusion_matrices(records: RunRecords) -> Figure:
    """Row-normalised confusion of each arm's last round; counts in the cells."""
    arms, count = records.arms, len(records.classes)
    side = max(2.6, 0.62 * count + 1.0)
    figure = Figure(figsize=(side * len(arms) + 0.6, side + 0.5), layout="constrained")
    for axes, arm in zip(np.atleast_1d(figure.subplots(1, len(arms))), arms, strict=True):
        _confusion(axes, records.confusion[arm], records.classes)
        axes.set_title(arm, color=INK, fontsize=11, fontweight="bold")
    return figure


def answer_pairs(together_CC: NDArray[np.float64], classes: Sequence[str]) -> Figure:
    """Matrix of clips of which one person says the row and another the column, row-normalised; counts in the cells."""
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


def picked_classes(shares: pd.DataFrame, answers: Sequence[str]) -> Figure:
    """Answers of each round, as shares of the round (shares.answer_shares), one panel an arm."""
    arms = arms_in(shares)
    figure = Figure(figsize=(3.6 * len(arms) + 1.6, 3.4), layout="constrained")
    panels = np.atleast_1d(figure.subplots(1, len(arms), sharey=True))
    for axes, arm in zip(panels, arms, strict=True):
        own = shares[shares["arm"] == arm].pivot(index="round", columns="answer", values="share")
        own = own.reindex(columns=list(answers)).fillna(0.0)
        _stack(tidy(axes, "round", "share of the answers" if axes is panels[0] else ""), own)
        axes.set_title(arm, color=INK, fontsize=11, fontweight="bold")
        percent(axes.yaxis)
    panels[-1].legend(frameon=False, loc="center left", bbox_to_anchor=(1.0, 0.5), labelcolor=INK, reverse=True)
    return figure


def _stack(axes: Axes, share: pd.DataFrame) -> None:
    """Stacked columns, one per row of the frame, hatched so that greyscale tells them apart."""
    ticks, base = np.arange(len(share)), np.zeros(len(share))
    for index, name in enumerate(share.columns):
        height = share[name].to_numpy(dtype=np.float64)
        axes.bar(ticks, height, 0.72, bottom=base, label=str(name), **hatched(index))
        base += height
    axes.set_xticks(ticks, [str(row) for row in share.index])
    axes.grid(visible=False, axis="x")


def picked_groups(shares: pd.DataFrame) -> Figure:
    """Shares of picks by speaker and by corpus (shares.group_shares), each arm beside the pool."""
    figure = Figure(figsize=(8.6, 4.4), layout="constrained")
    panels = figure.subplots(1, 2, width_ratios=[1.6, 1])
    for axes, column in zip(panels, ("speaker", "corpus"), strict=True):
        own = shares[shares["by"] == column]
        share = own.pivot(index="group", columns="arm", values="share").loc[own["group"].unique()]
        _side_by_side(tidy(axes, "share", ""), share)
        axes.set_title(f"by {column}", color=INK, fontsize=11, fontweight="bold")
    panels[1].legend(frameon=False, loc="upper left", bbox_to_anchor=(1.0, 1.0), labelcolor=INK)
    return figure


def _side_by_side(axes: Axes, share: pd.DataFrame) -> None:
    """Horizontal bars, one group per row of the frame; the pool as a tick to compare with."""
    arms = sorted((arm for arm in share.columns if arm != POOL), key=lambda arm: (arm == RANDOM, arm))
    styles, ticks, height = arm_styles(arms), np.arange(len(share)), 0.8 / max(1, len(arms))
    for index, arm in enumerate(arms):
        positions = ticks - 0.4 + height * (index + 0.5)
        hatch = "///" if arm == RANDOM else HATCHES[0 if index == 0 else index + 1]
        axes.barh(positions, share[arm], height, color=styles[arm][0], hatch=hatch, edgecolor="white", label=arm)
    axes.vlines(share[POOL], ticks - 0.46, ticks + 0.46, color=INK, linewidth=2, label=POOL)
    axes.set_yticks(ticks, [str(name) for name in share.index])
    axes.set_ylim(max(len(share), GROUP_SLOTS) - 0.5, -0.5)
    axes.grid(visible=False, axis="y")
    percent(axes.xaxis)


def curves_along_labels(points: pd.DataFrame, arms: Sequence[str]) -> Figure:
    """UAR in per cent along labels, mean with a band of one standard deviation."""
    figure = Figure(figsize=(8.2, 4.2), layout="constrained")
    axes = tidy(figure.subplots(), "labels", "Test UAR, %")
    for arm in arms:
        own, (colour, marker, line) = points[points["arm"] == arm], arm_styles(arms)[arm]
        x, y, std = own["labels"], own["uar"], own["uar_std"]
        axes.fill_between(x, y - std, y + std, color=colour, alpha=0.14, linewidth=0)
        axes.plot(x, y, color=colour, marker=marker, linestyle=line, linewidth=2, markersize=6, label=arm)
    axes.legend(frameon=False, loc="center left", bbox_to_anchor=(1.0, 0.5), labelcolor=INK)
    return figure


def uncertainty_of_picks(picks: pd.DataFrame, arms: Sequence[str]) -> Figure:
    """Uncertainty of the model before about every pick, by round, one panel an arm."""
    figure = Figure(figsize=(3.0 * len(arms) + 0.8, 3.2), layout="constrained")
    for axes, arm in zip(figure.subplots(1, len(arms), sharey=True, squeeze=False)[0], arms, strict=True):
        own, (colour, marker, _) = picks[picks["arm"] == arm], arm_styles(arms)[arm]
        tidy(axes, "round", "uncertainty before, %").set_title(arm, color=INK, fontsize=11, fontweight="bold")
        axes.scatter(own["round"], own["uncertainty"], color=colour, marker=marker, s=16, alpha=0.6, linewidths=0)
        axes.xaxis.set_major_locator(MaxNLocator(integer=True))
    return figure


def picked_quality(shares: pd.DataFrame) -> Figure:
    """Signal-to-noise ratio of the picks against that of the pool (shares.snr_shares)."""
    figure = Figure(figsize=(7.2, 3.4), layout="constrained")
    axes = tidy(figure.subplots(), "SNR, dB", "share of utterances")
    if shares.empty:
        axes.text(0.5, 0.5, "no SNR was measured", ha="center", color=MUTED, transform=axes.transAxes)
        return figure
    arms = arms_in(shares)
    for name in (POOL, *arms):
        own = shares[shares["arm"] == name]
        edges = [*own["low"], own["high"].iloc[-1]]
        if name == POOL:
            axes.stairs(own["share"], edges, fill=True, color="#d5d9e0", label=POOL)
            continue
        colour, _, line = arm_styles(arms)[name]
        axes.stairs(own["share"], edges, color=colour, linestyle=line, linewidth=2, label=f"picked by {name}")
    percent(axes.yaxis)
    axes.legend(frameon=False, loc="center left", bbox_to_anchor=(1.0, 0.5), labelcolor=INK)
    return figure


def time_by_phase(seconds: pd.DataFrame) -> Figure:
    """Mean seconds of a trajectory, one bar an arm (a row), by phase (a column)."""
    figure = Figure(figsize=(7.2, 0.55 * len(seconds) + 1.5), layout="constrained")
    axes = tidy(figure.subplots(), "seconds per trajectory, all rounds", "")
    ticks, base = np.arange(len(seconds)), np.zeros(len(seconds))
    for index, phase in enumerate(seconds.columns):
        width = seconds[phase].to_numpy(dtype=np.float64)
        axes.barh(ticks, width, 0.62, left=base, label=phase, **hatched(index))
        base += width
    axes.set_yticks(ticks, list(seconds.index))
    axes.invert_yaxis()
    axes.grid(visible=False, axis="y")
    axes.xaxis.set_major_locator(MaxNLocator(nbins=7))
    axes.legend(frameon=False, loc="center left", bbox_to_anchor=(1.0, 0.5), labelcolor=INK)
    return figure


def title_of(measure: str) -> str:
    """A measure's name as it is read, with its unit: `snr_db` -> `SNR, dB`."""
    for end, unit in UNITS.items():
        if measure.endswith(end):
            return f"{measure.removesuffix(end).replace('snr', 'SNR').replace('_', ' ')}, {unit}"
    return measure.replace("_", " ")


def pool_measures(measures: Mapping[str, pa.ChunkedArray]) -> Figure:
    """A histogram of every measure, with a line at its median."""
    down = max(1, -(-len(measures) // ACROSS))
    figure = Figure(figsize=(11.2, 2.1 * down + 0.2), layout="constrained")
    panels = figure.subplots(down, ACROSS, squeeze=False).flatten()
    for axes, (name, column) in zip(panels, measures.items(), strict=False):
        value_N = np.asarray(column, dtype=np.float64)
        tidy(axes, title_of(name), "utterances" if axes in panels[::ACROSS] else "")
        axes.hist(value_N, BINS, color=PALETTE[0])
        axes.axvline(float(np.median(value_N)), color=RANDOM_STYLE[0], linewidth=1.5)
        axes.xaxis.set_major_locator(MaxNLocator(nbins=5))
        axes.ticklabel_format(axis="x", scilimits=(-3, 4))
        axes.yaxis.set_major_locator(MaxNLocator(nbins=4, integer=True))
    for axes in panels[len(measures) :]:
        axes.set_visible(False)
    return figure


def languages_and_speakers(hours: Mapping[str, float], per_speaker: Sequence[int]) -> Figure:
    """Hours by language, and how many utterances the speakers have, the most talkative first."""
    figure = Figure(figsize=(9.6, 3.4), layout="constrained")
    by_language, by_speaker = figure.subplots(1, 2)
    _bars(tidy(by_language, "hours", ""), hours)
    tidy(by_speaker, "speakers, the most talkative first", "utterances")
    if per_speaker:
        count = np.sort(np.asarray(per_speaker))[::-1]
        by_speaker.step(np.arange(1, len(count) + 1), count, where="mid", color=PALETTE[0], linewidth=2)
        by_speaker.set_ylim(bottom=0)
        by_speaker.xaxis.set_major_locator(MaxNLocator(nbins=6, integer=True))
    else:
        by_speaker.text(0.5, 0.5, "no speaker is known", ha="center", color=MUTED, transform=by_speaker.transAxes)
    return figure


def class_counts(of: Mapping[str, float], label: str) -> Figure:
    """Horizontal bars, the largest first."""
    figure = Figure(figsize=(7.2, 0.9 + 0.32 * min(len(of), GROUPS_SHOWN + 1)), layout="constrained")
    _bars(tidy(figure.subplots(), label, ""), of)
    return figure


def _bars(axes: Axes, of: Mapping[str, float]) -> None:
    ordered = sorted(of.items(), key=lambda item: (-item[1], item[0]))
    bars = ordered[:GROUPS_SHOWN]
    if others := ordered[GROUPS_SHOWN:]:
        bars.append((f"{len(others)} others", sum(value for _, value in others)))
    axes.barh(np.arange(len(bars)), [value for _, value in bars], 0.62, color=PALETTE[0])
    axes.set_yticks(np.arange(len(bars)), [name for name, _ in bars], color=INK)
    axes.set_ylim(max(len(bars), GROUP_SLOTS) - 0.5, -0.5)
    axes.grid(visible=False, axis="y")
