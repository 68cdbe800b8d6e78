"""Figures of a pool: how its measures are spread, whose and in which language it is, why files were left out."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator
from numpy.typing import NDArray

from seral.figures.axes import GROUP_SLOTS, GROUPS_SHOWN, INK, MUTED, PALETTE, RANDOM_STYLE, tidy

ACROSS = 4
BINS = 30
UNITS = {"_db": "dB", "_s": "s", "_hz": "Hz"}
"""What the ends of a measure's name stand for."""


def title_of(measure: str) -> str:
    """A measure's name as it is read, with its unit: `snr_db` -> `SNR, dB`."""
    for end, unit in UNITS.items():
        if measure.endswith(end):
            return f"{measure.removesuffix(end).replace('snr', 'SNR').replace('_', ' ')}, {unit}"
    return measure.replace("_", " ")


def measures(values: Mapping[str, NDArray[np.float64]]) -> Figure:
    """A histogram of every measure, with a line at its median."""
    down = max(1, -(-len(values) // ACROSS))
    figure = Figure(figsize=(11.2, 2.1 * down + 0.2), layout="constrained")
    panels = figure.subplots(down, ACROSS, squeeze=False).flatten()
    for axes, (name, value_N) in zip(panels, values.items(), strict=False):
        tidy(axes, title_of(name), "utterances" if axes in panels[::ACROSS] else "")
        axes.hist(value_N, BINS, color=PALETTE[0])
        axes.axvline(float(np.median(value_N)), color=RANDOM_STYLE[0], linewidth=1.5)
        axes.xaxis.set_major_locator(MaxNLocator(nbins=5))
        axes.ticklabel_format(axis="x", scilimits=(-3, 4))
        axes.yaxis.set_major_locator(MaxNLocator(nbins=4, integer=True))
    for axes in panels[len(values) :]:
        axes.set_visible(False)
    return figure


def languages_and_speakers(hours: Mapping[str, float], per_speaker: Sequence[int]) -> Figure:
    """Hours by language, and how many utterances the speakers have, the most talkative first."""
    figure = Figure(figsize=(9.6, 3.4), layout="constrained")
    left, right = figure.subplots(1, 2)
    _bars(tidy(left, "hours", ""), hours)
    tidy(right, "speakers, the most talkative first", "utterances")
    if per_speaker:
        count = np.sort(np.asarray(per_speaker))[::-1]
        right.step(np.arange(1, len(count) + 1), count, where="mid", color=PALETTE[0], linewidth=2)
        right.set_ylim(bottom=0)
        right.xaxis.set_major_locator(MaxNLocator(nbins=6, integer=True))
    else:
        right.text(0.5, 0.5, "no speaker is known", ha="center", color=MUTED, transform=right.transAxes)
    return figure


def counts(of: Mapping[str, float], label: str) -> Figure:
    """Horizontal bars, the largest first."""
    figure = Figure(figsize=(7.2, 0.9 + 0.32 * min(len(of), GROUPS_SHOWN + 1)), layout="constrained")
    _bars(tidy(figure.subplots(), label, ""), of)
    return figure


def _bars(axes: Axes, of: Mapping[str, float]) -> None:
    ordered = sorted(of.items(), key=lambda item: (-item[1], item[0]))
    shown = ordered[:GROUPS_SHOWN]
    if rest := ordered[GROUPS_SHOWN:]:
        shown.append((f"{len(rest)} others", sum(value for _, value in rest)))
    axes.barh(np.arange(len(shown)), [value for _, value in shown], 0.62, color=PALETTE[0])
    axes.set_yticks(np.arange(len(shown)), [name for name, _ in shown], color=INK)
    axes.set_ylim(max(len(shown), GROUP_SLOTS) - 0.5, -0.5)
    axes.grid(visible=False, axis="y")
