"""Two-stage adaptation: adapters learn on acted speech, then go on learning on natural speech, some of them frozen.

Lashkarashvili et al. 2024 (arXiv 2402.11747). Beside the two stages stand source only, target only and joint training,
each with as many optimiser steps as both stages together. After every training both domains are tested, on speakers
nobody trained on.

RUN/stage-1/fold-<FF>.seed-<S>/    the model that stage 2 starts from
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from math import ceil
from typing import Any

import pyarrow as pa
import ray

from ser_models.adapters.composition import attach_adapters
from ser_models.adapters.parameters import adapter_tags
from ser_models.encoders import load_encoder
from seral import storage
from seral.errors import OptionError
from seral.pool.splits import Fold, check_apart, folds_of
from seral.studies.compare import labelled_share
from seral.studies.options import TwoStageOptions
from seral.task.cells import Cell, write_study_table
from seral.task.context import RunContext
from seral.task.examples import Targets, Unlabelled, Utterances
from seral.task.folds import FoldData
from seral.task.gold import Oracle
from seral.task.study import Study, run_study
from seral.training.augmented import check_noises
from seral.training.data import Labelled, TrainingData
from seral.training.finetune import Start, finetune, frames_layer
from seral.training.linear_probe import probe_metrics
from seral.training.scoring import evaluate_scores, score

MAY_CHANGE = {"run", "cluster", "seeds", "freeze", "refit_head"}
STAGE_1, REFITTED, TARGET_ONLY = "stage 1", "stage 2, head refitted", "target only"


@dataclass(frozen=True, kw_only=True)
class Plan:
    """One training: on which domains, for how long, from where."""

    domains: tuple[str, ...]
    steps: int
    start: str | None = None
    freeze: tuple[str, ...] = ()
    refit_head: bool = False


@dataclass(frozen=True, kw_only=True)
class Domains:
    """The two sides of a transfer: a fold each, in one pool."""

    data: FoldData
    source: Fold
    target: Fold
    target_share: float

    def ids(self, part: str, domains: Sequence[str], seed: Sequence[int]) -> list[str]:
        """Utterances of train, dev or test; of the target's training part the labelled share."""
        chosen: list[str] = []
        for domain in domains:
            ids = getattr(getattr(self, domain), part)
            short = part == "train" and domain == "target"
            chosen += labelled_share(ids, self.target_share, list(seed)) if short else ids
        return chosen


def run_two_stage(options: TwoStageOptions) -> str:
    """Compute what is missing of the table and write it to the run folder; returns it as text."""
    _check_tags(options)
    return run_study(options, "two-stage", MAY_CHANGE, _plan)


def _plan(context: RunContext[TwoStageOptions]) -> Study:
    options = context.options
    parts = (options.source, options.target)
    tables = [context.eligible(part.corpora) for part in parts]
    check_apart({"the source": tables[0], "the target": tables[1]})
    metadata = pa.concat_tables(tables)
    check_noises(options.finetune.augment, context.pool, metadata)
    folds = [folds_of(table, part.split, part.folds) for table, part in zip(tables, parts, strict=True)]
    store = context.features(frames_layer=frames_layer(options.encoder, options.finetune))
    context.write_environment("->".join("+".join(part.corpora or ["all"]) for part in parts), {})
    source = next(iter(folds[0].values()))
    shared = {}
    for number, fold in folds[1].items():
        data, left = (context.fold_data(store, part, metadata) for part in (fold, source))
        domains = Domains(data=data, source=left.fold, target=data.fold, target_share=options.target_share)
        shared[number] = ray.put(domains)
    stages = []
    for rows in ([STAGE_1], [name for name in plans(options, "") if name != STAGE_1]):
        cells = [Cell(row=row, fold=number, seed=seed) for row in rows for number in shared for seed in options.seeds]
        stages.append((f"{', '.join(rows)}: trainings", {cell: (shared[cell.fold], options) for cell in cells}))
    baseline = dict.fromkeys(plans(options, ""), TARGET_ONLY)
    return Study(
        cell=train_cell,
        stages=stages,
        write=lambda results: write_study_table(options.run, results, baseline),
    )


def plans(options: TwoStageOptions, first: str) -> dict[str, Plan]:
    """The rows of the table; `first` is the folder of stage 1's model."""
    steps = round(options.first_share * options.steps)
    second = {
        f"stage 2, {'+'.join(tags) or 'nothing'} frozen": Plan(
            domains=("target",), steps=options.steps - steps, start=first, freeze=tuple(tags)
        )
        for tags in options.freeze
    }
    if options.refit_head:
        second[REFITTED] = Plan(domains=("target",), steps=options.steps - steps, start=first, refit_head=True)
    return {
        STAGE_1: Plan(domains=("source",), steps=steps),
        **second,
        "source only": Plan(domains=("source",), steps=options.steps),
        TARGET_ONLY: Plan(domains=("target",), steps=options.steps),
        "joint": Plan(domains=("source", "target"), steps=options.steps),
    }


def train_cell(cell: Cell, folder: str, domains: Domains, options: TwoStageOptions) -> dict[str, Any]:
    """One training, tested on both domains: `uar` is the target's."""
    first = storage.join(options.run, "stage-1", f"fold-{cell.fold:02d}.seed-{cell.seed}")
    plan, data, seed = plans(options, first)[cell.row], domains.data, (cell.seed, cell.fold)
    labelled = partial(_labelled, domains, data.oracle(), seed=seed)
    train, dev = (labelled(part, plan.domains) for part in ("train", "dev"))
    steps = ceil(len(train[0].ids) * options.finetune.views_per_clip / options.finetune.batch_size)
    epochs = max(1, round(plan.steps / steps))
    training = TrainingData(
        train=Labelled(*train),
        dev=Labelled(*dev),
        # Of both domains, whatever is labelled: unlabelled speech of the target is there from the start.
        unlabelled=Unlabelled.of(data.utterances([*domains.source.train, *domains.target.train])),
        store=data.store,
        classes=data.classes,
        dimensions=data.dimensions,
    )
    learning = options.finetune.model_copy(update={"epochs": epochs, "steps": None, "patience": epochs})
    start = None if plan.start is None else Start(model=plan.start, freeze=plan.freeze, refit_head=plan.refit_head)
    history = finetune(training, learning, folder, seed=cell.seed, on=options.cluster, start=start)
    model = storage.join(folder, "model")
    tested: dict[str, Any] = {}
    for domain in ("target", "source"):
        test = labelled("test", (domain,))
        probed = probe_metrics(train, dev, test, len(data.classes))
        scores = score(model, data.store, test[0])
        tested[domain] = evaluate_scores(scores, test[1], data.classes, data.dimensions, data.metrics) | probed
    if cell.row == STAGE_1:
        storage.remove(first)
        storage.copy_folder(model, first)
    return {
        "labels": len(train[0].ids),
        "steps": epochs * steps,
        "trainable": history["adapter"]["trainable"],
        **tested["target"],
        **{f"source_{name}": value for name, value in tested["source"].items()},
        "history": history,
    }


def _labelled(
    domains: Domains, oracle: Oracle, part: str, names: Sequence[str], *, seed: Sequence[int]
) -> tuple[Utterances, Targets]:
    ids = domains.ids(part, names, seed)
    return domains.data.utterances(ids), oracle.targets(ids)


def _check_tags(options: TwoStageOptions) -> None:
    """Say before anything is trained that a part to freeze does not exist."""
    encoder = attach_adapters(load_encoder(options.encoder), options.finetune.adapters(), seed=0)
    tags_of_parts = {*adapter_tags(encoder), "head", "layer_sum"}
    if unknown := sorted({tag for tags in options.freeze for tag in tags} - tags_of_parts):
        parts = ", ".join(sorted(tags_of_parts))
        raise OptionError(f"freeze: {options.finetune.adapter!r} has no part {unknown[0]!r}; it has {parts}")
