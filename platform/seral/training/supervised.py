"""Training on all labels there are: a model for every fold and seed, tested on speakers it has not heard.

RUN/config.yaml, environment.json      the resolved options; versions, pool, protocol
RUN/models/fold-<FF>.seed-<S>/model/   the models, for `seral predict`
RUN/cells/, table.csv, table.md        see seral.task.cells
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, Literal

import ray
from pydantic import Field, field_validator

from seral import storage
from seral.errors import OptionError, StateError
from seral.features.store import FeatureStore
from seral.pool.shards import Pool, open_pool
from seral.pool.splits import folds_of
from seral.pretraining.tapt import adapt_encoder
from seral.task.cells import CELLS, Cell, run_cells, study_table, write_table
from seral.task.examples import Targets, Utterances
from seral.task.ray_train import OnReport
from seral.task.run import FoldData, features_of, fold_data, open_run, protocol_name, write_environment
from seral.training.augmented import check_noises
from seral.training.data import Labelled, Source, TrainingData
from seral.training.finetune import finetune, frames_layer
from seral.training.linear_probe import probe_metrics
from seral.training.model import evaluate_model
from seral.training.options import TrainingOptions, sides

MODELS = "models"
MAY_CHANGE = {"run", "cluster", "folds", "seeds"}


class SupervisedOptions(TrainingOptions):
    """A training on all labels, and where its models are tested besides."""

    variants: dict[str, str] = Field(default={})
    """Pools of the same utterances that sound otherwise (`seral pool degrade`), by name: the test clips are heard as
    they are there too, and the table has a column NAME_uar."""

    @field_validator("variants")
    @classmethod
    def _absolute(cls, variants: dict[str, str]) -> dict[str, str]:
        return {name: storage.absolute(uri) for name, uri in variants.items()}


@dataclass(frozen=True, kw_only=True)
class Ground:
    """A fold with its features, and who else is labelled."""

    number: int
    data: FoldData
    source: tuple[str, ...]
    """Utterances of other languages whose labels are there from the start."""
    variants: Mapping[str, FoldData] = field(default_factory=dict)
    """The same fold as it sounds elsewhere."""

    def known(self, ids: Sequence[str]) -> tuple[Utterances, Targets]:
        """Features and labels of some utterances."""
        return self.data.utterances(ids), self.data.oracle().targets(ids)


def grounds_of(options: TrainingOptions, pool: Pool, tapt: str) -> dict[int, Ground]:
    """What trainings of each fold work on, by its number; `tapt` is the folder of adapted encoders."""
    metadata, source = sides(options, pool)
    check_noises(options.finetune.augment, pool, metadata)
    layer = frames_layer(options.encoder, options.finetune)
    found, stores = {}, dict[str, FeatureStore]()
    for number, fold in folds_of(metadata, options.split, options.folds).items():
        encoder = options.encoder
        if options.tapt is not None:
            folder = storage.join(tapt, f"fold-{number:02d}")
            encoder = adapt_encoder(pool, fold.train, encoder, folder, options.tapt, options.cluster)
        if encoder not in stores:
            stores[encoder] = features_of(options, pool, encoder, layer)
        data = fold_data(options, stores[encoder], fold, metadata)
        known = set(data.ids)
        found[number] = Ground(number=number, data=data, source=tuple(name for name in source if name in known))
    return found


def with_variants(options: SupervisedOptions, ground: Ground) -> Ground:
    """A ground that also knows how its fold sounds in other pools. Raises OptionError where one lacks test clips."""
    heard = {}
    for name, uri in options.variants.items():
        pool, data = open_pool(uri), ground.data
        if absent := sorted(set(data.fold.test) - set(pool.ids["utterance_id"].to_pylist())):
            raise OptionError(f"variants.{name}: {uri} lacks {len(absent)} test clips, e.g. {absent[0]}")
        store = features_of(options, pool, data.store.encoder, frames_layer(options.encoder, options.finetune))
        heard[name] = fold_data(options, store, data.fold, data.metadata)
    return replace(ground, variants=heard)


def describe(options: TrainingOptions, pool: Pool, grounds: dict[int, Ground]) -> None:
    """Write what trainings stand on."""
    facts = {"n_train": {str(number): len(ground.data.fold.train) for number, ground in grounds.items()}}
    write_environment(options, pool, protocol_name(options, pool), facts)


def run_train(options: SupervisedOptions) -> str:
    """Train what is missing, and write the table to the run folder; returns it as text."""
    options, pool = open_run(options, MAY_CHANGE)
    grounds = grounds_of(options, pool, storage.join(options.run, "tapt"))
    describe(options, pool, grounds)
    grounds = {number: with_variants(options, ground) for number, ground in grounds.items()}
    arguments: dict[Cell, Sequence[Any]] = {}
    for number, ground in grounds.items():
        shared = ray.put(ground)
        cells = [Cell(row=options.finetune.adapter, fold=number, seed=seed) for seed in options.seeds]
        arguments |= dict.fromkeys(cells, (shared, options))
    found = run_cells(options.run, _train_cell, arguments, options.cluster, f"{len(arguments)} trainings")
    return write_table(options.run, study_table(found, {}))


def best_model(run: str) -> str | None:
    """The model with the best dev score of all folds and seeds; None where there is no training at `run`.

    Raises StateError where none has come to its end.
    """
    if not storage.exists(storage.join(run, MODELS)):
        return None
    cells = [storage.read_json(storage.join(run, CELLS, name)) for name in storage.list_names(storage.join(run, CELLS))]
    if not cells:
        raise StateError(f"no training of {run} has come to its end: run it again")
    return storage.join(run, max(cells, key=lambda found: found["dev"])["model"])


def _train_cell(cell: Cell, folder: str, ground: Ground, options: SupervisedOptions) -> dict[str, Any]:
    place = storage.join(MODELS, f"fold-{cell.fold:02d}.seed-{cell.seed}")
    kept = storage.join(options.run, place)
    storage.remove(kept)  # what a killed training left
    history = train(ground, options, kept, cell.seed)
    metric, data, fold = "uar" if options.classes else "ccc", ground.data, ground.data.fold
    known = (ground.known(fold.train), ground.known(fold.dev), ground.known(fold.test))
    return {
        "labels": len(fold.train),
        **judge(ground, "test", kept),
        **probe_metrics(*known, len(data.classes)),
        **{f"{name}_{metric}": judge(ground, "test", kept, name)[metric] for name in ground.variants},
        "dev": judge(ground, "dev", kept)[metric],
        "model": storage.join(place, "model"),
        "history": history,
    }


def train(
    ground: Ground, options: TrainingOptions, folder: str, seed: int, on_report: OnReport | None = None
) -> dict[str, Any]:
    """Train on all labels of a fold, and of the source, and write the model to `folder`/model; returns its history."""
    data, source = ground.data, ground.data.utterances(ground.source) if ground.source else None
    known = TrainingData(
        train=Labelled(*ground.known([*data.fold.train, *ground.source])),
        dev=Labelled(*ground.known(data.fold.dev)),
        unlabelled=data.utterances(data.fold.train),
        store=data.store,
        classes=data.classes,
        dimensions=data.dimensions,
        source=None if source is None else Source(units=source, anchor=options.anchor),
    )
    return finetune(known, options.finetune, folder, seed=seed, on=options.cluster, on_report=on_report)


def judge(ground: Ground, part: Literal["dev", "test"], folder: str, variant: str | None = None) -> dict[str, Any]:
    """Scores of a model on a part of the fold, and under `predicted` what it says of each clip."""
    data = ground.data if variant is None else ground.variants[variant]
    ids = getattr(data.fold, part)
    targets = ground.data.oracle().targets(ids)
    return evaluate_model(
        storage.join(folder, "model"), data.store, data.utterances(ids), targets, data.classes, data.dimensions
    )
