"""The numbers of the report: curves, the headline, labels to a target, the paired difference to random."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.compute as pc

from ser_models.intervals import mean_interval, sign_flip_p
from seral.report.records import RunRecords
from seral.schema import FULL, KEYS, RANDOM

METRICS = {"uar": "UAR %", "wa": "WA %", "macro_f1": "macro-F1 %"}
"""Metrics of classes, shown in per cent, and their headings; other people's are shown as they are, by their names."""
FEW = 6
"""Folds below which the range of their differences is told beside the interval."""


@dataclass(frozen=True, kw_only=True)
class Difference:
    """One arm's final score minus that of another, usually random, over the folds and seeds that both have."""

    arm: str
    mean: float
    """Mean difference in UAR or in mean CCC."""
    low: float
    high: float
    """95 % interval (Student's t) of the mean over folds (over seeds when there is one fold); NaN with one pair."""
    pairs: int
    """Fold-and-seed pairs compared."""
    gains: tuple[float, ...]
    """Mean difference of each fold."""
    labelled: float
    """Mean number of labels at which they are compared."""
    metric: str = "uar"
    """uar or ccc."""
    against: str = RANDOM
    """The arm that is compared with."""
    p: float = float("nan")
    """Two-sided p-value of a sign-flip test over folds; NaN with a single fold, whose sign says nothing."""

    @property
    def sentence(self) -> str:
        """The result in words that claim no more than it shows."""
        scale, digits, unit = (100, 1, "points of UAR") if self.metric == "uar" else (1, 3, "CCC")

        def signed(value: float) -> str:
            return f"{scale * value:+.{digits}f}"

        sentence = f"{self.arm} − {self.against} at {self.labelled:.0f} labels: {signed(self.mean)} {unit}"
        if np.isnan(self.low):
            return f"{sentence}, from a single pair (one fold and one seed). One pair says nothing about chance."
        sentence += f", 95 % interval {signed(self.low)} to {signed(self.high)}, {self.pairs} pairs"
        if 1 < len(self.gains) < FEW:
            lowest, highest = signed(min(self.gains)), signed(max(self.gains))
            sentence += f" of {len(self.gains)} folds, whose own differences go from {lowest} to {highest}"
        if not np.isnan(self.p):
            sentence += f", p = {self.p:.2g} by sign flips of folds"
        if self.low > 0:
            return f"{sentence}. The interval lies above zero: {self.arm} did better than {self.against} on this data."
        if self.high < 0:
            return f"{sentence}. The interval lies below zero: {self.arm} did worse than {self.against} on this data."
        return f"{sentence}. The interval includes zero: this run does not show a difference between the two."


def last_rounds(rounds: pd.DataFrame) -> pd.DataFrame:
    """The last complete round of every trajectory."""
    return rounds.sort_values("round").groupby(KEYS, as_index=False).tail(1)


def curve(records: RunRecords, arm: str) -> pd.DataFrame:
    """Mean and standard deviation of an arm by round, with the mean seconds spent up to it."""
    rounds = records.rounds[records.rounds["arm"] == arm].copy()
    rounds["seconds"] = rounds[records.seconds_columns].sum(axis=1)
    rounds["elapsed"] = rounds.groupby(KEYS)["seconds"].cumsum()
    by_round = rounds.groupby("round")
    metrics = metrics_of(records)
    means = by_round[["labelled", "fraction", *metrics, "elapsed"]].mean()
    stds = by_round[metrics].std(ddof=1).fillna(0.0).add_suffix("_std")
    return means.join(stds).assign(trajectories=by_round.size()).reset_index()


def headline(records: RunRecords) -> pd.DataFrame:
    """One row per arm at its last round: labels, metrics as mean and std over folds and seeds, minutes in all."""
    rows = []
    last_round = last_rounds(records.rounds)
    for arm in records.arms:
        final, rounds = last_round[last_round["arm"] == arm], records.rounds[records.rounds["arm"] == arm]
        row = {"arm": arm, "trajectories": len(final), "labels": final["labelled"].mean()}
        row["fraction"] = final["fraction"].mean()
        for metric in metrics_of(records):
            row[metric], row[f"{metric}_std"] = final[metric].mean(), final[metric].std(ddof=1)
        if records.dimensions:
            row["probe_ccc"] = final["probe_ccc"].mean()
        row["calibration_error"] = final["calibration_error"].mean()
        row["enrolled_uar"], row["probe_uar"] = final["enrolled_uar"].mean(), final["probe_uar"].mean()
        row["seconds"] = rounds[records.seconds_columns].to_numpy().sum() / len(final)
        rows.append(row)
    if len(records.source):
        rows.append(_source_row(records.source))
    return pd.DataFrame(rows)


def metrics_of(records: RunRecords) -> list[str]:
    """Columns of scores of a run: of classes, other people's, then the mean CCC and that of every dimension."""
    rated = ["ccc", *(f"ccc_{name}" for name in records.dimensions)] if records.dimensions else []
    return [*(METRICS if records.classes else []), *records.further, *rated]


def _source_row(source: pd.DataFrame) -> dict[str, Any]:
    """The model of other corpora without a label of the target, as a row of the headline."""
    row: dict[str, Any] = {"arm": "other corpora, no label", "trajectories": len(source), "labels": 0, "fraction": 0.0}
    for metric in METRICS:
        row[metric], row[f"{metric}_std"] = source[metric].mean(), source[metric].std(ddof=1)
    return row | {
        "calibration_error": source["calibration_error"].mean(),
        "enrolled_uar": np.nan,
        "probe_uar": np.nan,
        "seconds": 0,
    }


def phase_seconds(records: RunRecords) -> pd.DataFrame:
    """Mean seconds of a trajectory by arm (rows) and phase (columns), the phase of most time first."""
    trajectories = records.rounds.groupby(KEYS)[records.seconds_columns].sum()
    by_arm = trajectories.groupby("arm").mean().loc[records.arms]
    by_arm.columns = [name.removeprefix("seconds_") for name in by_arm.columns]
    return by_arm[by_arm.sum().sort_values(ascending=False).index]


def differences(records: RunRecords, seed: int = 0) -> list[Difference]:
    """The paired difference to random of every other arm with rounds in common, at the last of these."""
    arms = [arm for arm in records.arms if arm not in {FULL, RANDOM}]
    pairs = (
        paired_difference(records.rounds, arm, np.random.default_rng(seed), metric)
        for metric in records.metrics
        for arm in arms
    )
    return [difference for difference in pairs if difference is not None]


def paired_difference(
    rounds: pd.DataFrame, arm: str, rng: np.random.Generator, metric: str = "uar"
) -> Difference | None:
    """Pair by fold and seed at the last round both have, when both have spent the same; None when no pair exists."""
    own, random = (rounds[rounds["arm"] == name] for name in (arm, RANDOM))
    return gain(own, random, rng, names=(arm, RANDOM), on=["fold", "seed", "round"], metric=metric)


def gain(
    own: pd.DataFrame,
    other: pd.DataFrame,
    rng: np.random.Generator,
    *,
    names: tuple[str, str],
    on: Sequence[str],
    metric: str = "uar",
) -> Difference | None:
    """The paired difference of two frames of rounds, each of one arm, at the last value of the last column of `on` that
    both have; None when no pair exists."""
    both = own.merge(other, on=list(on), suffixes=("", "_other"))
    if both.empty:
        return None
    final = both.sort_values(on[-1]).groupby(["fold", "seed"]).tail(1).sort_values(["fold", "seed"])
    gain_P = (final[metric] - final[f"{metric}_other"]).to_numpy(dtype=np.float64)
    # Seeds of one fold share their test speakers: the folds are what was drawn, as long as there are several.
    gain_F = final.assign(gain=gain_P).groupby("fold")["gain"].mean().to_numpy(dtype=np.float64)
    low, high, _ = mean_interval(gain_F if len(gain_F) > 1 else gain_P)
    return Difference(
        arm=names[0],
        against=names[1],
        mean=float(gain_P.mean()),
        low=low,
        high=high,
        pairs=len(gain_P),
        gains=tuple(gain_F.tolist()),
        labelled=float(final["labelled"].mean()),
        metric=metric,
        p=sign_flip_p(gain_F, rng) if len(gain_F) > 1 else float("nan"),
    )


def full_score(records: RunRecords) -> float | None:
    """Mean UAR (without classes mean CCC) with all labels, or None when that arm was not run."""
    full = last_rounds(records.rounds).query("arm == @FULL")
    return None if full.empty else float(full[records.metrics[0]].mean())


def cost_of_target(records: RunRecords, share: float) -> pd.DataFrame:
    """Labels, share of labels and seconds at which each arm's mean curve first reaches `share` of the full-label score.

    NaN = not reached. Empty without a full-label arm.
    """
    ceiling = full_score(records)
    if ceiling is None:
        return pd.DataFrame(columns=["arm", "labels", "fraction", "seconds"])
    rows = []
    for arm in records.arms:
        means = curve(records, arm)
        columns = {"labels": "labelled", "fraction": "fraction", "seconds": "elapsed"}
        cost = {
            name: crossing(means[column], means[records.metrics[0]], share * ceiling)
            for name, column in columns.items()
        }
        rows.append({"arm": arm, **cost})
    return pd.DataFrame(rows)


def crossing(cost: Sequence[float] | pd.Series, value: Sequence[float] | pd.Series, target: float) -> float:
    """Cost at which a curve first reaches the target, linear between points; NaN where it does not."""
    x, y = np.asarray(cost, dtype=np.float64), np.asarray(value, dtype=np.float64)
    reached = np.flatnonzero(y >= target)
    if not len(reached):
        return float("nan")
    at = int(reached[0])
    if at == 0:
        return float(x[0])
    return float(x[at - 1] + (x[at] - x[at - 1]) * (target - y[at - 1]) / (y[at] - y[at - 1]))


def report_columns(metadata: pa.Table) -> pa.Table:
    """Columns of metadata that the report shows; speakers carry their corpus, within which alone names are unique."""
    columns = metadata.select(["utterance_id", "corpus", "speaker", "snr_db", "duration_s"])
    if len(pc.unique(columns["corpus"])) > 1:
        speaker = pc.binary_join_element_wise(columns["corpus"], columns["speaker"], " ")
        columns = columns.set_column(columns.schema.get_field_index("speaker"), "speaker", speaker)
    return columns


def pool_frame(columns: pa.Table) -> pd.DataFrame:
    """Columns of a whole pool without its ids; names are categories, for there are millions of rows of few of them."""
    whole = columns.drop_columns("utterance_id")
    for at, name in enumerate(("corpus", "speaker")):
        whole = whole.set_column(at, name, whole[name].combine_chunks().dictionary_encode())
    frame: pd.DataFrame = whole.to_pandas()
    return frame


def composition(records: RunRecords, columns: pa.Table) -> pd.DataFrame:
    """Every answer of the arms that choose, with what is known of its utterance."""
    answers = records.answers[records.answers["arm"] != FULL]
    asked = pc.is_in(columns["utterance_id"], pa.array(answers["utterance_id"].unique(), pa.string()))
    return answers.merge(columns.filter(asked).to_pandas(), on="utterance_id", how="left", validate="many_to_one")


def quality_by_round(composed: pd.DataFrame, metadata: pd.DataFrame) -> pd.DataFrame:
    """Picks, median SNR (dB) and median length (s) by arm and round, the pool's in the first row."""
    by_round = composed.groupby(["arm", "round"], as_index=False)
    table = by_round.agg(
        picks=("utterance_id", "size"), snr_db=("snr_db", "median"), duration_s=("duration_s", "median")
    )
    unlabelled = composed["answer"].ne("label").groupby([composed["arm"], composed["round"]]).sum()
    table["without_label"] = unlabelled.to_numpy()
    pool = {
        "arm": "pool",
        "round": None,
        "picks": len(metadata),
        "snr_db": metadata["snr_db"].median(),
        "duration_s": metadata["duration_s"].median(),
        "without_label": None,
    }
    return pd.concat(
        [pd.DataFrame([pool]), table.astype({"round": object, "without_label": object})], ignore_index=True
    )
