"""Results by speaker, class, fold, corpus, language and sex, each with a 95 % interval."""

# N clips
from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
import pandas as pd

from ser_models.metrics import METRICS, Metric
from ser_models.registry import PluginError
from seral.progress import say
from seral.report import page
from seral.report.comparison import METRICS as REPORTED
from seral.task.groups import GROUPINGS, grouped, mean_of_seeds, recalls


def runnable(names: Sequence[str]) -> dict[str, Metric]:
    """Metrics of other people's whose code is there and may run; the others are named and left out."""
    metrics = {}
    for name in names:
        try:
            metrics[name] = METRICS[name]
        except (KeyError, PluginError) as error:
            say(f"{name} is left out of the results by group: {error}")
    return metrics


def results_by_group(
    judged: pd.DataFrame, classes: list[str], further: Mapping[str, Metric] | None = None
) -> pd.DataFrame:
    """One row an arm and group: by, arm, group, clips, speakers, then uar, wa and `further` metrics of classes or of
    probabilities, each with its interval, NAME_low and NAME_high; those of ours as shares.

    Groupings with a single group are left out: they say what the headline says.
    """
    scores = {name: metric for name, metric in (further or {}).items() if metric.of != "ratings"}
    rows = []
    for by, column in ({"class": "truth"} | GROUPINGS).items():
        if judged[column].nunique() < 2:
            continue
        for arm, of_arm in judged.groupby("arm", sort=True):
            for group, own_N, speakers in grouped(of_arm, column):
                own = of_arm[own_N]
                facts = {"by": by, "arm": arm, "group": str(group), "clips": own["utterance_id"].nunique()}
                rows.append(facts | {"speakers": speakers} | _scores(own, classes) | _further(own, classes, scores))
    ends = [f"{name}{end}" for name in ("uar", "wa", *scores) for end in ("", "_low", "_high")]
    return pd.DataFrame(rows, columns=["by", "arm", "group", "clips", "speakers", *ends])


def _units(own: pd.DataFrame) -> pd.Series:
    """Whom to leave out in turn for an interval: speakers, or the clips of a single one."""
    return own["speaker" if own["speaker"].nunique() > 1 else "utterance_id"]


def _further(own: pd.DataFrame, classes: list[str], metrics: Mapping[str, Metric]) -> dict[str, float]:
    """Other people's metrics of a group's clips with their intervals, means over seeds."""
    shares = own[[f"p_{name}" for name in classes]].to_numpy(np.float64)
    predicted_N = pd.Categorical(own["predicted"], classes).codes.astype(np.int64)
    truth_N = pd.Categorical(own["truth"], classes).codes.astype(np.int64)
    unit_N, _ = pd.factorize(_units(own), sort=True)
    scores: dict[str, float] = {}
    for name, metric in metrics.items():
        outputs = shares if metric.of == "probabilities" else predicted_N
        ends = mean_of_seeds(metric.function, truth_N, outputs, own["seed"].to_numpy(), unit_N)
        scores |= dict(zip((name, f"{name}_low", f"{name}_high"), ends, strict=True))
    return scores


def _scores(own: pd.DataFrame, classes: list[str]) -> dict[str, float]:
    """UAR and WA of a group's clips with their intervals, means over seeds."""
    unit_N, _ = pd.factorize(_units(own), sort=True)
    truth_N, predicted_N = (pd.Categorical(own[name], classes).codes for name in ("truth", "predicted"))
    scores: dict[str, float] = {}
    for name, (value, low, high) in recalls(truth_N, predicted_N, own["seed"].to_numpy(), unit_N).items():
        scores |= {name: value, f"{name}_low": float(np.maximum(low, 0)), f"{name}_high": float(np.minimum(high, 1))}
    return scores


def group_tables(results: pd.DataFrame) -> dict[str, page.Table]:
    """Heading of a grouping -> its table, the lowest score of an arm first."""
    tables = {}
    scores = [name.removesuffix("_low") for name in results.columns if name.endswith("_low")]
    for by, own in results.groupby("by", sort=False):
        shown = [name for name in scores if by != "class" or name != "wa"]
        titles = REPORTED | {"uar": "recall %"} if by == "class" else REPORTED
        ordered = own.sort_values(["arm", "uar", "group"], kind="stable")
        rows = [
            [
                row["arm"],
                row["group"],
                f"{row['clips']:,}",
                *([] if by == "speaker" else [f"{row['speakers']:,}"]),
                *(cell for name in shown for cell in page.with_interval(row, name)),
            ]
            for row in ordered.to_dict("records")
        ]
        columns = ["arm", str(by), "clips", *([] if by == "speaker" else ["speakers"])]
        columns += [column for name in shown for column in (titles.get(name, name), "95 % interval")]
        tables[str(by)] = page.Table(caption=f"By {by}, the lowest first.", columns=columns, rows=rows)
    return tables
