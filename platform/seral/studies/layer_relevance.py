"""Layer relevance of an encoder: what each hidden state knows of emotions and dimensions, from cached features.

RUN/cells/<target>.fold-<FF>.seed-<S>.json   all probes of one division of the speakers
RUN/relevance.csv, relevance.md              score of every target, measure and hidden state, with 95 % intervals
RUN/centres.csv, centres.md                  centre of mass of every target and measure
RUN/relevance.png                            the same as a picture
"""

# N clips · L hidden states (encoder layers + 1) · D features · R repeats (seeds) · C classes
from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import Any

import numpy as np
import pandas as pd
import ray
import torch
from numpy.typing import NDArray

from ser_models import metrics
from ser_models.fitting import PooledSet, RatedSet
from ser_models.intervals import jackknife_interval, without_each
from ser_models.relevance import above, centre_of_mass, gains, layer_relevance
from seral.pool.splits import Fold, voices
from seral.studies.layer_options import EMOTION, MAPS, RelevanceOptions
from seral.task.cells import Cell, Results, write_table
from seral.task.context import RunContext
from seral.task.folds import FoldData, folds_by_seed
from seral.task.options import protocol_name
from seral.task.study import Study, run_study

MAY_CHANGE = {"run", "cluster", "folds", "seeds"}


def run_relevance(options: RelevanceOptions) -> str:
    """Compute what is missing and write the tables; returns the centres of mass as Markdown."""
    return run_study(options, "relevance", MAY_CHANGE, _plan)


def _plan(context: RunContext[RelevanceOptions]) -> Study:
    options = context.options
    metadata = context.eligible(options.corpora)
    store = context.features()
    folds = folds_by_seed(metadata, options.split, options.folds, options.seeds, store)
    data = context.fold_data(store, next(iter(folds.values())), metadata)
    context.write_environment(protocol_name(options, context.pool), {})
    shared = ray.put(data)
    arguments = {
        Cell(row=target, fold=number, seed=seed): (shared, fold, options)
        for target in options.targets
        for (number, seed), fold in folds.items()
    }
    return Study(
        cell=relevance_cell,
        stages=[(f"{len(arguments)} sets of probes", arguments)],
        write=lambda results: _write(options, results, data, voices(metadata)),
    )


def relevance_cell(cell: Cell, _folder: str, data: FoldData, fold: Fold, options: RelevanceOptions) -> dict[str, Any]:
    """All probes of one target on one division of the speakers; dev is trained on, since nothing is chosen by it."""
    train_ids, test_ids = [*fold.train, *fold.dev], list(fold.test)
    truth_N = truths(cell.row, data, train_ids, options)
    rated_ids = [name for name, value in zip(train_ids, truth_N, strict=True) if np.isfinite(value)]
    target_N = torch.from_numpy(truth_N[np.isfinite(truth_N)])
    rows, test = (data.pooled(ids) for ids in (rated_ids, test_ids))
    train: PooledSet | RatedSet
    if cell.row == EMOTION:
        train = PooledSet(mean_NLD=rows.mean_NLD, std_NLD=rows.std_NLD, label_N=target_N.long())
    else:
        train = RatedSet(mean_NLD=rows.mean_NLD, std_NLD=rows.std_NLD, target_NK=target_N[:, None].float())
    relevance = layer_relevance(train, test, num_classes=len(options.classes), l2=options.l2)
    return {
        "weight": relevance.weight_L.round(6).tolist(),
        "ids": test_ids,
        "single": relevance.single_LN.round(4).tolist(),
        "truncated": relevance.truncated_LN.round(4).tolist(),
    }


def truths(target: str, data: FoldData, ids: Sequence[str], options: RelevanceOptions) -> NDArray[np.float64]:
    """Values to predict of some utterances, (N,): class indices or ratings, NaN where nothing is known."""
    gold = data.oracle().targets(ids)
    mapped = options.targets[target]
    if target in options.dimensions:
        return gold.value_NK[:, options.dimensions.index(target)].astype(np.float64)
    levels = range(len(options.classes)) if mapped is None else [MAPS[mapped][name] for name in options.classes]
    return np.where(gold.decided_N, np.array(levels, np.float64)[gold.label_N], np.nan)


def _write(options: RelevanceOptions, results: Results, data: FoldData, speaker_of: Mapping[str, str]) -> str:
    # Imported here: workers import this module, and drawing takes a second to load.
    from seral.figures.studies import layer_relevance as figure

    lines, centres = list[dict[str, Any]](), list[dict[str, Any]]()
    for target in options.targets:
        cells = {cell: values for cell, values in results.items() if cell.row == target}
        weights = pd.DataFrame([values["weight"] for values in cells.values()])
        weight_FL = weights.groupby(np.array([cell.fold for cell in cells])).mean().to_numpy()
        weight_L, without_FL = weight_FL.mean(0), (weight_FL.sum(0) - weight_FL) / max(1, len(weight_FL) - 1)
        measured = {"weight": (weight_L, without_FL, weight_L, without_FL)}
        floor = 1 / len(options.classes) if target == EMOTION else 0.0
        for measure, relevance in (("single", above), ("truncated", gains)):
            truth_N, predicted_NLR, speaker_N = _assemble(
                cells, measure, partial(truths, target, data, options=options), speaker_of
            )
            score = partial(_scores, target == EMOTION)
            value_L = score(truth_N, predicted_NLR)
            without_GL = without_each(score, truth_N, predicted_NLR, speaker_N)
            measured[measure] = (value_L, without_GL, relevance(value_L, floor), relevance(without_GL, floor))
        for measure, (value_L, without_GL, relevance_L, relevance_GL) in measured.items():
            low_L, high_L, _ = jackknife_interval(value_L, without_GL)
            rows = enumerate(zip(value_L, low_L, high_L, strict=True))
            lines += [
                {"target": target, "measure": measure, "layer": layer, "score": score, "low": low, "high": high}
                for layer, (score, low, high) in rows
            ]
            mass = _centre(relevance_L)
            low, high, _ = jackknife_interval(mass, np.array([_centre(row_L) for row_L in relevance_GL]))
            centre = {"centre": mass, "centre_low": float(low), "centre_high": float(high)}
            centres.append({"target": target, "measure": measure, **centre, "best layer": int(np.argmax(value_L))})
    table = pd.DataFrame(lines)
    write_table(options.run, table, "relevance", figure=figure(table))
    return write_table(options.run, pd.DataFrame(centres), "centres")


def _assemble(
    cells: Mapping[Cell, Mapping[str, Any]],
    measure: str,
    truth: Callable[[Sequence[str]], NDArray[np.float64]],
    speaker_of: Mapping[str, str],
) -> tuple[NDArray[np.float64], NDArray[np.float32], NDArray[np.str_]]:
    """Truths (N,), predictions (N, L, R) and speakers (N,) of the clips that every seed tested."""
    predictions: dict[int, dict[str, NDArray[np.float32]]] = {}
    for cell, values in cells.items():
        predictions.setdefault(cell.seed, {}).update(
            zip(values["ids"], np.array(values[measure], np.float32).T, strict=True)
        )
    ids = sorted(set.intersection(*(set(of_seed) for of_seed in predictions.values())))
    truth_N = truth(ids)
    rows = [row for row, value in enumerate(truth_N) if np.isfinite(value)]
    predicted_NLR = np.array([[of_seed[ids[row]] for of_seed in predictions.values()] for row in rows]).swapaxes(1, 2)
    return truth_N[rows], predicted_NLR, np.array([speaker_of[ids[row]] for row in rows])


def _scores(of_classes: bool, truth_N: NDArray[np.float64], predicted_NLR: NDArray[np.float32]) -> NDArray[np.float64]:
    """UAR or CCC of every hidden state, mean over seeds, (L,); NaN where there is no CCC."""
    score = _uar if of_classes else _ccc
    return np.array(
        [
            np.mean([score(truth_N, predicted_N) for predicted_N in predicted_NR.T])
            for predicted_NR in predicted_NLR.swapaxes(0, 1)
        ]
    )


def _uar(truth_N: NDArray[np.float64], predicted_N: NDArray[np.float32]) -> float:
    return metrics.uar(truth_N.astype(np.int64), predicted_N.astype(np.int64))


def _ccc(truth_N: NDArray[np.float64], predicted_N: NDArray[np.float32]) -> float:
    return float("nan") if np.ptp(truth_N) == 0 else metrics.ccc(truth_N, predicted_N)


def _centre(relevance_L: NDArray[np.float64]) -> float:
    """Centre of mass; NaN where nothing is relevant."""
    usable = np.isfinite(relevance_L).all() and relevance_L.any()
    return centre_of_mass(relevance_L) if usable else float("nan")
