"""A study of labels: how many each way of learning needs, on every corpus by the labels of all others.

For every encoder, target corpus and deal of its speakers, loops are run alone and with the labels of the other targets
as their source, and under each normalisation, with an arm for every strategy. So a target's figures are by leaving its
corpus out: nothing but the strategies' defaults has seen it.

    RUN/<encoder>.<target>.<alone|source>.<normalise>.deal-<S>/   a run of the loop each, done once and resumed
    RUN/curves.csv                 UAR at every budget: of each arm, of the source without a label, of a linear probe
    RUN/summary.csv, .md, .png     area under the curve, half the labels and labels needed, beside random alone, and
                                   where more labels did harm; intervals over speakers
"""

# B budgets · C classes · G groups (speakers) · P pairs of budgets
from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from ser_models.intervals import jackknife_interval
from ser_models.metrics import confusion_matrix, mean_recall
from seral import storage
from seral.loop.folders import prediction_files
from seral.loop.loop import run_loop
from seral.pool.shards import open_pool
from seral.pool.splits import voices
from seral.progress import say
from seral.studies.options import REFERENCE, LabelStudyOptions, Row
from seral.studies.strategies import area
from seral.task.cells import write_table
from seral.task.gold import Oracle
from seral.task.run import claim

MAY_CHANGE = {"run", "cluster", "encoders", "ways", "deals", "others"}
SMALL = 0.3
"""Share of the labels up to which areas are taken."""
HALF, AS_MANY = "half the labels", "as many labels"
"""Columns: UAR with half of REFERENCE, and with REFERENCE, less that of random picks alone with REFERENCE."""


Counts = Mapping[str, NDArray[np.int64]]
"""Test speaker -> confusion at every budget, (B, C, C), or without a label, (1, C, C), all folds and deals together."""
Measure = Callable[[Counts], float]


def run_label_study(options: LabelStudyOptions) -> str:
    """Run what is missing of every loop and sum them up; returns the summary as Markdown."""
    claim(options, "label-study", MAY_CHANGE)
    settings = list(options.settings())
    counts, curves = dict[Row, dict[str, NDArray[np.int64]]](), list[dict[str, Any]]()
    unlabelled = dict[Row, dict[str, NDArray[np.int64]]]()
    truth_of: dict[str, Truth] = {name: _truth(options, name) for name in options.targets}
    for number, setting in enumerate(settings, 1):
        say(f"loop {number} of {len(settings)}: {setting.name}")
        loop = options.loop(setting)
        if not storage.exists(uri := storage.join(loop.run, "curves.json")):
            run_loop(loop)
            storage.write_json(uri, {"curves": _curves(loop.run, truth_of[setting.target])})
        for line in storage.read_json(uri)["curves"]:
            for name, sums in (("confusion", counts), ("without_confusion", unlabelled)):
                own = sums.setdefault(setting.row(line["arm"]), {})
                for speaker, matrices in line.pop(name, {}).items():
                    own[speaker] = own.get(speaker, 0) + np.array(matrices)
            curves.append({**vars(setting), "encoder": Path(setting.encoder).name, **line})
    storage.write_bytes(storage.join(options.run, "curves.csv"), pd.DataFrame(curves).to_csv(index=False).encode())
    return _write(options, summary(counts, options.fractions, unlabelled), pd.DataFrame(curves))


@dataclass(frozen=True, kw_only=True)
class Truth:
    """Classes and voices of a target's utterances."""

    label_of: Mapping[str, int]
    voice_of: Mapping[str, str]
    classes: int


def _truth(options: LabelStudyOptions, target: str) -> Truth:
    pool, part = open_pool(options.pool), options.targets[target]
    metadata = pool.metadata
    metadata = metadata.filter(pc.is_in(metadata["corpus"], pa.array(part.corpora)))
    oracle = Oracle(pool, part.classes, None, [])
    ids = metadata["utterance_id"].filter(pa.array(oracle.answers(metadata["utterance_id"]))).to_pylist()
    label_of = dict(zip(ids, oracle.targets(ids).label_N.tolist(), strict=True))
    return Truth(label_of=label_of, voice_of=voices(metadata), classes=len(part.classes))


def _curves(run: str, truth: Truth) -> list[dict[str, Any]]:
    """A line an arm and fold: UAR, the linear probe's, and the confusion of every test speaker, at every budget."""
    lines, root = [], storage.join(run, "trajectories")
    for name in storage.list_names(root):
        arm, fold, _ = name.rsplit(".", 2)
        line: dict[str, Any] = {"arm": arm, "fold": int(fold.removeprefix("fold-")), "uar": [], "probe": []}
        matrices = dict[str, list[list[list[int]]]]()
        folder = storage.join(root, name, "rounds")
        for number in storage.list_names(folder):
            path = storage.join(folder, number)
            metrics = storage.read_json(storage.join(path, "metrics.json"))
            line["uar"].append(metrics["test"]["uar"])
            line["probe"].append((metrics.get("probe") or {}).get("test_uar"))
            for speaker, matrix in _by_speaker(path, truth).items():
                matrices.setdefault(speaker, []).append(matrix.tolist())
        source = storage.join(run, "folds", fold, "source")
        metrics = storage.join(source, "metrics.json")
        line["without"] = storage.read_json(metrics)["uar"] if storage.exists(metrics) else None
        unlabelled = _by_speaker(source, truth) if storage.exists(*prediction_files(source, "test")) else {}
        line["without_confusion"] = {speaker: [matrix.tolist()] for speaker, matrix in unlabelled.items()}
        lines.append(line | {"confusion": matrices})
    return lines


def _by_speaker(path: str, truth: Truth) -> dict[str, NDArray[np.int64]]:
    """The confusion of every test speaker by the model of a round, or of a source."""
    (uri,) = prediction_files(path, "test")
    table = storage.read_table(uri)
    names = [name.removeprefix("p_") for name in table.column_names if name.startswith("p_")]
    predicted_N = np.array([names.index(word) for word in table["predicted"].to_pylist()])
    ids = table["utterance_id"].to_pylist()
    label_N = np.array([truth.label_of[name] for name in ids])
    voice_N = np.array([truth.voice_of[name] for name in ids])
    return {
        str(voice): confusion_matrix(label_N[voice_N == voice], predicted_N[voice_N == voice], truth.classes)
        for voice in np.unique(voice_N)
    }


def summary(
    counts: Mapping[Row, Counts], shares: list[float], unlabelled: Mapping[Row, Counts] | None = None
) -> pd.DataFrame:
    """A line a row: UAR at every budget, areas beside random, labels needed for random's at REFERENCE, and the fall.

    UAR is over the test clips of all folds and deals together; intervals leave out each speaker in turn. `unlabelled`
    has the confusions of rows that have a model before the first label.
    """
    lines = []
    for row, own in counts.items():
        base, chance = counts.get(row.reference), counts.get(row.by_chance)
        curve_B = _curve(own)
        line: dict[str, Any] = row._asdict()
        line |= {f"{share:.3g}": float(uar) for share, uar in zip(shares, curve_B, strict=True)}
        for name, other in (("random", chance), ("reference", base)):
            if other is not None and other is not own:
                line |= _difference(f"area over {name}", own, other, lambda part: _area(_curve(part), shares))
        if base is not None and row != row.reference:
            line |= _difference(AS_MANY, own, base, _at(shares, REFERENCE))
            if REFERENCE / 2 in shares:
                line |= _difference(HALF, own, base, _at(shares, REFERENCE / 2), _at(shares, REFERENCE))
        if base is not None:
            line["labels needed"] = needed(curve_B, shares, float(_curve(base)[shares.index(REFERENCE)]))
        lines.append(line | _fall(own, (unlabelled or {}).get(row) or {}, shares))
    return pd.DataFrame(lines)


def needed(uar_B: NDArray[np.float64], shares: list[float], uar: float) -> float:
    """The share of the labels at which a curve, straight between budgets, first has a UAR; NaN where it never has."""
    reached = np.flatnonzero(uar_B >= uar)
    if not len(reached):
        return float("nan")
    at = int(reached[0])
    if at == 0:
        return shares[0]
    return float(np.interp(uar, uar_B[at - 1 : at + 1], shares[at - 1 : at + 1]))


def _curve(counts: Counts) -> NDArray[np.float64]:
    """UAR at every budget over the clips of all speakers, (B,)."""
    return np.asarray(mean_recall(sum(counts.values(), start=np.zeros_like(next(iter(counts.values()))))))


def _area(uar_B: NDArray[np.float64], shares: list[float]) -> float:
    few = sum(share <= SMALL for share in shares)
    return float(area(uar_B[:few], shares[:few]))


def _at(shares: list[float], share: float) -> Measure:
    """UAR with a share of the labels."""
    return lambda part: float(_curve(part)[shares.index(share)])


def _difference(
    name: str, own: Counts, other: Counts, measure: Measure, of_other: Measure | None = None
) -> dict[str, float]:
    """Difference of a measure of two rows, or of one and that `of_other`; its interval leaves out each speaker."""
    of_other = of_other or measure
    whole = measure(own) - of_other(other)
    line = {name: whole}
    if len(own) > 1:
        without = [
            measure({key: value for key, value in own.items() if key != speaker})
            - of_other({key: value for key, value in other.items() if key != speaker})
            for speaker in sorted(own)
        ]
        interval = jackknife_interval(whole, np.array(without))
        line |= {f"{name}, low": float(interval.low), f"{name}, high": float(interval.high)}
    return line


def _fall(own: Counts, unlabelled: Counts, shares: list[float]) -> dict[str, Any]:
    """The surest of the falls of UAR from one budget to a larger one, and its p, that of all pairs times their number
    (Bonferroni); nothing where a curve never falls, or of a single speaker."""
    names = [*(["no label"] if unlabelled else []), *(f"{100 * share:g} %" for share in shares)]
    counts = {speaker: np.concatenate([unlabelled[speaker], own[speaker]]) for speaker in own} if unlabelled else own
    first_P, second_P = np.triu_indices(len(names), 1)
    if len(own) < 2:
        return {}
    curves = [_curve({key: value for key, value in counts.items() if key != speaker}) for speaker in sorted(counts)]
    without_GP = np.array([curve_B[first_P] - curve_B[second_P] for curve_B in curves])
    fall_P = _curve(counts)[first_P] - _curve(counts)[second_P]
    p_P = np.where(fall_P > 0, jackknife_interval(fall_P, without_GP).p, np.inf)
    if not np.isfinite(p_P).any():
        return {}
    at = int(p_P.argmin())
    pair = f"{names[first_P[at]]} to {names[second_P[at]]}"
    return {"fall": float(fall_P[at]), "fall, budgets": pair, "fall, p": float(min(1.0, len(p_P) * p_P[at]))}


def _write(options: LabelStudyOptions, table: pd.DataFrame, curves: pd.DataFrame) -> str:
    # Imported here: drawing takes a second to load.
    from seral.figures.studies import label_curves

    shown = table.copy()
    for column in ("area over random", "area over reference", HALF, AS_MANY):
        if column in shown:
            ends = [f"{column}{end}" for end in ("", ", low", ", high")]
            values = table.reindex(columns=ends).to_numpy(dtype=np.float64)
            shown = shown.assign(**{column: [_gain(*row) for row in values]}).drop(columns=ends[1:], errors="ignore")
    if "fall" in shown:
        falls = table[["fall", "fall, budgets", "fall, p"]].itertuples(index=False)
        text = ["" if np.isnan(fall) else f"{100 * fall:.1f}, {pair} (p = {p:.2g})" for fall, pair, p in falls]
        shown = shown.assign(fall=text).drop(columns=["fall, budgets", "fall, p"])
    shares = [f"{share:.3g}" for share in options.fractions]
    shown[shares] = (100 * shown[shares]).round(1)
    without = curves.dropna(subset=["without"]).groupby(["encoder", "target", "source", "normalise"])["without"].mean()
    keys = shown[["encoder", "target", "source", "normalise"]].apply(tuple, axis=1)
    shown.insert(5, "no label", [round(100 * without[key], 1) if key in without.index else "" for key in keys])
    figure = label_curves(table, options.fractions)
    return write_table(options.run, table, "summary", shown=shown, figure=figure)


def _gain(gain: float, low: float, high: float) -> str:
    """A gain in points with its interval, as far as there are any."""
    if np.isnan(gain):
        return ""
    text = f"{100 * gain:+.1f}"
    return text if np.isnan(low) else f"{text} ({100 * low:+.1f} to {100 * high:+.1f})"
