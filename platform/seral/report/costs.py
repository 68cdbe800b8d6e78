"""Labels, minutes and money of annotators against the scores that they bought."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import closing

import numpy as np
import pandas as pd

from ser_models.intervals import mean_interval
from seral.labels.ledger import Ledger
from seral.loop.relabel import ledger_of
from seral.report import page
from seral.report.comparison import METRICS
from seral.report.records import RunRecords
from seral.schema import KEYS

CAPTION = (
    "Each arm's rounds, means over folds and seeds; 95 % intervals are Student's t over folds. Minutes are those {}. {}"
)


def with_costs(records: RunRecords, per_label: float, per_hour: float) -> pd.DataFrame:
    """The rounds with `minutes` and `money` of annotators up to each: measured ones where people answered.

    `money` is labels times the price of one, and hours times the price of one, in whatever currency; NaN without a
    price, and where an hour has one and minutes are unknown.
    """
    rounds = records.rounds.copy()
    if records.asks_people:
        with closing(Ledger(ledger_of(records.run))) as ledger:
            answers = ledger.answers().select(["utterance_id", "seconds"]).to_pandas()
        seconds_of = answers.groupby("utterance_id")["seconds"].sum()
        spent = records.answers.assign(minutes=records.answers["utterance_id"].map(seconds_of).fillna(0) / 60)
        by_round = spent.groupby([*KEYS, "round"])["minutes"].sum().groupby(KEYS).cumsum()
        rounds = rounds.drop(columns="minutes").join(by_round, on=[*KEYS, "round"])
    priced = per_label > 0 or per_hour > 0
    hours = rounds["minutes"] / 60 if per_hour else 0.0
    rounds["money"] = per_label * rounds["labelled"] + per_hour * hours if priced else np.nan
    return rounds


def points(rounds: pd.DataFrame, further: Sequence[str] = ()) -> pd.DataFrame:
    """One row an arm and round: labels, share (per cent), minutes, money, trajectories, and the mean and deviation of
    each metric, those of classes in per cent, `further` ones as they are; NAME_low and NAME_high are the interval over
    folds of UAR and of further ones."""
    by_round = rounds.groupby(["arm", "round"])
    costs = by_round[["labelled", "fraction", "minutes", "money"]].mean().rename(columns={"labelled": "labels"})
    costs["share"] = 100 * costs.pop("fraction")
    metrics = [*METRICS, *further]
    scale = pd.Series({name: page.scale_of(name)[0] for name in metrics})
    means = by_round[metrics].mean() * scale
    stds = (by_round[metrics].std(ddof=1) * scale).fillna(0.0).add_suffix("_std")
    intervals = [_over_folds(scale[name] * rounds[name], rounds) for name in ("uar", *further)]
    return costs.join([means, stds, *intervals]).assign(trajectories=by_round.size()).reset_index()


def _over_folds(score: pd.Series, rounds: pd.DataFrame) -> pd.DataFrame:
    """Ends of the interval of a score over folds by arm and round, as NAME_low and NAME_high."""
    of_folds = score.groupby([rounds["arm"], rounds["round"], rounds["fold"]]).mean().groupby(["arm", "round"])
    ends = of_folds.apply(lambda own: mean_interval(own.to_numpy(np.float64))[:2])
    return pd.DataFrame(ends.tolist(), index=ends.index, columns=[f"{score.name}_low", f"{score.name}_high"])


def cost_table(
    frame: pd.DataFrame, asks_people: bool, per_label: float, per_hour: float, further: Sequence[str] = ()
) -> page.Table:
    """Costs, UAR and further metrics by arm and round."""
    columns = {"labels": ("labels", 0), "minutes": ("minutes", 1), "money": ("money", 2)}
    shown = {words: of for words, of in columns.items() if frame[of[0]].notna().any()}
    rows = [
        [
            str(row["arm"]),
            str(row["round"]),
            *(page.number(row[name], digits) for name, digits in shown.values()),
            *(cell for name in ("uar", *further) for cell in page.with_interval(row, name, scale=1)),
        ]
        for row in frame.to_dict("records")
    ]
    whose = "that people took, by the ledger" if asks_people else "an annotator would take, at the pace of the run"
    money = f"Money: {per_label:g} a label and {per_hour:g} an hour."
    caption = CAPTION.format(whose, money if "money" in shown else "Give price_per_label or price_per_hour for money.")
    scores = (column for name in ("uar", *further) for column in (METRICS.get(name, name), "95 % interval"))
    return page.Table(caption=caption, columns=["arm", "round", *shown, *scores], rows=rows)
