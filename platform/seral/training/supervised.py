"""Training on all labels there are: a model for every fold and seed, tested on speakers it has not heard.

RUN/config.yaml, environment.json      the resolved options; versions, pool, protocol
RUN/models/fold-<FF>.seed-<S>/model/   the models, for `seral predict`
RUN/cells/, table.csv, table.md        see seral.task.cells
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from typing import Any, Literal

import pyarrow as pa
import ray

from seral import storage
from seral.errors import OptionError, StateError
from seral.features.store import FeatureStore
from seral.pool.shards import Pool, open_pool
from seral.pool.splits import folds_of
from seral.pretraining.tapt import adapt_encoder
from seral.task.cells import CELLS, Cell, write_study_table
from seral.task.context import RunContext
from seral.task.examples import Targets, Utterances
from seral.task.folds import FoldData, features_of, fold_data, with_centring
from seral.task.options import protocol_name
from seral.task.ray_train import OnReport
from seral.task.run import verb_of, write_environment
from seral.task.study import Study, run_study
from seral.training.augmented import check_noises
from seral.training.data import Labelled, Source, TrainingData
from seral.training.finetune import cached_layer, finetune
from seral.training.history import effect_columns
from seral.training.linear_probe import probe_metrics
from seral.training.options import SupervisedOptions, TrainingOptions
from seral.training.scoring import evaluate_model
from seral.training.source import source_models, with_features
from seral.training.sources import sides

MODELS = "models"
MAY_CHANGE = {"run", "cluster", "folds", "seeds"}


@dataclass(frozen=True, kw_only=True)
class FoldExamples:
    """Examples that trainings of one fold work on: its features, and utterances of the source, labelled too."""

    number: int
    data: FoldData
    source: pa.Table
    """Metadata of utterances of other languages whose labels are there from the start."""
    variants: Mapping[str, FoldData] = field(default_factory=dict)
    """Features of the fold in other pools, where it sounds otherwise, by their names."""

    def labelled(self, ids: Sequence[str]) -> tuple[Utterances, Targets]:
        """Features and labels of some utterances."""
        return self.data.utterances(ids), self.data.oracle().targets(ids)


def examples_of(options: TrainingOptions, pool: Pool, tapt: str) -> dict[int, FoldExamples]:
    """Examples of each fold by its number; `tapt` is the folder of adapted encoders."""
    metadata, source = sides(options, pool)
    check_noises(options.finetune.augment, pool, metadata)
    examples, stores = dict[int, FoldExamples](), dict[str, FeatureStore]()
    for number, fold in folds_of(metadata, options.split, options.folds).items():
        encoder = options.encoder
        if options.tapt is not None:
            folder = storage.join(tapt, f"fold-{number:02d}")
            encoder = adapt_encoder(
                pool, fold.train, encoder, folder, options.tapt, options.cluster, partial(features_of, options, pool)
            )
        if encoder not in stores:
            stores[encoder] = features_of(options, pool, encoder, cached_layer(encoder, options.finetune))
        data = fold_data(options, stores[encoder], fold, metadata)
        examples[number] = FoldExamples(number=number, data=data, source=with_features(source, data))
    data_of = {number: fold.data for number, fold in examples.items()}
    centred = with_centring(data_of, source, options.finetune.normalise)
    return {number: replace(fold, data=centred[number]) for number, fold in examples.items()}


def with_variants(options: SupervisedOptions, fold: FoldExamples) -> FoldExamples:
    """The examples of a fold with its features in other pools. Raises OptionError where one lacks test clips."""
    variants = {}
    for name, uri in options.variants.items():
        pool, data = open_pool(uri), fold.data
        if absent := sorted(set(data.fold.test) - set(pool.ids["utterance_id"].to_pylist())):
            raise OptionError(f"variants.{name}: {uri} lacks {len(absent)} test clips, e.g. {absent[0]}")
        store = features_of(options, pool, data.store.encoder, cached_layer(data.store.encoder, options.finetune))
        variants[name] = fold_data(options, store, data.fold, data.metadata)
    return replace(fold, variants=variants)


def describe(options: TrainingOptions, pool: Pool, examples: dict[int, FoldExamples]) -> None:
    """Write what trainings stand on."""
    facts = {"n_train": {str(number): len(fold.data.fold.train) for number, fold in examples.items()}}
    write_environment(options, pool, protocol_name(options, pool), facts)


def run_train(options: SupervisedOptions) -> str:
    """Train what is missing, and write the table to the run folder; returns it as text."""
    return run_study(options, "train", MAY_CHANGE, _plan)


def _plan(context: RunContext[SupervisedOptions]) -> Study:
    options, pool = context.options, context.pool
    examples = examples_of(options, pool, storage.join(options.run, "tapt"))
    describe(options, pool, examples)
    examples = {number: with_variants(options, fold) for number, fold in examples.items()}
    arguments: dict[Cell, Sequence[Any]] = {}
    for number, fold in examples.items():
        shared = ray.put(fold)
        cells = [Cell(row=options.finetune.adapter, fold=number, seed=seed) for seed in options.seeds]
        arguments |= dict.fromkeys(cells, (shared, options))
    return Study(
        cell=_train_cell,
        stages=[(f"{len(arguments)} trainings", arguments)],
        write=lambda results: write_study_table(options.run, results, {}),
    )


def best_model(run: str) -> str | None:
    """The model with the best dev score of all folds and seeds; None where there is no training at `run`.

    Raises StateError where none has come to its end.
    """
    if verb_of(run) != "train" and not storage.exists(storage.join(run, MODELS)):
        return None
    cells = [storage.read_json(storage.join(run, CELLS, name)) for name in storage.list_names(storage.join(run, CELLS))]
    if not cells:
        raise StateError(f"no training of {run} has come to its end: run it again")
    return storage.join(run, max(cells, key=lambda values: values["dev"])["model"])


def _train_cell(cell: Cell, folder: str, examples: FoldExamples, options: SupervisedOptions) -> dict[str, Any]:
    path = storage.join(MODELS, f"fold-{cell.fold:02d}.seed-{cell.seed}")
    model = storage.join(options.run, path)
    storage.remove(model)  # what a killed training left
    history = train(examples, options, model, cell.seed)
    metric, data, fold = "uar" if options.classes else "ccc", examples.data, examples.data.fold
    train_part, dev_part, test_part = (examples.labelled(ids) for ids in (fold.train, fold.dev, fold.test))
    return {
        "labels": len(fold.train),
        **judge(examples, "test", model),
        **probe_metrics(train_part, dev_part, test_part, len(data.classes)),
        **{f"{name}_{metric}": judge(examples, "test", model, name)[metric] for name in examples.variants},
        "dev": judge(examples, "dev", model)[metric],
        **effect_columns(history),
        "model": storage.join(path, "model"),
        "history": history,
    }


def train(
    fold: FoldExamples, options: TrainingOptions, folder: str, seed: int, on_report: OnReport | None = None
) -> dict[str, Any]:
    """Train on all labels of a fold, and of the source, and write the model to `folder`/model; returns its history."""
    data, ids, source = fold.data, fold.source["utterance_id"].to_pylist(), None
    models = source_models(options, data, fold.source, storage.join(folder, "source"))
    if ids or models is not None:
        source = Source(units=data.utterances(ids), anchor=options.anchor, models=models)
    training = TrainingData(
        train=Labelled(*fold.labelled([*data.fold.train, *ids])),
        dev=Labelled(*fold.labelled(data.fold.dev)),
        unlabelled=data.unlabelled,
        store=data.store,
        classes=data.classes,
        dimensions=data.dimensions,
        source=source,
        centrings=data.centrings,
    )
    return finetune(training, options.finetune, folder, seed=seed, on=options.cluster, on_report=on_report)


def judge(
    examples: FoldExamples, part: Literal["dev", "test"], folder: str, variant: str | None = None
) -> dict[str, Any]:
    """Scores of a model on a part of the fold, and under `predicted` its outputs for each clip."""
    data = examples.data if variant is None else examples.variants[variant]
    ids = getattr(data.fold, part)
    targets = examples.data.oracle().targets(ids)
    units = data.utterances(ids)
    return evaluate_model(storage.join(folder, "model"), data, units, targets, examples.data.shifts)
