"""The part of a report that is about ratings: CCC over labels, true and predicted values, calibration by speaker."""

# G groups (speakers) · K rated dimensions · R repeats (trajectories)
from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import pandas as pd
from matplotlib.figure import Figure
from numpy.typing import NDArray

from ser_models.intervals import jackknife_interval
from ser_models.metrics import ccc_of_sums, sums_of_pairs
from seral.figures.axes import INK, MUTED, PALETTE, tidy
from seral.report import page
from seral.report.comparison import last_rounds
from seral.report.figures import arm_styles
from seral.report.records import RunRecords
from seral.schema import FULL, KEYS, RANDOM
from seral.task.groups import ccc_without_speakers

Frames = Mapping[str, pd.DataFrame]
CURVES_CAPTION = (
    "CCC of the rated test clips, on average over folds and seeds; the band is the 95 % interval over test speakers "
    "(jackknife, Student's t). The grey level is all labels."
)
SPEAKERS_CAPTION = (
    "Calibration of {} at the last round by test speaker, seeds averaged: bias is the mean of predicted less true "
    "ratings; slope is that of the true ratings on the predicted ones, 1 where a difference predicted is one that is."
)


def add_to(
    records: RunRecords, frames: Frames, pictures: Mapping[str, page.Picture], tables: Mapping[str, page.Table]
) -> tuple[dict[str, pd.DataFrame], dict[str, page.Picture], dict[str, page.Table]]:
    """Frames, pictures and tables of a report with those of its ratings."""
    curves, speakers, arm = ccc_curves(records), by_speaker(records, records.arms[0]), records.arms[0]
    means = curves[curves["dimension"] == "mean"].groupby("arm").tail(1)
    reached = ", ".join(f"{row['arm']} {row['ccc']:.3f}" for row in means.to_dict("records"))
    return (
        {**frames, "ccc_curves": curves, "ccc_gains": ccc_gains(records), "speakers": speakers},
        {
            **pictures,
            "ccc_curves": page.Picture(
                figure=curves_figure(records, curves),
                alt=f"Line charts of test CCC against the share of labels. Mean CCC at the last round: {reached}.",
                caption=CURVES_CAPTION,
            ),
            "true_and_predicted": page.Picture(
                figure=true_and_predicted(records),
                alt="Scatter plots of predicted against true ratings of the test clips; the table below is by speaker.",
                caption="Test clips at the last round, all folds with the first seed; on the line both are the same.",
            ),
        },
        {**tables, "speakers": speakers_table(speakers, arm)},
    )


def ccc_curves(records: RunRecords) -> pd.DataFrame:
    """One row an arm, round and dimension, `mean` the mean over them: labelled, fraction, ccc, low and high."""
    rows = []
    for (arm, number), ratings in records.ratings.groupby(["arm", "round"], sort=True):
        value_K, without_GK = ccc_without_speakers(ratings, records.dimensions)
        value, without_G = np.append(value_K, value_K.mean()), np.c_[without_GK, without_GK.mean(1)]
        low, high, _ = jackknife_interval(value, without_G)
        own = records.rounds[(records.rounds["arm"] == arm) & (records.rounds["round"] == number)]
        facts = {"arm": arm, "round": number, **own[["labelled", "fraction"]].mean().to_dict()}
        for at, name in enumerate([*records.dimensions, "mean"]):
            rows.append({**facts, "dimension": name, "ccc": value[at], "low": low[at], "high": high[at]})
    return pd.DataFrame(rows)


def ccc_gains(records: RunRecords) -> pd.DataFrame:
    """Mean CCC of each arm less that of random on the same test clips: gain, low, high and p over test speakers.

    One row an arm and round that both have, and one of the mean over these, whose round is empty.
    """
    rows = []
    arms = [arm for arm in records.arms if arm not in {FULL, RANDOM}] if RANDOM in records.arms else []
    for arm in arms:
        own, base = (_mean_ccc_by_round(records, name) for name in (arm, RANDOM))
        numbers = sorted(own.keys() & base.keys())
        gains = {number: own[number] - base[number] for number in numbers}
        for number, gain_G in [*gains.items(), (None, np.mean(list(gains.values()), axis=0))]:
            low, high, p = jackknife_interval(gain_G[0], gain_G[1:])
            facts = {"arm": arm, "round": number, "gain": float(gain_G[0])}
            rows.append(facts | {"low": float(low), "high": float(high), "p": float(p)})
    return pd.DataFrame(rows, columns=["arm", "round", "gain", "low", "high", "p"])


def _mean_ccc_by_round(records: RunRecords, arm: str) -> dict[int, NDArray[np.float64]]:
    """Round -> the mean CCC of an arm, and after it that without each speaker, (1 + G,)."""
    by_round = records.ratings[records.ratings["arm"] == arm].groupby("round", sort=True)
    both = {int(str(number)): ccc_without_speakers(own, records.dimensions) for number, own in by_round}
    return {number: np.append(value_K.mean(), without_GK.mean(1)) for number, (value_K, without_GK) in both.items()}


def by_speaker(records: RunRecords, arm: str) -> pd.DataFrame:
    """One row a test speaker and dimension at an arm's last round: clips, bias, slope and ccc, means over seeds."""
    rows = []
    for (speaker, seed), own in last_ratings(records, arm).groupby(["speaker", "seed"], sort=True):
        for name in records.dimensions:
            true, predicted = (own[f"{kind}_{name}"].to_numpy(np.float64) for kind in ("true", "predicted"))
            facts = {"speaker": speaker, "dimension": name, "seed": seed, "clips": len(own)}
            varies = len(own) > 1 and predicted.std() > 0
            slope = float(np.cov(true, predicted)[0, 1] / predicted.var(ddof=1)) if varies else np.nan
            ccc = float(ccc_of_sums(sums_of_pairs(true[:, None], predicted[:, None]))[0]) if varies else np.nan
            rows.append({**facts, "bias": float((predicted - true).mean()), "slope": slope, "ccc": ccc})
    frame = pd.DataFrame(rows).groupby(["speaker", "dimension"], sort=False, as_index=False)
    return frame[["clips", "bias", "slope", "ccc"]].mean()


def last_ratings(records: RunRecords, arm: str) -> pd.DataFrame:
    """Ratings of the last round of an arm's trajectories."""
    last = last_rounds(records.rounds)[[*KEYS, "round"]]
    return records.ratings[records.ratings["arm"] == arm].merge(last, on=[*KEYS, "round"])


def speakers_table(speakers: pd.DataFrame, arm: str) -> page.Table:
    """Calibration by speaker as it is shown."""
    rows = [
        [
            f"{row['speaker']}, {row['dimension']}",
            page.number(row["clips"], 0),
            page.number(row["bias"], 2),
            page.number(row["slope"], 2),
            page.number(row["ccc"], 3),
        ]
        for row in speakers.to_dict("records")
    ]
    columns = ["speaker, dimension", "clips", "bias", "slope", "CCC"]
    return page.Table(caption=SPEAKERS_CAPTION.format(arm), columns=columns, rows=rows)


def curves_figure(records: RunRecords, curves: pd.DataFrame) -> Figure:
    """CCC against the share of labels with its interval, the mean and a panel a dimension; all labels as a level."""
    names = ["mean", *records.dimensions] if len(records.dimensions) > 1 else records.dimensions
    figure = Figure(figsize=(3.4 * len(names) + 1.4, 3.6), layout="constrained")
    panels, styles = figure.subplots(1, len(names), sharey=True, squeeze=False)[0], arm_styles(records.arms)
    for axes, name in zip(panels, names, strict=True):
        tidy(axes, "Labels, share of the training part", "Test CCC" if axes is panels[0] else "")
        axes.set_title(name, color=INK, fontsize=11, fontweight="bold")
        for arm in records.arms:
            own = curves[(curves["arm"] == arm) & (curves["dimension"] == name)]
            if arm == FULL:
                axes.axhline(own["ccc"].iloc[-1], color=MUTED, linewidth=1.5, linestyle=":", label="all labels")
                continue
            colour, marker, line = styles[arm]
            axes.fill_between(own["fraction"], own["low"], own["high"], color=colour, alpha=0.14, linewidth=0)
            look = {"color": colour, "marker": marker, "linestyle": line, "linewidth": 2, "markersize": 6}
            axes.plot(own["fraction"], own["ccc"], label=arm, **look)
    panels[-1].legend(frameon=False, loc="center left", bbox_to_anchor=(1.0, 0.5), labelcolor=INK)
    return figure


def true_and_predicted(records: RunRecords) -> Figure:
    """Predicted against true ratings of the test clips, a row an arm and a column a dimension."""
    down, across = len(records.arms), len(records.dimensions)
    figure = Figure(figsize=(3.2 * across + 0.6, 3.0 * down + 0.3), layout="constrained")
    panels = figure.subplots(down, across, squeeze=False)
    for row, arm in enumerate(records.arms):
        ratings = last_ratings(records, arm)
        ratings = ratings[ratings["seed"] == ratings["seed"].min()]
        for column, name in enumerate(records.dimensions):
            axes = tidy(panels[row, column], f"true {name}" if row == down - 1 else "", f"predicted, {arm}")
            true, predicted = ratings[f"true_{name}"], ratings[f"predicted_{name}"]
            ends = [float(min(true.min(), predicted.min())), float(max(true.max(), predicted.max()))]
            axes.plot(ends, ends, color=MUTED, linewidth=1)
            axes.scatter(true, predicted, s=8, color=PALETTE[0], alpha=0.5, linewidths=0)
    return figure
