"""A comparison of strategies: learning curves of a linear probe on frozen features, many seeds, clean or with junk.

Every row spends the same budgets on the same pools. Where a row has no model to read yet, its first labels are random,
the same for all such rows of a seed; rows that need none choose from the start. Junk, recordings that hold no speech,
costs as much as any other pick and teaches nothing.

    RUN/cells/<row>.fold-<FF>.seed-<S>.json    confusion by test speaker at every budget, junk picked, seconds
    RUN/table.csv, table.md, table.png         UAR at every budget, area under the curve against random
"""

# N rows · D features · C classes · B budgets · G groups (speakers) · R repeats (members of an ensemble)
from __future__ import annotations

import time
import zlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.compute as pc
import ray
from numpy.typing import NDArray
from sklearn.base import ClassifierMixin
from sklearn.dummy import DummyClassifier
from sklearn.linear_model import LogisticRegression
from sklearn.preprocessing import StandardScaler

from ser_models.intervals import jackknife_interval
from ser_models.metrics import confusion_matrix, mean_recall
from seral.errors import OptionError
from seral.features.batches import rows_of
from seral.pool.splits import voices
from seral.selection.candidates import Candidates, metadata_columns
from seral.selection.selection import StrategyOptions, select
from seral.selection.strategies import WRAPPERS
from seral.studies.options import BASELINE, StrategyRow, StrategyStudyOptions
from seral.task.cells import Cell, Results, write_table
from seral.task.context import RunContext, open_run
from seral.task.folds import FoldData, folds_by_seed
from seral.task.options import protocol_name
from seral.task.study import Study, compute, run_study

MAY_CHANGE = {"run", "cluster", "folds", "seeds", "rows"}
MEMBERS = 10
"""Models in the ensemble that strategies of disagreement read."""


@dataclass(frozen=True, kw_only=True)
class Division:
    """Utterances of one fold: those that may be picked, and those that are tested."""

    train: Sequence[str]
    test: Sequence[str]
    junk: tuple[str, ...]
    speaker_of: Mapping[str, str]
    quality: pa.Table


def run_strategy_study(options: StrategyStudyOptions) -> str:
    """Compute what is missing and write the tables; returns the table as Markdown."""
    return run_study(options, "compare-strategies", MAY_CHANGE, _plan)


def learning_curves(options: StrategyStudyOptions) -> Results:
    """Every cell of a study, computed where it is missing."""
    context = open_run(options, "compare-strategies", MAY_CHANGE)
    return compute(context, _plan(context))


def _plan(context: RunContext[StrategyStudyOptions]) -> Study:
    options, pool = context.options, context.pool
    metadata = context.eligible(options.corpora)
    store = context.features()
    folds = folds_by_seed(metadata, options.split, options.folds, options.seeds, store)
    junk = _junk_ids(options, pool.metadata, set(store.unusable["source"].to_pylist()))
    data = context.fold_data(store, next(iter(folds.values())), metadata)
    context.write_environment(protocol_name(options, pool), {"junk": len(junk)})
    shared, speaker_of, arguments = ray.put(data), voices(metadata), dict[Cell, Sequence[Any]]()
    for (number, seed), fold in folds.items():
        train = tuple(sorted({*fold.train, *fold.dev}))
        count = round(len(train) * options.junk_share / (1 - options.junk_share))
        mixed_in = np.random.default_rng(seed).permutation(junk)[:count].tolist() if options.junk else []
        division = ray.put(
            Division(
                train=train,
                test=fold.test,
                junk=tuple(sorted(mixed_in)),
                speaker_of=speaker_of,
                quality=pool.metadata,
            )
        )
        for row in options.rows:
            arguments[Cell(row=row.row, fold=number, seed=seed)] = (shared, division, row, options)
    return Study(
        cell=curve_cell,
        stages=[(f"{len(arguments)} learning curves", arguments)],
        write=lambda results: write_tables(options, results, speaker_curves(options, results)),
    )


def curve_cell(
    cell: Cell, folder: str, data: FoldData, division: Division, row: StrategyRow, options: StrategyStudyOptions
) -> dict[str, Any]:
    """One strategy from its first label to its last."""
    oracle, classes = data.oracle(), data.classes
    everyone = sorted({*division.train, *division.junk})
    scale = StandardScaler().fit(_vectors(data, everyone, options.state))
    vector_of = dict(zip(everyone, scale.transform(_vectors(data, everyone, options.state)), strict=True))
    test_ND = scale.transform(_vectors(data, division.test, options.state))
    truth_N = oracle.targets(division.test).label_N
    junk, asked = set(division.junk), list[str]()
    # By the strategy's name, so that a wrapper is compared with its strategy at the same draws.
    rng = np.random.default_rng([cell.seed, cell.fold, zlib.crc32(row.name.encode())])
    first: StrategyOptions = row
    if row.needs & {"probability_NC", "dropout_RNC"}:
        wrappers = [wrapper for wrapper in row.wrappers if WRAPPERS[wrapper.name].filters]
        first = StrategyOptions(name="random", wrappers=wrappers)
    models: list[ClassifierMixin] = []
    curve: dict[str, Any] = {"labelled": [], "uar": [], "confusion": [], "junk": [], "seconds": 0.0}
    for number, share in enumerate(options.budgets):
        started = time.perf_counter()
        count = max(1, round(share * len(division.train))) - len(asked)
        candidates = _candidates(division, len(classes), everyone, asked, vector_of, models)
        if number == 0 and first is not row:
            picks = select(first, candidates, count, np.random.default_rng([cell.seed, cell.fold]))
        else:
            picks = select(row if models else first, candidates, count, rng)
        curve["seconds"] += time.perf_counter() - started
        asked += picks
        labelled = [name for name in asked if name not in junk]
        label_N = oracle.targets(labelled).label_N
        members = MEMBERS if "dropout_RNC" in row.needs else 0
        predicted_N = np.zeros(len(truth_N), dtype=np.int64)
        if labelled:
            models = _fit(np.stack([vector_of[name] for name in labelled]), label_N, members, cell.seed)
            predicted_N = _probabilities(models[0], test_ND, len(classes)).argmax(axis=1)
        speakers = [division.speaker_of[name] for name in division.test]
        curve["labelled"].append(len(asked))
        curve["uar"].append(float(mean_recall(confusion_matrix(truth_N, predicted_N, len(classes)))))
        curve["junk"].append(len(asked) - len(labelled))
        curve["confusion"].append(
            {
                speaker: confusion_matrix(truth_N[rows], predicted_N[rows], len(classes)).tolist()
                for speaker in sorted(set(speakers))
                if len(rows := np.flatnonzero(np.array(speakers) == speaker))
            }
        )
    return curve


def area(uar_B: Sequence[float] | NDArray[np.float64], share_B: Sequence[float]) -> Any:
    """Area under a learning curve by the trapezoid rule, as a mean UAR over the budgets' range; (..., B) -> (...)."""
    if len(share_B) == 1:
        return np.asarray(uar_B)[..., 0]
    return np.trapezoid(uar_B, share_B, axis=-1) / (share_B[-1] - share_B[0])


def _junk_ids(options: StrategyStudyOptions, metadata: pa.Table, unusable: set[str]) -> list[str]:
    if options.junk is None:
        return []
    ids = metadata.filter(pc.equal(metadata["corpus"], options.junk))["utterance_id"].to_pylist()
    if not ids:
        raise OptionError(f"no corpus {options.junk!r} in {options.pool} to mix in as junk")
    return sorted(set(ids) - unusable)


def _vectors(data: FoldData, ids: Sequence[str], state: int | None) -> NDArray[np.float32]:
    """Mean over time of one hidden state, (N, D)."""
    states = data.store.num_layers + 1
    if state is not None and state >= states:
        raise OptionError(f"the encoder has hidden states 0..{states - 1}, not {state}")
    chosen = states // 2 if state is None else state
    return data.utterances(ids).means(chosen)


def _candidates(
    division: Division,
    classes: int,
    everyone: Sequence[str],
    asked: Sequence[str],
    vector_of: Mapping[str, NDArray[np.float32]],
    models: Sequence[ClassifierMixin],
) -> Candidates:
    left = sorted(set(everyone) - set(asked))
    x_ND = np.stack([vector_of[name] for name in left])
    rows = division.quality.take(rows_of(division.quality["utterance_id"].to_pylist(), left))
    values = metadata_columns(rows)
    if models:
        values["probability_NC"] = _probabilities(models[0], x_ND, classes)
    if models[1:]:
        values["dropout_RNC"] = np.stack([_probabilities(model, x_ND, classes) for model in models[1:]])
    if asked:
        values |= {
            "labelled_ids": np.array(asked),
            "labelled_embedding_MD": np.stack([vector_of[name] for name in asked]),
        }
        values["rejected_M"] = np.isin(asked, division.junk)
    return Candidates(ids=np.array(left), embedding_ND=x_ND, **values)


def _fit(x_MD: NDArray[np.float32], label_M: NDArray[np.int64], members: int, seed: int) -> list[ClassifierMixin]:
    """A probe, and as many on bootstrap samples of the labels: an ensemble."""
    rng = np.random.default_rng(seed)
    samples = [np.arange(len(label_M)), *(rng.integers(len(label_M), size=len(label_M)) for _ in range(members))]
    models = []
    for rows in samples:
        one_class = len(np.unique(label_M[rows])) < 2
        last = DummyClassifier() if one_class else LogisticRegression(max_iter=500, class_weight="balanced")
        models.append(last.fit(x_MD[rows], label_M[rows]))
    return models


def _probabilities(model: ClassifierMixin, x_ND: NDArray[np.float32], classes: int) -> NDArray[np.float32]:
    """Probabilities of all classes, (N, C): 0 for those the model has not seen."""
    p_NC = np.zeros((len(x_ND), classes), dtype=np.float32)
    p_NC[:, model.classes_] = model.predict_proba(x_ND)
    return p_NC


def write_tables(options: StrategyStudyOptions, results: Results, curves: Mapping[str, SpeakerCurves]) -> str:
    """The table of a study as CSV, Markdown and picture; returns the Markdown."""
    # Imported here: workers import this module, and drawing takes a second to load.
    from seral.figures.studies import strategy_curves

    names = [row.row for row in options.rows]
    shares = options.budgets
    lines = []
    for name in names:
        cells = [values for cell, values in results.items() if cell.row == name]
        uar_B = np.mean([values["uar"] for values in cells], axis=0)
        line: dict[str, Any] = {"row": name, "cells": len(cells)}
        line |= {f"{share:.0%}_uar": float(uar) for share, uar in zip(shares, uar_B, strict=True)}
        line |= {"area_uar": float(area(uar_B, shares)), "gain": np.nan, "gain_low": np.nan, "gain_high": np.nan}
        if name != BASELINE:
            without = curves[name].gain_without(curves[BASELINE], shares, slice(None))
            line["gain"] = gain(results, name, shares, slice(None))
            interval = jackknife_interval(line["gain"], np.array([*without.values()]))
            line["gain_low"], line["gain_high"] = float(interval.low), float(interval.high)
            line["gain_p"], line["speakers"] = float(interval.p), len(without)
        if options.junk:
            line["junk_share"] = float(np.mean([values["junk"][-1] / values["labelled"][-1] for values in cells]))
        line["seconds"] = float(np.mean([values["seconds"] for values in cells]))
        lines.append(line)
    table = pd.DataFrame(lines).sort_values("area_uar", ascending=False, ignore_index=True)
    return write_table(options.run, table, figure=strategy_curves(table, shares))


def gain(results: Results, name: str, share_B: Sequence[float], part: slice) -> float:
    """Mean difference to random of the area under a part of the curve, paired by fold and seed."""
    curve = {
        (cell.row, cell.fold, cell.seed): area(values["uar"][part], share_B[part]) for cell, values in results.items()
    }
    return float(np.mean([uar - curve[(BASELINE, *key[1:])] for key, uar in curve.items() if key[0] == name]))


@dataclass(frozen=True, kw_only=True)
class SpeakerCurves:
    """A learning curve over the test clips of all folds and seeds together, and without each speaker's."""

    whole_B: NDArray[np.float64]
    without: Mapping[str, NDArray[np.float64]]
    """Speaker -> UAR at every budget without the speaker's clips, (B,)."""

    def gain_without(self, base: SpeakerCurves, share_B: Sequence[float], part: slice) -> dict[str, float]:
        """Difference to another curve of the area under a part, without each speaker."""
        return {
            speaker: float(area((own_B - base.without[speaker])[part], share_B[part]))
            for speaker, own_B in self.without.items()
        }


def speaker_curves(options: StrategyStudyOptions, results: Results) -> dict[str, SpeakerCurves]:
    """The curve of every row, over all test speakers and without each of them."""
    speakers = sorted({speaker for values in results.values() for speaker in values["confusion"][0]})
    index_of = {speaker: index for index, speaker in enumerate(speakers)}
    classes, budgets = len(options.classes), len(options.budgets)
    curves = {}
    for row in options.rows:
        count_GBCC = np.zeros((len(speakers), budgets, classes, classes))
        for cell, values in results.items():
            if cell.row != row.row:
                continue
            for budget, confusion in enumerate(values["confusion"]):
                for speaker, matrix in confusion.items():
                    count_GBCC[index_of[speaker], budget] += matrix
        whole_BCC = count_GBCC.sum(0)
        without_GB = mean_recall(whole_BCC - count_GBCC) if len(speakers) > 1 else np.empty((0, budgets))
        without = dict(zip(speakers, np.asarray(without_GB), strict=False))
        curves[row.row] = SpeakerCurves(whole_B=np.asarray(mean_recall(whole_BCC)), without=without)
    return curves
