"""What local attributes bring: the WAP-Transformer in every ablation, with a linear probe on the same labels beside it.

Song et al. 2025, arXiv 2509.23795. An adapter is trained once for all rows that share it.

RUN/config.yaml environment.json           see seral.task.run
RUN/adapters/cells/<adapter>.fold-<FF>.seed-<S>.json    collapse guards and losses of its training
RUN/adapters/weights/<adapter>.fold-<FF>.seed-<S>/      the teacher, see ser_models.adapters.wap
RUN/cells/ table.csv table.md              see seral.task.cells
"""

from __future__ import annotations

import hashlib
import time
from collections.abc import Mapping, Sequence
from dataclasses import replace
from functools import partial
from typing import Any, Literal, Self

import numpy as np
import ray
import torch
from pydantic import Field, field_validator, model_validator

from ser_models.adapters.wap import WapOptions, WapTransformer, load_wap
from ser_models.encoders import load_encoder
from ser_models.wap_classifier import WapClassifier, count_trained
from seral import storage
from seral.errors import OptionError
from seral.features.frames import FrameSource, survey
from seral.options import Options
from seral.pool.shards import Pool
from seral.pool.splits import folds_of
from seral.pretraining.local_attributes import AdapterSpec, AdapterTrainingOptions, fresh_wap, train_adapter
from seral.progress import say
from seral.studies.compare import labelled_share
from seral.task.cells import Cell, run_cells, write_study_table
from seral.task.context import open_run
from seral.task.eligibility import eligible
from seral.task.folds import FoldData, features_of, fold_data
from seral.task.options import ProtocolOptions, protocol_name
from seral.task.run import write_environment
from seral.training.linear_probe import linear_probe
from seral.training.model import evaluate
from seral.training.wap_finetune import (
    Frames,
    LabelledPart,
    WapFinetuneOptions,
    finetune_wap,
    predict,
    start_classifier,
)

PROBE, LAYER_PROBE = "linear probe", "linear probe, same layer"
PROBES = (PROBE, LAYER_PROBE)
"""The bar on the best hidden state by dev, and on the one that the adapter stands on."""
MAY_CHANGE = {"run", "cluster", "folds", "seeds"}
"""Options a resumed run may be given anew: where it runs, and further folds and seeds."""


class RowOptions(Options):
    """One line of the table: the whole method, or what is left when a part of it is taken away."""

    name: str
    """How the line is called."""
    adapter_training: bool = True
    """Train the adapter on unlabelled speech before it is fine-tuned."""
    alpha: float = Field(default=1.0, ge=0)
    """Weight of the self-distillation of clips."""
    beta: float = Field(default=1.0, ge=0)
    """Weight of the local attributes."""
    pooling: Literal["attentive", "mean"] = "attentive"
    """attentive: mean and deviation under learned frame weights; mean: the plain mean."""
    output: Literal["weighted", "last"] = "weighted"
    """weighted: all layers of the adapter under learned weights; last: its last layer."""

    @property
    def adapter(self) -> str:
        """Name of the trained adapter: the same for all rows that can share it."""
        return f"alpha={self.alpha:g}-beta={self.beta:g}-{self.output}"


ROWS = (
    RowOptions(name="local attributes"),
    RowOptions(name="without adapter training", adapter_training=False),
    RowOptions(name="without attributes", beta=0),
    RowOptions(name="without self-distillation", alpha=0),
    RowOptions(name="mean pooling", pooling="mean"),
    RowOptions(name="last layer", output="last"),
)


class LocalAttributesOptions(ProtocolOptions):
    """The study, whole."""

    rows: list[RowOptions] = Field(default=list(ROWS), min_length=1)
    """The lines of the table; every one is run in every fold with every seed."""
    layer: int | None = Field(default=None, ge=0)
    """The adapter stands on this hidden state of the encoder; None = the last, as in the paper."""
    stride: int = Field(default=1, ge=1)
    """So many frames in a row are averaged to one before the adapter sees them."""
    label_fraction: float = Field(default=1.0, gt=0, le=1)
    """Share of the training utterances that is labelled, drawn at random by seed; all serve unlabelled."""
    layers: int = Field(default=3, ge=1)
    """Transformer layers of the adapter."""
    heads: int = Field(default=4, ge=1)
    """Attention heads of each."""
    feedforward: int = Field(default=1024, ge=1)
    """Inner width of their feed-forward part."""
    dropout: float = Field(default=0.1, ge=0, lt=1)
    """Dropout inside the adapter."""
    adapter: AdapterTrainingOptions = AdapterTrainingOptions()
    finetune: WapFinetuneOptions = WapFinetuneOptions()

    @field_validator("rows")
    @classmethod
    def _check_names(cls, rows: list[RowOptions]) -> list[RowOptions]:
        names = [row.name for row in rows] + [*PROBES]
        if twice := sorted({name for name in names if names.count(name) > 1}):
            raise ValueError(f"every row needs a name of its own (and not a probe's), more than once: {twice}")
        return rows

    @model_validator(mode="after")
    def _check_classes(self) -> Self:
        if self.dimensions:
            raise ValueError(f"this study tells classes apart and predicts no dimensions, got {self.dimensions}")
        return self

    def wap(self, row: RowOptions) -> WapOptions:
        """The adapter of a row."""
        sizes = {name: getattr(self, name) for name in ("layers", "heads", "feedforward", "dropout")}
        return WapOptions(output=row.output, **sizes)


def run_local_attributes(options: LocalAttributesOptions) -> str:
    """Run the study, or what is missing of it; returns the table as Markdown."""
    context = open_run(options, "local-attributes", MAY_CHANGE)
    options, pool = context.options, context.pool
    metadata = eligible(options, pool, options.corpora)
    folds = folds_of(metadata, options.split, options.folds)
    source = _source(options, pool)
    grounds = {number: fold_data(options, source.store, fold, metadata) for number, fold in folds.items()}
    facts = {
        "encoder_fingerprint": source.store.fingerprint,
        "layer": source.layer,
        "n_train": {str(number): len(data.fold.train) for number, data in grounds.items()},
    }
    write_environment(options, pool, protocol_name(options, pool), facts)
    weights = _train_adapters(options, source, grounds)
    return _finetune_rows(options, source, grounds, weights)


def _source(options: LocalAttributesOptions, pool: Pool) -> FrameSource:
    """The frames that adapters stand on, extracted where they are missing."""
    last = load_encoder(options.encoder).num_layers
    layer = last if options.layer is None else options.layer
    if layer > last:
        raise OptionError(f"layer {layer} does not exist: {options.encoder} has hidden states 0..{last}")
    store = features_of(options, pool, options.encoder, layer)
    return FrameSource(store=store, layer=layer, stride=options.stride)


def _train_adapters(
    options: LocalAttributesOptions, source: FrameSource, grounds: Mapping[int, FoldData]
) -> dict[Cell, str]:
    """Every adapter that a row needs, once per fold and seed; returns where their weights are."""
    run = storage.join(options.run, "adapters")
    needed = {row.adapter: row for row in options.rows if row.adapter_training}
    weights, arguments = dict[Cell, str](), dict[Cell, Sequence[Any]]()
    for name, row in needed.items():
        for number, data in grounds.items():
            for seed in options.seeds:
                cell = Cell(row=name, fold=number, seed=seed)
                weights[cell] = storage.join(run, "weights", cell.name)
                spec = AdapterSpec(
                    source=source,
                    ids=data.fold.train,
                    wap=options.wap(row),
                    alpha=row.alpha,
                    beta=row.beta,
                    seed=seed,
                    options=options.adapter,
                    on=options.cluster,
                )
                arguments[cell] = (spec, weights[cell])
    found = run_cells(run, adapter_cell, arguments, options.cluster, f"{len(arguments)} adapters")
    for cell, history in found.items():
        for sign in history["collapse"]:
            say(f"warning: the teacher of {cell.name} collapses, {sign}")
    return weights


def adapter_cell(cell: Cell, folder: str, spec: AdapterSpec, target: str) -> dict[str, Any]:
    """Train one adapter and keep its teacher in `target`; returns the history."""
    storage.remove(target)
    start = time.perf_counter()
    history = train_adapter(spec, name=f"adapter-{_digest(cell, spec)}", work=folder, target=target)
    return {**history, "seconds": time.perf_counter() - start}


def _finetune_rows(
    options: LocalAttributesOptions,
    source: FrameSource,
    grounds: Mapping[int, FoldData],
    weights: Mapping[Cell, str],
) -> str:
    shared = {number: ray.put(data) for number, data in grounds.items()}
    arguments = dict[Cell, Sequence[Any]]()
    for row in options.rows:
        for number in grounds:
            for seed in options.seeds:
                start = weights[Cell(row=row.adapter, fold=number, seed=seed)] if row.adapter_training else None
                given = (shared[number], source, row, start, options)
                arguments[Cell(row=row.name, fold=number, seed=seed)] = given
    found = run_cells(options.run, row_cell, arguments, options.cluster, f"{len(arguments)} fine-tunes")
    first = options.rows[0].name
    probes = {
        Cell(row=probe, fold=cell.fold, seed=cell.seed): values[probe]
        for probe in PROBES
        for cell, values in found.items()
        if cell.row == first
    }
    baseline = {row.name: PROBE for row in options.rows}
    return write_study_table(options.run, {**probes, **found}, baseline)


def row_cell(
    cell: Cell,
    _folder: str,
    data: FoldData,
    source: FrameSource,
    row: RowOptions,
    weights: str | None,
    options: LocalAttributesOptions,
) -> dict[str, Any]:
    """Fine-tune a row's adapter and judge it on the test speakers; cells of the first row hold the linear probe too."""
    started = time.perf_counter()
    oracle = data.oracle()
    ids = labelled_share(data.fold.train, options.label_fraction, [cell.seed, cell.fold])
    train, dev, test = (
        LabelledPart(ids=part, label_N=oracle.targets(part).label_N) for part in (ids, data.fold.dev, data.fold.test)
    )
    frames = source.frames([*data.fold.train, *dev.ids, *test.ids])
    model = start_classifier(
        _adapter(data, source, row, weights, options, cell.seed).to(_device(options)),
        frames,
        train,
        unlabelled=data.fold.train,
        classes=len(data.classes),
        pooling=row.pooling,
        seed=cell.seed,
        options=options.finetune,
    )
    parts = (train, dev, test)
    # The same for every row: once is enough.
    first = cell.row == options.rows[0].name
    layers = {PROBE: slice(None), LAYER_PROBE: slice(source.layer, source.layer + 1)} if first else {}
    probes = {name: _probe(data, parts, some) for name, some in layers.items()}
    judged = partial(_judge, model, frames, test, data.classes)
    start = judged()
    history = finetune_wap(model, frames, train, dev, seed=cell.seed, options=options.finetune)
    best = int(np.argmin([epoch["dev_loss"] for epoch in history]))
    return {
        **judged(),
        "dev_uar": history[best]["dev_uar"],
        "epoch": best,
        "trained": count_trained(model),
        "start": {"dev_uar": history[0]["dev_uar"], **start},
        "history": history,
        **probes,
        "labelled": len(ids),
        "seconds": time.perf_counter() - started,
    }


def _judge(model: WapClassifier, frames: Frames, test: LabelledPart, classes: Sequence[str]) -> dict[str, Any]:
    return evaluate(test.label_N, predict(model, frames, test.ids).softmax(1).numpy(), classes)


def _probe(data: FoldData, parts: Sequence[LabelledPart], layers: slice) -> dict[str, Any]:
    """The linear probe on the same labels, on the best of some hidden states."""
    kept = []
    for part in parts:
        units = data.utterances(part.ids)
        some = replace(units, mean_NLD=units.mean_NLD[:, layers], std_NLD=units.std_NLD[:, layers])
        kept.append((some, part.label_N))
    found = linear_probe(kept[0], kept[1], kept[2], len(data.classes))
    layer = found["layer"] + (layers.start or 0)
    return {"uar": found["test_uar"], "dev_uar": found["dev_uar"], "layer": layer, "confusion": found["confusion"]}


def _adapter(
    data: FoldData,
    source: FrameSource,
    row: RowOptions,
    weights: str | None,
    options: LocalAttributesOptions,
    seed: int,
) -> WapTransformer:
    """The row's adapter before fine-tuning."""
    if weights is None:
        return fresh_wap(survey(source, data.fold.train), options.wap(row), seed)[0]
    with storage.local_copy(weights) as local:
        return load_wap(local)


def _device(options: LocalAttributesOptions) -> torch.device:
    return torch.device("cuda" if options.cluster.use_gpu else "cpu")


def _digest(cell: Cell, spec: AdapterSpec) -> str:
    """What decides the outcome of a training, so that two different ones never share a Ray Train run name."""
    text = [cell.name, spec.source.store.fingerprint, spec.source.layer, spec.ids, spec.wap, spec.options]
    return hashlib.sha256(repr(text).encode()).hexdigest()[:16]
