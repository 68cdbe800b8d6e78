"""A sweep: many trials side by side on Ray Tune, the best of them tested once, on speakers no trial has heard.

RUN/config.yaml                     the resolved options; a sweep is resumed with the same ones or not at all
RUN/environment.json                versions, host, pool hash, protocol, classes
RUN/trials/, leaderboard.csv        see seral.sweep.board
RUN/best.yaml                       the best point, for `seral loop run`
RUN/test/cells/, tested.json        the best point and the training as given, on the test speakers
RUN/tune/                           Tune's own files: TensorBoard events, parameters and progress of every trial
RUN/report/index.html
"""

from __future__ import annotations

import os
import warnings
from collections.abc import Mapping, Sequence
from dataclasses import replace
from functools import partial
from typing import Any

import numpy as np
import optuna
import ray
from numpy.typing import NDArray
from ray import tune
from ray.tune.schedulers import ASHAScheduler, FIFOScheduler, TrialScheduler
from ray.tune.search import Searcher
from ray.tune.search.optuna import OptunaSearch

from ser_models.intervals import paired_difference
from ser_models.metrics import ccc, uar
from seral import storage
from seral.cluster import cpu_count
from seral.errors import StateError
from seral.features.precomputed import need_network
from seral.loop.options import LoopOptions
from seral.pool.ids import Ids
from seral.pool.quality_filter import say_left_out
from seral.pool.shards import Pool
from seral.pool.splits import voices
from seral.progress import Advance, track
from seral.secrets import files
from seral.sweep.board import (
    DONE,
    FAILED,
    RUNNING,
    STOPPED,
    config_at,
    leaderboard,
    point_name,
    read_record,
    read_records,
    write_leaderboard,
    write_record,
)
from seral.sweep.plan import AshaOptions, SweepOptions
from seral.sweep.space import Number, Plain, draw
from seral.sweep.trials import LASTING, POINT, WAITING_CPUS, feature_key, judge, learn, reports_on_the_way, run_trial
from seral.task.cells import Cell, Results, run_cells
from seral.task.context import open_run
from seral.task.options import with_absolute_paths
from seral.task.tracking import Tracker
from seral.training.options import TrainingOptions
from seral.training.supervised import FoldExamples, describe
from seral.training.supervised import examples_of as examples_by_fold

MAY_CHANGE = {"run", "trials", "concurrent", "retries", "test_seeds", "cpus_per_trial", "gpus_per_trial", "track"} | {
    "training.cluster",
    "loop.cluster",
}
"""Options a resumed sweep may be given anew."""
GIVEN, BEST = "as given", "best"
MLFLOW_STATES = {DONE: "FINISHED", STOPPED: "KILLED", FAILED: "FAILED"}
MOST_REPORTS = 10_000
"""More than any trial has: a trial ends by itself, or by ASHA's comparison with others."""
Examples = dict[str, dict[int, FoldExamples]]


def run_sweep(options: SweepOptions) -> str:
    """Run the sweep, or resume it, to its end; returns the leaders and the test as text."""
    options = options.model_copy(update={"run": storage.absolute(options.run)})
    for labels in options.feature_points():
        need_network((point := options.at(labels)).encoder, point.needs_network)
    context = open_run(options.base, "sweep", MAY_CHANGE, config=options)
    with storage.writing_to(options.run):
        return _run_opened(options, context.pool, cells_of_fold=len(context.options.seeds))


def _run_opened(options: SweepOptions, pool: Pool, cells_of_fold: int) -> str:
    examples = examples_of(options, pool)
    if isinstance(options.base, LoopOptions):
        parts = {n: one.data.fold for folds in examples.values() for n, one in folds.items()}
        say_left_out(parts.values(), pool.metadata, options.base.min_quality)
    without_test = {
        name: {fold: ray.put(blind(of_fold)) for fold, of_fold in folds.items()} for name, folds in examples.items()
    }
    _tune(options, without_test, cells=cells_of_fold * len(next(iter(examples.values()))))
    records = read_records(options.run)
    board = leaderboard(records)
    write_leaderboard(options.run, board)
    if not (board["state"] == DONE).any():
        errors = board["error"].dropna()
        raise StateError(f"no trial came to its end; {len(errors)} failed, the first with: {[*errors, 'nothing'][0]}")
    labels = records[str(board.loc[0, "point"])]["labels"]
    storage.write_bytes(storage.join(options.run, "best.yaml"), config_at(options, labels).encode())
    tested = _test(options, labels, examples, pool)
    from seral.sweep.report import write_sweep_report

    return write_sweep_report(options, records, tested)


def examples_of(options: SweepOptions, pool: Pool) -> Examples:
    """Examples that any point, or the training as given, works on, by what its features depend on and by fold."""
    examples: Examples = {}
    for options_at in (options.base, *(options.at(labels) for labels in options.feature_points())):
        training = with_absolute_paths(options_at)
        pretraining = training.tapt.model_dump_json() if training.tapt else None
        tapt = storage.join(training.run, "tapt", point_name({"encoder": training.encoder, "tapt": pretraining}))
        by_fold = examples_by_fold(training, pool, tapt)
        examples[feature_key(options_at)] = by_fold | examples.get(feature_key(options_at), {})
    describe(with_absolute_paths(options.base), pool, next(iter(examples.values())))
    return examples


def blind(examples: FoldExamples) -> FoldExamples:
    """Examples of a fold without its test part."""
    return replace(examples, data=replace(examples.data, fold=replace(examples.data.fold, test=Ids())))


def _tune(options: SweepOptions, examples: Mapping[str, Mapping[int, ray.ObjectRef]], cells: int) -> None:
    points = options.points()
    records = read_records(options.run)
    total = options.trials if points is None else len(points)
    if len([r for r in records.values() if r["state"] in (DONE, STOPPED)]) >= total:
        return
    storage.remove(storage.join(options.run, "tune"))  # Tune starts from the records
    os.environ.setdefault("RAY_AIR_NEW_OUTPUT", "0")  # the newer one prints a banner, however silent it is asked to be
    trainable = tune.with_parameters(run_trial, sweep=options, examples=dict(examples))
    searcher = None if points is not None else _tpe(options, [record["labels"] for record in records.values()])
    with track(f"{total} trials", total) as advance, files.as_private_as(options.run):
        tuner = tune.Tuner(
            tune.with_resources(trainable, _resources(options)),
            param_space={} if points is None else {POINT: tune.grid_search(points)},
            tune_config=tune.TuneConfig(
                metric="dev",
                mode="max",
                search_alg=searcher,
                num_samples=total if points is None else 1,
                scheduler=_scheduler(options.early_stopping),
                max_concurrent_trials=_concurrent(options),
                reuse_actors=True,
            ),
            run_config=tune.RunConfig(
                name="tune",
                storage_path=options.run,
                verbose=0,
                failure_config=tune.FailureConfig(max_failures=options.retries),
                callbacks=[Recorder(options, cells, records, advance)],
            ),
        )
        for result in tuner.fit():
            if result.error is not None:
                _note_error(options.run, result)
    storage.tidy(options.run)


class Recorder(tune.Callback):  # type: ignore[misc]  # Ray leaves it untyped
    """Keeps the record of every point while trials report."""

    def __init__(self, options: SweepOptions, cells: int, records: dict[str, dict[str, Any]], advance: Advance) -> None:
        super().__init__()
        self._options, self._cells, self._records, self._advance = options, cells, dict(records), advance
        self._reports: dict[str, list[dict[str, Any]]] = {}
        self._numbers: dict[str, int] = {}
        self._tracker = None if options.track is None else Tracker(options.track, options.run)

    def on_trial_start(self, iteration: int, trials: list[Any], trial: Any, **info: Any) -> None:
        """A trial starts, or starts again."""
        for made in trials:  # as made: they start in any order, and one that failed goes to the end of Tune's list
            self._numbers.setdefault(made.trial_id, len(self._numbers))
        self._reports[trial.trial_id] = []

    def on_trial_result(
        self, iteration: int, trials: list[Any], trial: Any, result: dict[str, Any], **info: Any
    ) -> None:
        """A report came."""
        names = ("step", "dev", "score", "seconds", "last")
        if LASTING in result:
            trial.max_failures = 0
        elif "step" in result:
            self._reports[trial.trial_id].append({name: result[name] for name in names})
            self._write(trial, RUNNING)

    def on_trial_complete(self, iteration: int, trials: list[Any], trial: Any, **info: Any) -> None:
        """A trial came to its end, or was stopped."""
        reports = self._reports[trial.trial_id]
        self._write(trial, DONE if reports and reports[-1]["last"] else STOPPED)
        self._advance()

    def on_trial_error(self, iteration: int, trials: list[Any], trial: Any, **info: Any) -> None:
        """A trial failed for the last time."""
        self._write(trial, FAILED)
        self._advance()

    def _write(self, trial: Any, state: str) -> None:
        labels = trial.config.get(POINT, trial.config)
        name, reports = point_name(labels), self._reports.get(trial.trial_id, [])
        before = self._records.get(name)
        if before and state != FAILED and before["state"] in (DONE, STOPPED):
            return  # repeated from there
        if before and before["state"] == RUNNING and state == RUNNING and len(before["reports"]) > len(reports):
            return
        record = {"number": self._numbers[trial.trial_id] if before is None else before["number"], "labels": labels}
        on_the_way = reports_on_the_way(self._options.at(labels), self._cells)
        record |= {"state": state, "reports": reports, "on_the_way": on_the_way, "error": None}
        self._records[name] = record
        write_record(self._options.run, name, record)
        if self._tracker is not None:
            steps = {r["step"]: {key: r[key] for key in ("dev", "score", "seconds")} for r in reports}
            self._tracker.report(name, labels, steps)
            if state != RUNNING:
                self._tracker.close(name, MLFLOW_STATES[state])


def _note_error(run: str, result: tune.Result) -> None:
    """Keep the last line of a failed trial's error with its record: callbacks of Tune's do not get it."""
    config = result.config or {}
    name = point_name(config.get(POINT, config))
    record = read_record(run, name)
    lines = [line.strip() for line in str(result.error).splitlines() if line.strip()]
    if record is not None and record["state"] == FAILED:
        write_record(run, name, {**record, "error": lines[-1]})


def _resources(options: SweepOptions) -> dict[str, float]:
    """Cores and GPUs that a trial itself holds; adapters train in a process of their own, which holds the cores."""
    on = options.base.cluster
    heads = all(options.at(labels).finetune.frozen for labels in options.feature_points())
    if not heads:
        return {"CPU": WAITING_CPUS}
    return {"CPU": options.cpus_per_trial} | ({"GPU": options.gpus_per_trial} if on.use_gpu else {})


def _concurrent(options: SweepOptions) -> int:
    on = options.base.cluster
    per_trial = on.train_workers * on.cpus_per_worker if on.train_workers else options.cpus_per_trial
    room = max(1, int(cpu_count() / per_trial))
    if on.use_gpu:
        gpus = ray.cluster_resources().get("GPU", 0)
        room = min(room, max(1, int(gpus / (on.train_workers or options.gpus_per_trial or 1))))
    return min(room, options.concurrent or room)


def _scheduler(asha: AshaOptions | None) -> TrialScheduler:
    if asha is None:
        return FIFOScheduler()
    return ASHAScheduler(time_attr="step", max_t=MOST_REPORTS, grace_period=asha.grace, reduction_factor=asha.reduction)


def _tpe(options: SweepOptions, tried: Sequence[Mapping[str, Plain]]) -> Searcher:
    """Optuna's TPE. Points of the sweep so far come first and are repeated, which takes no training."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", optuna.exceptions.ExperimentalWarning)
        optuna.logging.set_verbosity(optuna.logging.WARNING)
        # Another stream after a resume: what is repeated draws nothing, and the first draws would come again.
        seed = int(np.random.SeedSequence([options.seed, len(tried)]).generate_state(1)[0])
        sampler = optuna.samplers.TPESampler(
            seed=seed, multivariate=True, group=True, constant_liar=True, n_startup_trials=10
        )
        return _Tpe(
            space=partial(_suggest, options),
            metric="dev",
            mode="max",
            sampler=sampler,
            points_to_evaluate=[dict(labels) for labels in tried] or None,
        )


class _Tpe(OptunaSearch):  # type: ignore[misc]  # Ray leaves it untyped
    """Ranks a stopped trial behind all that were seen through, as Optuna does with trials that it prunes itself: its
    score is of the first folds or epochs only, and the first fold may be an easy one."""

    def on_trial_complete(self, trial_id: str, result: dict[str, Any] | None = None, error: bool = False) -> None:
        """A trial came to its end, or was stopped, or failed."""
        super().on_trial_complete(trial_id, result if result and result.get("through") else None, error)


def _suggest(options: SweepOptions, trial: optuna.Trial) -> None:
    draw(options.space, _Suggest(trial))


class _Suggest:
    """Optuna's draws."""

    def __init__(self, trial: optuna.Trial) -> None:
        self._trial = trial

    def one_of(self, path: str, labels: list[Plain]) -> Plain:
        return self._trial.suggest_categorical(path, labels)

    def number(self, path: str, of: Number) -> int | float:
        if of.whole:
            step = int(of.step or 1)
            return self._trial.suggest_int(path, int(of.low), int(of.high), log=of.log, step=step)
        return self._trial.suggest_float(path, of.low, of.high, log=of.log, step=of.step)


def _test(options: SweepOptions, labels: Mapping[str, Plain], examples: Examples, pool: Pool) -> dict[str, Any]:
    """Scores of the best point and of the training as given on the test speakers, and their difference."""
    seeds = options.test_seeds or options.base.seeds
    shared: dict[tuple[str, int], ray.ObjectRef] = {}
    arguments: dict[Cell, Sequence[Any]] = {}
    rows = {f"{BEST} {point_name(labels)}": options.at(labels), GIVEN: options.base}
    for row, training in rows.items():
        name, training = feature_key(training), with_absolute_paths(training)
        for fold, fold_examples in examples[name].items():
            if (name, fold) not in shared:
                shared[name, fold] = ray.put(fold_examples)
            arguments |= {Cell(row=row, fold=fold, seed=s): (shared[name, fold], training) for s in seeds}
    folder = storage.join(options.run, "test")
    results = run_cells(folder, _test_cell, arguments, options.base.cluster, f"{len(arguments)} tests", pool)
    return _tested(options, results, next(iter(examples.values())), pool)


def _test_cell(cell: Cell, folder: str, examples: FoldExamples, training: TrainingOptions) -> dict[str, Any]:
    learn(examples, training, folder, cell.seed)
    return judge(examples, training, "test", folder)


def _tested(options: SweepOptions, results: Results, folds: Mapping[int, FoldExamples], pool: Pool) -> dict[str, Any]:
    voice, metric = voices(pool.metadata), options.metric
    tested: dict[str, Any] = {"rows": {}}
    predictions = []
    for row in dict.fromkeys(cell.row for cell in results):
        cells = [(cell, values) for cell, values in results.items() if cell.row == row]
        scores = [values[metric] for _, values in cells]
        tested["rows"][row] = {"mean": float(np.mean(scores)), "std": float(np.std(scores)), "cells": len(scores)}
        predictions.append(_predictions(cells, folds, metric))
    (names, truth, best), (_, _, base) = predictions
    speaker_N = np.array([voice[name] for name in names])
    measure = uar if metric == "uar" else _mean_ccc
    tested["gain"] = paired_difference(measure, truth, best, base, speaker_N)._asdict()
    storage.write_json(storage.join(options.run, "tested.json"), tested)
    return tested


def _mean_ccc(truth_NK: NDArray[Any], predicted_NK: NDArray[Any]) -> float:
    return float(np.mean([ccc(truth, predicted) for truth, predicted in zip(truth_NK.T, predicted_NK.T, strict=True)]))


def _predictions(
    cells: Sequence[tuple[Cell, Mapping[str, Any]]], folds: Mapping[int, FoldExamples], metric: str
) -> tuple[list[str], Any, Any]:
    """Utterances of all cells, and of all rounds of loops, in order, their truth, and what a model predicted."""
    names: list[str] = []
    truth, predictions = [], []
    for cell, values in sorted(cells, key=lambda item: (item[0].fold, item[0].seed)):
        data = folds[cell.fold].data
        classes = len(data.classes)
        for predicted in values["predicted"]:
            ids, outputs_NO = np.array(list(predicted)), np.array(list(predicted.values()))
            target = data.oracle().targets(ids.tolist())
            labelled_N = target.decided_N if metric == "uar" else target.rated_N
            names += ids[labelled_N].tolist()
            truth.append((target.label_N if metric == "uar" else target.value_NK)[labelled_N])
            predictions.append(
                (outputs_NO[:, :classes].argmax(1) if metric == "uar" else outputs_NO[:, classes:])[labelled_N]
            )
    return names, np.concatenate(truth), np.concatenate(predictions)
