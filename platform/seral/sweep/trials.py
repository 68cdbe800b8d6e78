"""One trial of a sweep: train a point of the space on every fold and seed, and tell Tune how well dev is recognised.

A trial holds no test clip. Its reports are kept (seral.sweep.board), so that a sweep that is started again repeats what
is there instead of training it.
"""

from __future__ import annotations

import shutil
import tempfile
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from queue import SimpleQueue
from threading import Thread
from typing import Any

import numpy as np
import ray
import torch
from ray import tune
from ray.util.scheduling_strategies import PlacementGroupSchedulingStrategy

from seral.sweep.board import FAILED, RUNNING, STOPPED, point_name, read_record
from seral.sweep.plan import SweepOptions
from seral.sweep.space import Plain
from seral.task import FoldData
from seral.train.finetune import finetune
from seral.train.model import evaluate_model
from seral.train.ray_train import OnReport
from seral.train.training import TrainingOptions

POINT = "point"
WAITING_CPUS = 0.001
"""CPUs of a trial that waits for a training of adapters in another process."""
TRAINING_SHARE = 0.99
"""Share of a trial's CPUs that such a training takes: the rest is for those that wait, on whatever node they are."""


@dataclass(frozen=True, kw_only=True)
class Ground:
    """A fold with its features, and who else is labelled."""

    data: FoldData
    source: tuple[str, ...]
    """Utterances of other languages whose labels are there from the start."""


def run_trial(
    config: Mapping[str, Any], *, sweep: SweepOptions, grounds: Mapping[str, Mapping[int, ray.ObjectRef]]
) -> None:
    """Train a point and report its score on dev: after every training, or every epoch of a single one of adapters."""
    torch.set_num_threads(1)  # trials run side by side, and sums do not depend on how many do
    labels: Mapping[str, Plain] = config.get(POINT, config)
    options = sweep.at(labels)
    folds = grounds[hearing(options)]
    cells = [(fold, seed) for fold in folds for seed in options.seeds]
    by_epoch = reports_epochs(options, len(cells))
    known = _known(read_record(sweep.run, point_name(labels)), by_epoch)
    for report in known:
        tune.report(report)
    if known and known[-1]["last"]:
        return
    scores = [report["score"] for report in known]
    for number, (fold, seed) in enumerate(cells[len(known) :], len(known) + 1):
        started = time.perf_counter()
        for epoch, told in _scores(folds[fold], options, seed, sweep):
            seconds = time.perf_counter() - started
            if epoch is None:
                scores.append(told)
                step = options.finetune.epochs + 2 if by_epoch else number
                tune.report(_report(step, float(np.mean(scores)), told, seconds, last=number == len(cells)))
            elif by_epoch:
                tune.report(_report(epoch + 1, told, told, seconds))


def _scores(
    ground: ray.ObjectRef, options: TrainingOptions, seed: int, sweep: SweepOptions
) -> Iterator[tuple[int | None, float]]:
    """Dev score after each epoch of the adapters, then, with None for the epoch, that of the model that was kept.

    Adapters train in a process of their own, since Ray Train refuses to work inside a function of Tune's; it ends with
    the trial that waits for it.
    """
    if options.finetune.frozen:
        yield None, train_once(ray.get(ground), options, seed, sweep.metric)
        return
    needs = {"num_cpus": 0.0}  # with Ray Train workers, they hold the cores
    if not options.cluster.train_workers:
        needs = {"num_cpus": TRAINING_SHARE * sweep.cpus_per_trial}
        needs |= {"num_gpus": sweep.gpus_per_trial} if options.cluster.use_gpu else {}
    outside = PlacementGroupSchedulingStrategy(placement_group=None)
    task = _training_task.options(scheduling_strategy=outside, **needs)
    for reference in task.remote(ground, options, seed, sweep.metric):
        yield ray.get(reference)


def _training(ground: Ground, options: TrainingOptions, seed: int, metric: str) -> Iterator[tuple[int | None, float]]:
    torch.set_num_threads(1)
    told: SimpleQueue[tuple[int | None, float] | BaseException] = SimpleQueue()

    def work() -> None:
        try:
            hear = None if options.cluster.train_workers else each_epoch
            told.put((None, train_once(ground, options, seed, metric, hear)))
        except BaseException as error:
            told.put(error)

    def each_epoch(values: Mapping[str, Any]) -> None:
        told.put((int(values["epoch"]), float(values[f"dev_{metric}"])))

    Thread(target=work, daemon=True).start()
    while True:
        item = told.get()
        if isinstance(item, BaseException):
            raise item
        yield item
        if item[0] is None:
            return


_training_task = ray.remote(max_retries=0)(_training)


def reports_epochs(options: TrainingOptions, cells: int) -> bool:
    """Whether a trial reports epochs: where all there is is one training of adapters, in one process."""
    return cells == 1 and not options.finetune.frozen and not options.cluster.train_workers


def _known(record: Mapping[str, Any] | None, by_epoch: bool) -> list[dict[str, Any]]:
    """Reports that need not be computed again. Half a training is of no use; half of many trainings is."""
    if record is None or record["state"] == FAILED or (record["state"] == RUNNING and by_epoch):
        return []
    known: list[dict[str, Any]] = record["reports"]
    return [*known[:-1], {**known[-1], "last": True}] if record["state"] == STOPPED and known else known


def train_once(
    ground: Ground, options: TrainingOptions, seed: int, metric: str, on_report: OnReport | None = None
) -> float:
    """Train on one fold with one seed; the score on its dev speakers."""
    folder = tempfile.mkdtemp(prefix="seral-trial-")
    try:
        train(ground, options, folder, seed, on_report)
        return float(judge(ground, ground.data.fold.dev, folder)[metric])
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def train(ground: Ground, options: TrainingOptions, folder: str, seed: int, on_report: OnReport | None = None) -> None:
    """Train on the labels of a fold, and of the source, and write the model to `folder`/model."""
    data, oracle = ground.data, ground.data.oracle()
    ids = [*data.fold.train, *ground.source]
    finetune(
        data.utterances(ids),
        oracle.targets(ids),
        data.utterances(data.fold.dev),
        oracle.targets(data.fold.dev),
        unlabelled=data.utterances(data.fold.train),
        store=data.store,
        classes=data.classes,
        dimensions=data.dimensions,
        folder=folder,
        seed=seed,
        options=options.finetune,
        on=options.cluster,
        source=data.utterances(ground.source) if ground.source else None,
        anchor=options.anchor,
        on_report=on_report,
    )


def judge(ground: Ground, ids: Sequence[str], folder: str) -> dict[str, Any]:
    """What a model makes of some clips: its scores, and what it says of each."""
    data = ground.data
    known = (data.utterances(ids), data.oracle().targets(ids))
    return evaluate_model(f"{folder}/model", data.store, *known, data.classes, data.dimensions)


def hearing(options: TrainingOptions) -> str:
    """A name of what features depend on: encoder, transcripts, pretraining."""
    return repr((options.encoder, options.text_encoder, options.tapt and options.tapt.model_dump_json()))


def _report(step: int, dev: float, of_training: float, seconds: float, *, last: bool = False) -> dict[str, Any]:
    """`dev`: mean over the trainings so far; `score`, `seconds`: of the last one."""
    return {"step": step, "dev": dev, "score": of_training, "seconds": seconds, "last": last}
