"""The final model of a run: one model of all labels that were bought in it, with a card that says what to expect of it.

OUT/config.yaml, environment.json    the options; versions, pool, protocol
OUT/labels.parquet                   the labels that it learnt from, schema.label_schema
OUT/tapt/, source/                   the adapted encoder; models of labels of other corpora, where the run has them
OUT/model/                           the model, laid out as every model is (seral.training.model)
OUT/fitted.json                      what it was fitted on, written after the model: without it there is none
OUT/README.md, card.json             the model card, and its figures; SHA256SUMS has the checksum of the first

No development set is left out: what the folds chose by theirs is taken over (seral.models.fold_models.settled).
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from contextlib import closing
from functools import partial
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc
import torch

from seral import storage
from seral.errors import StateError
from seral.labels.annotator import Annotator
from seral.loop.annotators import ANNOTATORS
from seral.loop.asking import Answers, answers_in
from seral.loop.learning import examples_of, train_model
from seral.loop.loop import loop_fold
from seral.loop.options import LoopOptions
from seral.loop.rounds import Arm, LoopFold, Round, Trajectory
from seral.models.card import CardFacts, write_card
from seral.models.fold_models import FoldModel, asked_ids, read_fold_models, settled, strategies_of, task_of_run
from seral.models.options import FinalOptions
from seral.models.prediction import FITTED, MODEL
from seral.models.results import Judged
from seral.pool.ids import Ids
from seral.pool.quality_filter import below_quality
from seral.pool.shards import Pool
from seral.pool.splits import Fold, folds_of
from seral.pretraining.tapt import adapt_encoder
from seral.progress import say
from seral.task.context import open_run
from seral.task.folds import features_of, fold_data, with_centring
from seral.task.options import protocol_name
from seral.task.run import write_environment

LABELS = "labels.parquet"
MAY_CHANGE = {"run", "pool", "cluster", "licence", "data_licences", "accuracy"}


def fit_final(options: FinalOptions) -> dict[str, Any]:
    """Fit the final model of a run and write its card; returns the folder, the labels, the expected score.

    Done before on the same labels, only the card is written anew; on others the model is fitted anew.
    """
    options, task = resolved(options)
    models = read_fold_models(options.of, task)
    context = open_run(task.model_copy(update={"run": options.run}), "fit", MAY_CHANGE, config=options, grown=True)
    with storage.writing_to(options.run):
        torch.set_num_threads(1)  # sums do not depend on the machine's cores
        task = task.model_copy(update={"finetune": settled(task.finetune, models)})
        with closing(ANNOTATORS[task.annotator].open(task, context.pool)) as annotator:
            facts = _fit(options, task, context.pool, annotator, models)
        with context.pool.publishing(lambda: [options.run]):
            figures = write_card(options.run, facts)
        write_environment(context.options, context.pool, protocol_name(task, context.pool), {})
        storage.tidy(options.run)
    expected = {name: figures["expected"][name] for name in ("metric", "value", "low", "high", "over")}
    return {"model": options.run, "labels": figures["labels"]["count"], **expected}


def resolved(options: FinalOptions) -> tuple[FinalOptions, LoopOptions]:
    """The options with whole paths and the pool, and those of the run, whose folder stays the one of its ledger."""
    of, run = storage.absolute(options.of), storage.absolute(options.run)
    if of == run:
        raise StateError(f"{run} is the run itself: give the final model a folder of its own, such as {run}/final")
    task = task_of_run(of)
    pool = storage.absolute(options.pool or task.pool)
    # Parts of folds are no matter any more, and so are clips that are alike.
    split = task.split.model_copy(update={"near_duplicates": ()})
    changes = {"run": of, "pool": pool, "split": split, "cluster": options.cluster or task.cluster}
    options = options.model_copy(update={"of": of, "run": run, "pool": pool})
    return options, task.model_copy(update=changes)


def _fit(
    options: FinalOptions, task: LoopOptions, pool: Pool, annotator: Annotator, models: Sequence[FoldModel]
) -> CardFacts:
    """Fit the model, unless it was fitted on the same labels; returns what its card says."""
    metadata, source = ANNOTATORS[task.annotator].candidates(task, pool)
    ids, present = asked_ids(options.of, task), set(metadata["utterance_id"].to_pylist())
    ids = [name for name in (sorted(present) if ids is None else ids) if name in present]
    labels = annotator.labels(ids, 0).sort_by("utterance_id")
    wanted, uri = _fingerprint(task, pool, labels), storage.join(options.run, FITTED)
    before = storage.read_json(uri) if storage.exists(uri) else {}
    model = storage.join(options.run, MODEL)
    if before.get("fingerprint") != wanted or not storage.exists(storage.join(model, "model.json")):
        for name in (FITTED, MODEL, "source", *(["tapt"] if before.get("pool_hash", pool.hash) != pool.hash else [])):
            storage.remove(storage.join(options.run, name))
        with pool.publishing(lambda: [options.run]):
            storage.write_table(storage.join(options.run, LABELS), labels)
            fold = _examples(options.run, task, pool, metadata, source, ids)
            answers = answers_in(_of_clips(labels, fold.data.fold.train), ids, task.dimensions)
            say(f"the final model learns from {len(answers.labelled_ids):,} labels")
            history = _train(options.run, fold, annotator, answers)
            facts = {"labels": len(answers.labelled_ids), "pool_hash": pool.hash, "of": options.of}
            settings = task.finetune.model_dump(mode="json")
            storage.write_json(uri, {"fingerprint": wanted, **facts, "settings": settings, "training": history})
    return CardFacts(
        task=task,
        models=models,
        metadata=metadata,
        labelled=answers_in(labels, ids, task.dimensions).labelled,
        judged=Judged.of(models, annotator, metadata, task.classes, task.dimensions),
        strategies=strategies_of(options.of, task),
        protocol=protocol_name(task, pool),
        licence=options.licence,
        data_licences=options.data_licences,
        accuracy=options.accuracy,
    )


def _examples(
    run: str, task: LoopOptions, pool: Pool, metadata: pa.Table, source: pa.Table, ids: Sequence[str]
) -> LoopFold:
    """One fold that leaves nobody out: all speech that took part in some fold of the run, and all that has a label."""
    number = (task.folds or [0])[0]
    dealt = folds_of(metadata, task.split, [number])[number]
    speech = {*dealt.train, *dealt.dev, *dealt.test}
    speech -= set(below_quality(sorted(speech), metadata, task.min_quality)["utterance_id"].to_pylist())
    fold = Fold(name="all speakers", train=Ids(sorted(speech | set(ids))), dev=Ids(), test=Ids())
    encoder = task.encoder
    if task.tapt is not None:
        features = partial(features_of, task, pool)
        encoder = adapt_encoder(pool, fold.train, encoder, storage.join(run, "tapt"), task.tapt, task.cluster, features)
    # Frames are kept of what is labelled, by the training itself.
    data = fold_data(task, features_of(task, pool, encoder, None), fold, metadata)
    data = with_centring({0: data}, source, task.finetune.normalise)[0]
    return loop_fold(task, data, source, run)


def _train(run: str, fold: LoopFold, annotator: Annotator, answers: Answers) -> dict[str, Any]:
    """Train as the last round of a loop does, on these answers; returns the history."""
    task = fold.options
    this = Round(
        number=0,
        folder=run,
        path=run,
        trajectory=Trajectory(arm=task.strategy.name, fold=0, seed=task.seeds[0]),
        arm=Arm(initial=task.initial, strategy=task.strategy, schedule=(len(answers.labelled_ids),)),
        fold=fold,
        annotator=annotator,
    )
    examples = examples_of(this, answers)
    return train_model(this, examples, examples.target, run, this.seed)


def _of_clips(labels: pa.Table, ids: Ids) -> pa.Table:
    """The labels of some clips: those whose features can be used."""
    return labels.filter(pc.is_in(labels["utterance_id"], pa.array(list(ids), pa.string())))


def _fingerprint(task: LoopOptions, pool: Pool, labels: pa.Table) -> str:
    """A hash of all that decides what the model becomes."""
    asked = task.model_dump_json(exclude={"cluster", "run", "pool", "feature_cache", "track"})
    parts = [asked, pool.hash, repr(labels.drop_columns(["round"]).to_pylist())]
    return hashlib.sha256("\n".join(parts).encode()).hexdigest()
