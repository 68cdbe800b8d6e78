"""The report's section on people: who labelled how much and how well, what they confuse, and which labels to doubt."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import closing
from dataclasses import asdict, fields

import pandas as pd
import pyarrow as pa

from seral.labels.agreement import PersonReport, agreement, person_reports
from seral.labels.drift import Drift, coincidence_matrix, confused_pairs, drifts
from seral.labels.ledger import Ledger
from seral.loop.relabel import doubts_of, ledger_of
from seral.report import figures
from seral.report.page import Picture, Section, Table, duration, number

SHOWN = 20
CERTAIN = 0.05
"""Chance of a trend in anybody's answers where there is none, from which on it is marked."""


def label_section(run: str) -> Section:
    """The section of a run that asks people. Raises LabelError for one that asks the oracle."""
    with closing(Ledger(ledger_of(run))) as ledger:
        answers, project = ledger.answers(), ledger.project
    classes = project.classes
    people, doubts = people_frame(answers, classes), doubts_of(run).to_pandas()
    alpha_of = agreement(answers, classes, project.dimensions)
    alphas = pd.DataFrame([{"of": name, **asdict(alpha)} for name, alpha in alpha_of.items()])
    return Section(
        frames={"people": people, "agreement": alphas, "doubts": doubts},
        tables={"people": people_table(people), "agreement": agreement_table(alphas), "doubts": doubts_table(doubts)},
        pictures=_pictures(answers, classes),
    )


def people_frame(answers: pa.Table, classes: Sequence[str]) -> pd.DataFrame:
    """One row a person: their report and the trend of their agreement."""
    tables = ((PersonReport, person_reports(answers, classes)), (Drift, drifts(answers, classes)))
    reports, trends = (
        pd.DataFrame([asdict(row) for row in rows], columns=[field.name for field in fields(kind)])
        for kind, rows in tables
    )
    return reports.drop(columns="confusion").merge(trends.drop(columns="compared"), on="person", how="left")


def people_table(people: pd.DataFrame) -> Table:
    """Work and agreement by person."""
    columns = ["person", "answers", "passed", "unusable", "time", "agreement", "over time", "on checks", "estimate"]
    rows = [
        [
            str(row["person"]),
            *(number(row[name], 0) for name in ("answers", "skipped", "unusable")),
            "–" if pd.isna(row["seconds"]) else duration(row["seconds"]),
            _share(row["agreement"]),
            _trend(row["early"], row["late"], row["p"], len(people)),
            "–" if pd.isna(row["check_accuracy"]) else f"{_share(row['check_accuracy'])} of {row['checks']}",
            _share(row["accuracy"]),
        ]
        for row in people.to_dict("records")
    ]
    caption = (
        "Time is the median for a clip. Agreement is with what most of the others said of the same clip, and over "
        f"time, in the first and the second half; * where it rises or falls (Mann's test, chance {CERTAIN:.0%} over "
        "all people). The estimate is of being right, by Dawid and Skene's model of all answers."
    )
    return Table(caption=caption, columns=columns, rows=rows)


def agreement_table(alphas: pd.DataFrame) -> Table:
    """Krippendorff's alpha of all classes, of each against the rest, and of ratings."""
    rows = [
        [
            "all classes" if row["of"] == "emotion" else str(row["of"]),
            number(row["alpha"], 2),
            "–" if pd.isna(row["low"]) else f"{row['low']:.2f} to {row['high']:.2f}",
            number(row["utterances"], 0),
        ]
        for row in alphas.to_dict("records")
    ]
    caption = "Krippendorff's alpha: 1 = people agree, 0 = as by chance; a class is judged against the rest."
    return Table(
        caption=caption, columns=["class or rating", "alpha", "95 % interval", "clips heard by several"], rows=rows
    )


def doubts_table(doubts: pd.DataFrame) -> Table:
    """The strongest doubts."""
    names = ["label", "suggested", "other_id"]
    rows = [
        [str(row["utterance_id"]), row["reason"], number(row["score"], 2), *(row[name] or "–" for name in names)]
        for row in doubts.head(SHOWN).astype(object).where(doubts.notna(), None).to_dict("records")
    ]
    caption = (
        f"{len(rows)} of {len(doubts)} doubts, the strongest first; doubts.csv has all. The score is the share of what "
        "is known that speaks against the label."
    )
    return Table(caption=caption, columns=["utterance", "reason", "score", "label", "rather", "copy"], rows=rows)


def _pictures(answers: pa.Table, classes: Sequence[str]) -> dict[str, Picture]:
    together_CC = coincidence_matrix(answers, classes)
    if not together_CC.any():
        return {}
    pairs = confused_pairs(together_CC, classes)[:3]
    hardest = ", ".join(f"{pair.one} and {pair.other} ({pair.share:.0%})" for pair in pairs)
    caption = "Of the clips of which one person says the class of the row, what another says; and pairs of answers."
    if pairs:
        caption += f" Hardest to tell apart: {hardest}; 50 % would be chance between the two."
    picture = Picture(
        figure=figures.answer_pairs(together_CC, classes),
        alt=f"Heat map of the classes two people say of the same clip. Hardest to tell apart: {hardest or 'none'}.",
        caption=caption,
    )
    return {"said_together": picture}


def _share(value: float | None) -> str:
    return "–" if pd.isna(value) else f"{100 * float(value or 0):.0f} %"


def _trend(early: float | None, late: float | None, p: float | None, people: int) -> str:
    if pd.isna(early) or pd.isna(late):
        return "–"
    mark = " *" if p is not None and p * people < CERTAIN else ""
    return f"{_share(early)} → {_share(late)}{mark}"
