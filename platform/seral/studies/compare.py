"""Variants of training side by side: adapters, pretraining, shares of the labels, on the same folds and seeds.

Every cell is one supervised training on a random share of a fold's training labels, the same share for every variant,
tested once on speakers nobody trained on, with the linear probe on the same labels beside it.
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from typing import Any

import numpy as np
import ray

from ser_models.adapters.cost import forget_peak_mb, peak_mb
from ser_models.objectives.distillation import teacher_parameters
from seral import storage
from seral.cluster import ClusterOptions
from seral.errors import StateError
from seral.features.store import FeatureStore
from seral.pool.splits import Fold, folds_of
from seral.pretraining.tapt import adapt_encoder
from seral.studies.options import CompareOptions, Variant
from seral.task.cells import Cell, file_name, write_study_table
from seral.task.context import RunContext
from seral.task.folds import FoldData, with_centring
from seral.task.options import protocol_name
from seral.task.study import Study, run_study
from seral.training.augmented import check_noises
from seral.training.data import Labelled, TrainingData
from seral.training.finetune import cached_layer, finetune
from seral.training.finetune_options import FinetuneOptions
from seral.training.history import effect_columns
from seral.training.linear_probe import probe_metrics
from seral.training.scoring import evaluate_model

MAY_CHANGE = {"run", "cluster", "folds", "seeds", "rows", "fractions", "baseline"}
"""Options a resumed run may be given anew. Rows may come and go, but none may change what its name stands for."""


def run_compare(options: CompareOptions) -> str:
    """Compute what is missing of the table and write it to the run folder; returns it as text."""
    return run_study(options, "compare", MAY_CHANGE, _plan)


def _plan(context: RunContext[CompareOptions]) -> Study:
    options, pool = context.options, context.pool
    _claim_rows(options)
    metadata = context.eligible(options.corpora)
    for row in options.rows:
        check_noises(row.finetune.augment, pool, metadata)
    folds = folds_of(metadata, options.split, options.folds)
    arguments: dict[Cell, tuple[Any, ...]] = {}
    baseline: dict[str, str] = {}
    data_of, encoder_of = dict[tuple[str, int], FoldData](), dict[tuple[str, int], str]()
    for row in options.rows:
        for number, fold in folds.items():
            store = _store(context, row, number, fold)
            encoder_of[row.name, number] = store.encoder
            # Pretraining may leave an encoder as it is and put an adapter beside it: the same features, another start.
            if (store.encoder, number) not in data_of:
                data_of[store.encoder, number] = context.fold_data(store, fold, metadata)
    normalised = bool(options.classes) and any(row.finetune.normalise != "none" for row in options.rows)
    data_of = with_centring(data_of, metadata.slice(0, 0), "auto" if normalised else "none")
    shared = {key: ray.put(data) for key, data in data_of.items()}
    for row in options.rows:
        for number in folds:
            for share in options.fractions:
                name = _row_name(row.name, share, options)
                baseline[name] = _row_name(options.baseline or options.rows[0].name, share, options)
                cells = [Cell(row=name, fold=number, seed=seed) for seed in options.seeds]
                work = (shared[encoder_of[row.name, number], number], row.finetune, share, options.cluster)
                arguments |= dict.fromkeys(cells, work)
    context.write_environment(protocol_name(options, pool), {})
    return Study(
        cell=train_cell,
        stages=[(f"{len(arguments)} trainings", arguments)],
        write=lambda results: write_study_table(options.run, results, baseline),
    )


def _claim_rows(options: CompareOptions) -> None:
    """Note what every row means; refuse one whose cells may have been computed with other options."""
    path = storage.join(options.run, "rows.json")
    values_of = storage.read_json(path) if storage.exists(path) else {}
    for row in options.rows:
        # As they are read: a file of an earlier release lacks options that came since.
        if Variant.model_validate(values_of.setdefault(row.name, row.model_dump(mode="json"))) != row:
            raise StateError(f"{options.run} holds a row {row.name!r} with other options; give this one another name")
    storage.write_json(path, values_of)


def train_cell(
    cell: Cell, folder: str, data: FoldData, options: FinetuneOptions, share: float, on: ClusterOptions
) -> dict[str, Any]:
    """Train on a share of the labels and test; numbers for the table, and the predictions behind them."""
    fold, oracle = data.fold, data.oracle()
    parts = {"train": labelled_share(fold.train, share, [cell.seed, cell.fold]), "dev": fold.dev, "test": fold.test}
    examples = {part: (data.utterances(ids), oracle.targets(ids)) for part, ids in parts.items()}
    device = "cuda" if on.use_gpu else "cpu"
    before_mb, started = forget_peak_mb(device), time.perf_counter()
    training = TrainingData(
        train=Labelled(*examples["train"]),
        dev=Labelled(*examples["dev"]),
        unlabelled=data.unlabelled,
        store=data.store,
        classes=data.classes,
        dimensions=data.dimensions,
        centrings=data.centrings,
    )
    history = finetune(training, options, folder, seed=cell.seed, on=on)
    seconds, memory_mb = time.perf_counter() - started, peak_mb(device) - before_mb
    model = storage.join(folder, "model")
    return {
        "share": share,
        "labels": len(parts["train"]),
        **evaluate_model(model, data, *examples["test"], data.shifts),
        **probe_metrics(examples["train"], examples["dev"], examples["test"], len(data.classes)),
        **costs(history, seconds, memory_mb, teacher_parameters(data.store.encoder)),
        **effect_columns(history),
        "history": history,
    }


def costs(history: dict[str, Any], seconds: float, memory_mb: float, teacher: int | None) -> dict[str, float]:
    """Trained parameters, memory, time; a head alone is fitted too quickly for more than the time.

    Of a distilled encoder, trained parameters are also given as a share of its teacher's.
    """
    trainable = history.get("adapter", history["head"])["trainable"]
    sizes = {"trainable": trainable} | ({} if teacher is None else {"teacher_share": trainable / teacher})
    if "adapter" not in history:
        return sizes | {"seconds": seconds}
    epochs = len(history["adapter"]["epochs"]) - 1
    return sizes | {
        "trainable_share": trainable / history["adapter"]["parameters"],
        "memory_mb": memory_mb,
        "epoch_s": seconds / epochs,
        "seconds": seconds,
    }


def labelled_share(ids: Sequence[str], share: float, seed: list[int]) -> list[str]:
    """A random share of the ids, at least one; with one seed, a smaller share lies inside a larger one."""
    order = np.random.default_rng(seed).permutation(len(ids))
    return [ids[index] for index in sorted(order[: max(1, round(share * len(ids)))])]


def _row_name(name: str, share: float, options: CompareOptions) -> str:
    return name if len(options.fractions) == 1 else f"{name}, {100 * share:g} %"


def _store(context: RunContext[CompareOptions], row: Variant, number: int, fold: Fold) -> FeatureStore:
    options, encoder = context.options, context.options.encoder
    if row.tapt is not None:
        # Rows that pretrain alike share the encoder that came of it.
        first = next(other.name for other in options.rows if other.tapt == row.tapt)
        folder = storage.join(options.run, "tapt", file_name(first), f"fold-{number:02d}")
        encoder = adapt_encoder(context.pool, fold.train, encoder, folder, row.tapt, options.cluster, context.features)
    return context.features(encoder, cached_layer(encoder, row.finetune))
