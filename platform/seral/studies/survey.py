"""A survey of strategies: one study on many pools and encoders, clean and with junk, summed up.

RUN/<encoder>.<pool>.<clean|junk>/           a study each (seral.studies.strategies), computed once
RUN/summary.csv, summary.md, summary.png     gain on random by situation, mean over the studies
"""

# B budgets · G groups (speakers)
from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import pandas as pd

from ser_models.intervals import jackknife_interval
from seral import storage
from seral.progress import say
from seral.studies.options import BASELINE, StrategyStudyOptions, StrategySurveyOptions
from seral.studies.strategies import SpeakerCurves, area, gain, learning_curves, speaker_curves, write_tables
from seral.task.cells import Results, write_table
from seral.task.run import claim

MAY_CHANGE = {"run", "encoders", "pools", "junk", "study"}
"""Options a resumed survey may be given anew: every study guards its own."""
SMALL = 0.1
"""Share of the training part up to which a budget is small."""


def run_strategy_survey(options: StrategySurveyOptions) -> str:
    """Run what is missing of every study and sum them up; returns the summary as Markdown."""
    options = options.model_copy(update={"run": storage.absolute(options.run)})
    claim(options, "strategy-survey", MAY_CHANGE)
    studies = options.studies()
    gains = []
    for number, ((encoder, name, noisy), study) in enumerate(studies.items(), 1):
        say(f"study {number} of {len(studies)}: {encoder}, {name}{', with junk' if noisy else ''}")
        results = learning_curves(study)
        curves = speaker_curves(study, results)
        write_tables(study, results, curves)
        gains += situation_gains(study, results, curves)
    return _write(options, summary(gains))


def situations(study: StrategyStudyOptions) -> dict[str, slice]:
    """Situation -> its part of the budgets: the first alone, up to SMALL, from the last of these on."""
    small = sum(share <= SMALL for share in study.budgets)
    parts = {"cold start": slice(0, 1), "small budget": slice(0, small), "large budget": slice(max(0, small - 1), None)}
    noisy = "noisy, " if study.junk else ""
    return {noisy + name: part for name, part in parts.items() if study.budgets[part]}


def situation_gains(
    study: StrategyStudyOptions, results: Results, curves: Mapping[str, SpeakerCurves]
) -> list[dict[str, Any]]:
    """A line for every row and situation of a study: the gain on random, over all clips and without each speaker."""
    lines = []
    for situation, part in situations(study).items():
        share_B = study.budgets[part]
        for row in study.rows:
            own, base = curves[row.row], curves[BASELINE]
            lines.append(
                {
                    "row": row.row,
                    "situation": situation,
                    "gain": gain(results, row.row, study.budgets, part),
                    "whole": float(area((own.whole_B - base.whole_B)[part], share_B)),
                    "without": own.gain_without(base, study.budgets, part),
                }
            )
    return lines


def summary(gains: list[dict[str, Any]]) -> pd.DataFrame:
    """A line a row and situation: mean gain over the studies, its interval over speakers, how often it is better."""
    lines = []
    for (situation, row), group in pd.DataFrame(gains).groupby(["situation", "row"], sort=False):
        # A speaker is left out of all studies that test this voice at once.
        studies = list(zip(group["whole"], group["without"], strict=True))
        speakers = sorted({speaker for _, without in studies for speaker in without})
        without_G = np.array([np.mean([own.get(name, whole) for whole, own in studies]) for name in speakers])
        low, high, p = (float(x) for x in jackknife_interval(group["gain"].mean(), without_G))
        lines.append(
            {
                "situation": situation,
                "row": row,
                "gain": group["gain"].mean(),
                "gain_low": low,
                "gain_high": high,
                "gain_p": p,
                "speakers": len(speakers),
                "better_in": int((group["gain"] > 0).sum()),
                "studies": len(group),
            }
        )
    return pd.DataFrame(lines)


def _write(options: StrategySurveyOptions, table: pd.DataFrame) -> str:
    from seral.figures.studies import strategy_gains

    others = table[table["row"] != BASELINE]
    wide: dict[str, dict[str, Any]] = {}
    for line in others.to_dict("records"):
        situation = line["situation"]
        wide.setdefault(line["row"], {"row": line["row"]}).update(
            {f"{situation} gain{end}": line[f"gain{end}"] for end in ("", "_low", "_high")}
            | {f"{situation} better in": f"{line['better_in']}/{line['studies']}"}
        )
    shown = pd.DataFrame(list(wide.values()))
    return write_table(options.run, table, "summary", shown=shown, figure=strategy_gains(others))
