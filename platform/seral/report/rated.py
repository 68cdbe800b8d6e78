"""The parts of a report that look into rated clips: curves, groups of clips, the largest errors, with clips to hear."""

# G groups (speakers) · K rated dimensions
from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import replace

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.compute as pc

from seral.report import charts, page
from seral.report.page import Picture, Section
from seral.report.ratings import ccc_curves, last_ratings
from seral.report.records import RunRecords
from seral.task.groups import GROUPINGS, mean_ccc

SHOWN = 40
"""Errors on the page."""
GROUPS_CAPTION = (
    "CCC by {}, the mean over dimensions and trajectories, the lowest first; the 95 % interval is over test speakers."
)
ERRORS_CAPTION = (
    "The {} of {:,} ratings of test clips of {} at the last round that lie furthest from the truth, beside how much "
    "the dimension varies; seeds averaged. A large error may be a wrong rating, a poor recording, or something that "
    "the model does not hear."
)


def rated_sections(records: RunRecords, metadata: pa.Table, drawn: Mapping[str, Picture]) -> Iterator[Section]:
    """Everything about ratings that needs the pool's metadata beside the run."""
    rated = _rated_clips(records, metadata)
    curves = replace(drawn["ccc_curves"], chart=charts.ccc_curves(ccc_curves(records), records.arms))
    names = ["utterance_id", "arm", "fold", "speaker", "dimension", "true", "predicted"]
    one_seed = _by_dimension(records, rated[rated["seed"] == rated["seed"].min()])[names]
    both = replace(
        drawn["true_and_predicted"], chart=charts.true_and_predicted(one_seed, records.arms, records.dimensions)
    )
    yield Section(pictures={"ccc_curves": curves, "true_and_predicted": both})
    groups = ccc_by_group(records, rated)
    yield Section(frames={"rating_groups": groups}, tables=_group_tables(groups))
    errors = largest_errors(records, rated)
    caption_of = {
        row["utterance_id"]: f"{row['dimension']} {row['true']:.2f}, told as {row['predicted']:.2f}"
        for row in errors.drop_duplicates("utterance_id").to_dict("records")
    }
    table = _errors_table(errors, records.arms[0])
    yield Section(frames={"rating_errors": errors}, tables={"rating_errors": table}, clips=caption_of)


def _rated_clips(records: RunRecords, metadata: pa.Table) -> pd.DataFrame:
    """The ratings of the last round of all arms, with corpus, language and gender of the clips."""
    frame = pd.concat([last_ratings(records, arm) for arm in records.arms], ignore_index=True)
    own = metadata.filter(pc.is_in(metadata["utterance_id"], pa.array(frame["utterance_id"].unique(), pa.string())))
    traits = own.select(["utterance_id", "corpus", "language", "gender"]).to_pandas()
    joined: pd.DataFrame = frame.merge(traits, on="utterance_id", how="left", validate="many_to_one")
    return joined


def _by_dimension(records: RunRecords, rated: pd.DataFrame) -> pd.DataFrame:
    """A row a clip and dimension: `dimension`, `true` and `predicted` instead of the columns of each."""
    parts = [
        rated.assign(dimension=name, true=rated[f"true_{name}"], predicted=rated[f"predicted_{name}"])
        for name in records.dimensions
    ]
    return pd.concat(parts, ignore_index=True)


def ccc_by_group(records: RunRecords, rated: pd.DataFrame) -> pd.DataFrame:
    """One row an arm and group: by, arm, group, clips, speakers, ccc, low, high. Groupings with one group are left out:
    they say what the headline says."""
    rows = []
    for by, column in GROUPINGS.items():
        if by == "speaker" or rated[column].nunique() < 2:  # speakers have a table of their own
            continue
        for (arm, group), own in rated.groupby(["arm", column], sort=True):
            value, low, high = mean_ccc(own, records.dimensions)
            facts = {"by": by, "arm": arm, "group": str(group), "clips": own["utterance_id"].nunique()}
            facts |= {"speakers": own["speaker"].nunique(), "ccc": value}
            rows.append(facts | {"low": float(np.maximum(low, -1)), "high": float(np.minimum(high, 1))})
    return pd.DataFrame(rows, columns=["by", "arm", "group", "clips", "speakers", "ccc", "low", "high"])


def _group_tables(groups: pd.DataFrame) -> dict[str, page.Table]:
    tables = {}
    for by, own in groups.groupby("by", sort=False):
        rows = [
            [
                row["arm"],
                row["group"],
                f"{row['clips']:,}",
                f"{row['speakers']:,}",
                page.number(row["ccc"], 3),
                "–" if pd.isna(row["low"]) else f"{row['low']:.3f} to {row['high']:.3f}",
            ]
            for row in own.sort_values(["arm", "ccc", "group"], kind="stable").to_dict("records")
        ]
        columns = ["arm", str(by), "clips", "speakers", "CCC", "95 % interval"]
        tables[f"ratings_by_{by}"] = page.Table(caption=GROUPS_CAPTION.format(by), columns=columns, rows=rows)
    return tables


def largest_errors(records: RunRecords, rated: pd.DataFrame) -> pd.DataFrame:
    """A row a test clip and dimension of the first arm, seeds averaged: utterance_id, dimension, fold, speaker, corpus,
    true, predicted, error (in the scale of the rating) and deviations (in standard deviations of the true ratings)."""
    facts = ["utterance_id", "dimension", "fold", "speaker", "corpus"]
    own = _by_dimension(records, rated[rated["arm"] == records.arms[0]])
    frame = own.groupby(facts, as_index=False, observed=True)[["true", "predicted"]].mean()
    frame["error"] = frame["predicted"] - frame["true"]
    spread = frame.groupby("dimension")["true"].transform("std")
    frame["deviations"] = (frame["error"].abs() / spread.where(spread > 0)).fillna(0.0)
    return frame.sort_values(["deviations", *facts], ascending=[False, *[True] * len(facts)], ignore_index=True)


def _errors_table(errors: pd.DataFrame, arm: str) -> page.Table:
    shown = errors.head(SHOWN)
    rows = [
        [
            row["utterance_id"],
            row["dimension"],
            *(page.number(row[name], 2) for name in ("true", "predicted", "error", "deviations")),
            str(row["fold"]),
            str(row["speaker"]),
        ]
        for row in shown.to_dict("records")
    ]
    columns = ["clip", "dimension", "true", "predicted", "error", "in deviations", "fold", "speaker"]
    caption = ERRORS_CAPTION.format(len(shown), len(errors), arm)
    return page.Table(caption=caption, columns=columns, rows=rows, clips=shown["utterance_id"].tolist())
