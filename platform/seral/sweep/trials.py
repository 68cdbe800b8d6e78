"""One trial of a sweep: a point of the space on every fold and seed, whose score on dev is reported to Tune.

The work of a point is a training on all labels, or a loop: rounds of asking and training, judged by their mean.

A trial holds no test clip. Its reports are kept (seral.sweep.board), so that a sweep that is started again repeats what
is there instead of training it.
"""

from __future__ import annotations

import math
import shutil
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import replace
from queue import SimpleQueue
from threading import Thread
from typing import Any, Literal

import numpy as np
import ray
import torch
from ray import tune
from ray.util.scheduling_strategies import PlacementGroupSchedulingStrategy

from seral.errors import is_lasting
from seral.loop.folders import read_predictions
from seral.loop.loop import arm_of, loop_fold
from seral.loop.options import LoopOptions
from seral.loop.rounds import Trajectory
from seral.loop.stopping import RoundSummary
from seral.loop.trajectory import run_trajectory
from seral.pool.quality_filter import above_quality
from seral.sweep.board import FAILED, RUNNING, STOPPED, point_name, read_record
from seral.sweep.plan import SweepOptions
from seral.sweep.space import Plain
from seral.training import supervised
from seral.training.options import TrainingOptions
from seral.training.scoring import Outputs, evaluate_scores
from seral.training.supervised import FoldExamples

POINT = "point"
LASTING = "lasting"
"""In a report: another try of this trial must fail as well."""
OnStep = Callable[[int, float], None]
"""Called on the way with the epoch or round, from 1, and the dev score so far."""
WAITING_CPUS = 0.001
"""CPUs of a trial that waits for a training of adapters in another process."""
TRAINING_SHARE = 0.99
"""Share of a trial's CPUs that such a training takes: the rest is for those that wait, on whatever node they are."""


def run_trial(
    config: Mapping[str, Any], *, sweep: SweepOptions, examples: Mapping[str, Mapping[int, ray.ObjectRef]]
) -> None:
    """Try a point and report its score on dev: after every fold and seed, or where that is one, on the way."""
    torch.set_num_threads(1)  # trials run side by side, and sums do not depend on how many do
    try:
        _report_all(config.get(POINT, config), sweep, examples)
    except Exception as error:
        if is_lasting(error):
            tune.report({"dev": math.nan, LASTING: True})
        raise


def _report_all(
    labels: Mapping[str, Plain], sweep: SweepOptions, examples: Mapping[str, Mapping[int, ray.ObjectRef]]
) -> None:
    options = sweep.at(labels)
    folds = examples[feature_key(options)]
    cells = [(fold, seed) for fold in folds for seed in options.seeds]
    on_the_way = reports_on_the_way(options, len(cells))
    former = _former_reports(read_record(sweep.run, point_name(labels)), on_the_way)
    for report in former:
        tune.report(report)
    if former and former[-1]["last"]:
        return
    scores = [report["score"] for report in former]
    for number, (fold, seed) in enumerate(cells[len(former) :], len(former) + 1):
        last_step, started = 0, time.perf_counter()

        def on_step(step: int, score: float, started: float = started) -> None:
            nonlocal last_step
            last_step = step
            if on_the_way:
                tune.report(_report(step, score, score, time.perf_counter() - started))

        scores.append(_score(folds[fold], options, seed, sweep, on_step))
        step, seconds = _after_all(options, last_step) if on_the_way else number, time.perf_counter() - started
        tune.report(_report(step, float(np.mean(scores)), scores[-1], seconds, last=number == len(cells)))


def _score(examples: ray.ObjectRef, options: TrainingOptions, seed: int, sweep: SweepOptions, on_step: OnStep) -> float:
    """Dev score of a point on one fold with one seed.

    Adapters train in a process of their own, since Ray Train refuses to work inside a function of Tune's; it ends with
    the trial that waits for it.
    """
    if options.finetune.frozen:
        return learn_once(ray.get(examples), options, seed, on_step)
    needs = {"num_cpus": 0.0}  # with Ray Train workers, they hold the cores
    if not options.cluster.train_workers:
        needs = {"num_cpus": TRAINING_SHARE * sweep.cpus_per_trial}
        needs |= {"num_gpus": sweep.gpus_per_trial} if options.cluster.use_gpu else {}
    outside = PlacementGroupSchedulingStrategy(placement_group=None)
    task = _training_task.options(scheduling_strategy=outside, **needs)
    for reference in task.remote(examples, options, seed):
        step, score = ray.get(reference)
        if step is not None:
            on_step(step, score)
    return float(score)


def _training(examples: FoldExamples, options: TrainingOptions, seed: int) -> Iterator[tuple[int | None, float]]:
    """Scores on the way, and with None for the step the last one."""
    torch.set_num_threads(1)
    scores: SimpleQueue[tuple[int | None, float] | BaseException] = SimpleQueue()

    def work() -> None:
        try:
            scores.put((None, learn_once(examples, options, seed, lambda step, score: scores.put((step, score)))))
        except BaseException as error:
            scores.put(error)

    Thread(target=work, daemon=True).start()
    while True:
        item = scores.get()
        if isinstance(item, BaseException):
            raise item
        yield item
        if item[0] is None:
            return


_training_task = ray.remote(max_retries=0)(_training)


def reports_on_the_way(options: TrainingOptions, cells: int) -> bool:
    """Whether a trial reports epochs or rounds: where all there is is one loop, or one training of adapters, in one
    process."""
    if isinstance(options, LoopOptions):
        return cells == 1
    return cells == 1 and not options.finetune.frozen and not options.cluster.train_workers


def _after_all(options: TrainingOptions, last_step: int) -> int:
    """The step of the last report, after all others; the same for all points, although patience ends some early."""
    return (
        last_step + 1 if isinstance(options, LoopOptions) else (options.finetune.steps or options.finetune.epochs) + 2
    )


def _former_reports(record: Mapping[str, Any] | None, on_the_way: bool) -> list[dict[str, Any]]:
    """Reports that need not be computed again. Half a training is of no use; half of many trainings is."""
    if record is None or record["state"] == FAILED or (record["state"] == RUNNING and on_the_way):
        return []
    reports: list[dict[str, Any]] = [{**report, "through": report["last"]} for report in record["reports"]]
    return [*reports[:-1], {**reports[-1], "last": True}] if record["state"] == STOPPED and reports else reports


def learn_once(examples: FoldExamples, options: TrainingOptions, seed: int, on_step: OnStep | None = None) -> float:
    """Learn one fold with one seed; the score on its dev speakers."""
    folder = tempfile.mkdtemp(prefix="seral-trial-")
    try:
        learn(examples, options, folder, seed, on_step)
        return float(judge(examples, options, "dev", folder)["uar" if examples.data.classes else "ccc"])
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def learn(
    examples: FoldExamples, options: TrainingOptions, folder: str, seed: int, on_step: OnStep | None = None
) -> None:
    """Train on all labels of a fold, and of the source, or run a loop of the fold; what comes of it is in `folder`."""
    if isinstance(options, LoopOptions):
        _loop(examples, options, folder, seed, on_step)
        return
    score = f"dev_{'uar' if examples.data.classes else 'ccc'}"

    def on_report(values: Mapping[str, Any]) -> None:
        if on_step is not None:
            on_step(int(values["epoch"]) + 1, float(values[score]))

    supervised.train(examples, options, folder, seed, None if options.cluster.train_workers else on_report)


def _loop(examples: FoldExamples, options: LoopOptions, folder: str, seed: int, on_step: OnStep | None) -> None:
    data = examples.data
    data = replace(data, fold=above_quality(data.fold, data.metadata, options.min_quality))
    # A round scores its test part; in a trial, which has none, dev takes its place.
    data = replace(data, fold=replace(data.fold, test=data.fold.test or data.fold.dev))

    def on_round(rounds: Sequence[RoundSummary]) -> None:
        if on_step is not None:
            on_step(len(rounds), float(np.mean([one.dev for one in rounds if one.dev is not None])))

    run_trajectory(
        folder,
        Trajectory(arm=options.strategy.name, fold=examples.number, seed=seed),
        arm_of(options, options.initial, options.strategy, len(data.fold.train)),
        loop_fold(options.model_copy(update={"probe": False}), data, examples.source, folder),
        on_round,
    )


def judge(
    examples: FoldExamples, options: TrainingOptions, part: Literal["dev", "test"], folder: str
) -> dict[str, Any]:
    """Scores on a part of the fold, and under `predicted` the outputs of every model of `folder` for each clip: the
    model of a training, or those of a loop's rounds, whose `uar`, or without classes mean `ccc`, is their mean."""
    if not isinstance(options, LoopOptions):
        judged = supervised.judge(examples, part, folder)
        return {**judged, "predicted": [judged["predicted"]]}
    classes, dimensions = examples.data.classes, examples.data.dimensions
    oracle, rounds, metric = examples.data.oracle(), read_predictions(folder, part), "uar" if classes else "ccc"
    scores = list[float]()
    for outputs in rounds:
        target, output_NO = oracle.targets(list(outputs)), np.array(list(outputs.values()), np.float32)
        model_outputs = Outputs(probability_NC=output_NO[:, : len(classes)], value_NK=output_NO[:, len(classes) :])
        scores.append(evaluate_scores(model_outputs, target, classes, () if classes else dimensions)[metric])
    return {metric: float(np.mean(scores)), "predicted": rounds}


def feature_key(options: TrainingOptions) -> str:
    """A name of what features depend on: encoder, transcripts, pretraining."""
    return repr((options.encoder, options.text_encoder, options.tapt and options.tapt.model_dump_json()))


def _report(step: int, dev: float, of_training: float, seconds: float, *, last: bool = False) -> dict[str, Any]:
    """`dev`: mean over the trainings so far; `score`, `seconds`: of the last one; `last`: the trial ends with it;
    `through`: and nothing of it is left out."""
    return {"step": step, "dev": dev, "score": of_training, "seconds": seconds, "last": last, "through": last}
