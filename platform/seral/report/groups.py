"""Results by speaker, class, fold, corpus, language and sex, each with a 95 % interval."""

# G groups (speakers, or clips where there is one speaker) · R repeats (seeds) · C classes
from __future__ import annotations

from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from ser_models.intervals import jackknife_interval
from seral.report import page

GROUPINGS = {
    "class": "truth",
    "speaker": "speaker",
    "fold": "fold",
    "corpus": "corpus",
    "language": "language",
    "sex": "gender",
}
"""Heading of a table of groups -> the column of judged clips."""


def results_by_group(judged: pd.DataFrame, classes: list[str]) -> pd.DataFrame:
    """One row an arm and group: by, group, clips, speakers, uar, uar_low, uar_high, wa, wa_low, wa_high; as shares.

    Groupings with a single group are left out: they say what the headline says.
    """
    rows = []
    for by, column in GROUPINGS.items():
        if judged[column].nunique() < 2:
            continue
        for (arm, group), own in judged.groupby(["arm", column], sort=True, observed=True):
            facts = {"by": by, "arm": arm, "group": str(group), "clips": own["utterance_id"].nunique()}
            rows.append(facts | {"speakers": own["speaker"].nunique()} | _scores(own, classes))
    return pd.DataFrame(rows, columns=["by", "arm", "group", "clips", "speakers", *SCORES])


SCORES = ["uar", "uar_low", "uar_high", "wa", "wa_low", "wa_high"]


def _scores(own: pd.DataFrame, classes: list[str]) -> dict[str, float]:
    """UAR and WA of a group's clips with their intervals, means over seeds."""
    unit_N, _ = pd.factorize(own["speaker" if own["speaker"].nunique() > 1 else "utterance_id"], sort=True)
    seed_N, seeds = pd.factorize(own["seed"], sort=True)
    truth_N, predicted_N = (pd.Categorical(own[name], classes).codes for name in ("truth", "predicted"))
    named_N = unit_N >= 0  # the clips of unknown speakers count, but cannot be left out as one's
    whole_RCC = np.zeros((len(seeds), len(classes), len(classes)))
    np.add.at(whole_RCC, (seed_N, truth_N, predicted_N), 1)
    part_GRCC = np.zeros((int(unit_N.max()) + 1, *whole_RCC.shape))
    np.add.at(part_GRCC, (unit_N[named_N], seed_N[named_N], truth_N[named_N], predicted_N[named_N]), 1)
    scores: dict[str, float] = {}
    for name, metric in (("uar", _uar), ("wa", _wa)):
        value = float(np.nanmean(metric(whole_RCC)))
        low, high, _ = jackknife_interval(value, _mean_of_seeds(metric(whole_RCC - part_GRCC)))
        scores |= {name: value, f"{name}_low": float(np.maximum(low, 0)), f"{name}_high": float(np.minimum(high, 1))}
    return scores


def _mean_of_seeds(value_GR: NDArray[np.float64]) -> NDArray[np.float64]:
    """Means over the seeds that have clips without a unit; units without whom nothing is left are no units."""
    some_G = np.isfinite(value_GR).any(1)
    mean_G: NDArray[np.float64] = np.nanmean(value_GR[some_G], axis=1) if some_G.any() else np.empty(0)
    return mean_G


def _uar(confusion: NDArray[np.float64]) -> NDArray[np.float64]:
    """Mean recall of the classes that there are, of matrices (..., C, C); NaN without a clip."""
    total = confusion.sum(-1)
    recall = np.divide(confusion.diagonal(axis1=-2, axis2=-1), total, out=np.zeros_like(total), where=total > 0)
    return _divided(recall.sum(-1), (total > 0).sum(-1))


def _wa(confusion: NDArray[np.float64]) -> NDArray[np.float64]:
    """Share of right answers, of matrices (..., C, C); NaN without a clip."""
    return _divided(confusion.trace(axis1=-2, axis2=-1), confusion.sum((-2, -1)))


def _divided(numerator: NDArray[Any], denominator: NDArray[Any]) -> NDArray[np.float64]:
    nothing = np.full(np.shape(numerator), np.nan)
    np.divide(numerator, denominator, out=nothing, where=np.asarray(denominator) > 0)
    return nothing


def group_tables(results: pd.DataFrame) -> dict[str, page.Table]:
    """Heading of a grouping -> its table, the lowest score of an arm first."""
    tables = {}
    for by, own in results.groupby("by", sort=False):
        score = "recall %" if by == "class" else "UAR %"
        ordered = own.sort_values(["arm", "uar", "group"], kind="stable")
        rows = [
            [
                row["arm"],
                row["group"],
                f"{row['clips']:,}",
                *([] if by == "speaker" else [f"{row['speakers']:,}"]),
                *page.with_interval(row, "uar"),
                *([] if by == "class" else page.with_interval(row, "wa")),
            ]
            for row in ordered.to_dict("records")
        ]
        columns = ["arm", str(by), "clips", *([] if by == "speaker" else ["speakers"]), score, "95 % interval"]
        columns += [] if by == "class" else ["WA %", "95 % interval"]
        tables[str(by)] = page.Table(caption=f"By {by}, the lowest first.", columns=columns, rows=rows)
    return tables
