"""A round's training, and the scores of its model on what is not labelled."""

# M labelled rows · N rows · C classes · U embedding · R repeats (dropout passes, members of an ensemble)
from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from ser_models.metrics import cohen_kappa
from seral import storage
from seral.labels.confident import label_error_scores
from seral.loop.asking import Answers
from seral.loop.rounds import Float, Round, read_scores, round_folder
from seral.selection.strategies.scores import entropy
from seral.task.examples import Targets, Utterances
from seral.task.folds import codes
from seral.training.data import Labelled, Source, TrainingData
from seral.training.finetune import finetune
from seral.training.linear_probe import linear_probe
from seral.training.model import evaluate, score


@dataclass(frozen=True, kw_only=True)
class Examples:
    """The clips of a round that have a label, by what they are for, and those that people found unusable."""

    train: Utterances
    label_M: NDArray[np.int64]
    dev: Utterances
    dev_label_N: NDArray[np.int64]
    test: Utterances
    test_label_N: NDArray[np.int64]
    source: Utterances
    """Speech of other languages."""
    target: Targets
    """The targets of `train` and, after it, of `source`."""
    rejected: Utterances


@dataclass(frozen=True, kw_only=True)
class PoolScores:
    """The output of a round's model for the training clips that nobody was asked about."""

    clips: Utterances
    probability_NC: Float
    columns: dict[str, NDArray[Any]]
    """The columns that the next round's strategy reads; empty where there is none."""


def examples_of(this: Round, answers: Answers) -> Examples:
    """The features and labels that the round's model learns from and is judged by."""
    fold, emotions = this.data.fold, this.annotator.emotions
    parts = (answers.labelled_ids, fold.dev, fold.test, this.fold.source)
    train, dev, test, source = (this.utterances(ids) for ids in parts)
    label_M, dev_label_N, test_label_N, source_label_M = (
        codes(words, this.classes)
        for words in (answers.labelled["emotion"].to_pylist(), *map(emotions, (dev.ids, test.ids, source.ids)))
    )
    target = Targets.of_classes(np.concatenate([label_M, source_label_M]))
    return Examples(
        train=train,
        label_M=label_M,
        dev=dev,
        dev_label_N=dev_label_N,
        test=test,
        test_label_N=test_label_N,
        source=source,
        target=replace(target, soft_NC=_soft_labels(answers.labelled, len(source.ids), len(this.classes))),
        rejected=this.utterances(answers.rejected_ids),
    )


def _soft_labels(labelled: pa.Table, others: int, num_classes: int) -> Float | None:
    """Shares of the classes (M, C), of what is labelled and of `others` that are certain; None where all are."""
    if labelled["probability"].null_count == labelled.num_rows:
        return None
    nothing = [np.nan] * num_classes
    rows = [nothing if row is None else row for row in labelled["probability"].to_pylist()]
    return np.array([*rows, *[nothing] * others], np.float32)


def train_model(this: Round, examples: Examples, target: Targets, folder: str, seed: int) -> dict[str, Any]:
    """Train on the labels so far and write the best model on dev to `folder`/model; returns the training's history."""
    options, source = this.options, examples.source
    data = TrainingData(
        train=Labelled(examples.train.with_others(source), target),
        dev=Labelled(examples.dev, Targets.of_classes(examples.dev_label_N)),
        unlabelled=this.utterances(this.data.fold.train),
        store=this.data.store,
        classes=this.classes,
        source=Source(units=source, anchor=options.anchor) if source.ids else None,
    )
    finetuning = options.finetune.head_only if options.proxy and not this.is_last else options.finetune
    return finetune(data, finetuning, folder, seed=seed, on=options.cluster)


def score_pool(this: Round, examples: Examples, answers: Answers) -> PoolScores:
    """Probabilities of the clips that nobody was asked about, and the columns that the next round selects by."""
    needs = frozenset[str]() if this.is_last else this.arm.strategy.needs
    store, options, clips = this.data.store, this.options, this.utterances(this.unasked(answers.asked_ids))
    passes = options.dropout_passes if "dropout_RNC" in needs and not options.ensemble else 0
    scores, columns = score(this.model, store, clips, dropout_passes=passes, seed=this.seed), dict[str, NDArray[Any]]()
    if "dropout_RNC" in needs:
        columns["dropout_RNC"] = scores.dropout_RNC
    if needs & {"embedding_ND", "labelled_doubt_M"}:
        train_MU, rejected_MU = (
            score(this.model, store, part).embedding_NU for part in (examples.train, examples.rejected)
        )
        if "embedding_ND" in needs:
            both_MU = np.concatenate([train_MU, rejected_MU])
            columns |= {"embedding_ND": scores.embedding_NU, "labelled_embedding_MD": both_MU}
        if "labelled_doubt_M" in needs:
            none_M = np.zeros(len(rejected_MU), np.float32)
            errors_M = label_error_scores(train_MU, examples.label_M, this.seed)
            columns["labelled_doubt_M"] = np.concatenate([errors_M, none_M])
        columns["rejected_M"] = np.repeat([False, True], [len(train_MU), len(rejected_MU)])
    return PoolScores(clips=clips, probability_NC=scores.probability_NC, columns=columns)


def with_ensemble(this: Round, examples: Examples, pool: PoolScores) -> PoolScores:
    """The scores with the predictions of further models, where a strategy reads them instead of dropout passes."""
    if not this.options.ensemble or "dropout_RNC" not in pool.columns:
        return pool
    with this.times.phase("ensemble"):
        member_RNC = np.stack(list(_members(this, examples, pool.clips)))
    return replace(pool, columns=pool.columns | {"dropout_RNC": member_RNC})


def _members(this: Round, examples: Examples, clips: Utterances) -> Iterator[Float]:
    """Probabilities of clips, (N, C), by one further model after the other.

    Each has a seed of its own and the labels weighed by a draw of the Bayesian bootstrap (Rubin 1981), so that heads,
    which have one optimum, differ too and no class is ever without a label.
    """
    for member in range(this.options.ensemble):
        rng = np.random.default_rng([this.seed, member])
        weight_M = rng.exponential(size=len(examples.target.label_N)).astype(np.float32)
        folder = storage.join(this.path, "ensemble")
        target = replace(examples.target, weight_N=weight_M / weight_M.mean())
        train_model(this, examples, target, folder, int(rng.integers(2**31)))
        yield score(storage.join(folder, "model"), this.data.store, clips).probability_NC
        storage.remove(folder)


def evaluations(this: Round, examples: Examples) -> tuple[Float, Float, dict[str, Any]]:
    """Probabilities (N, C) of dev and of test, and the metrics of both."""
    dev_NC, test_NC = (
        score(this.model, this.data.store, part).probability_NC for part in (examples.dev, examples.test)
    )
    metrics = {
        "dev": evaluate(examples.dev_label_N, dev_NC, this.classes),
        "test": evaluate(examples.test_label_N, test_NC, this.classes),
    }
    return dev_NC, test_NC, metrics


def probe_of(this: Round, examples: Examples) -> dict[str, Any]:
    """The metrics of scikit-learn's linear probe on the same labels."""
    parts = (
        (examples.train, examples.label_M),
        (examples.dev, examples.dev_label_N),
        (examples.test, examples.test_label_N),
    )
    return linear_probe(*parts, num_classes=len(this.classes))


def mean_uncertainty(pool: PoolScores) -> float | None:
    """Mean entropy of the predictions, as a share of its largest value; None where nothing is unlabelled."""
    if not pool.clips.ids:
        return None
    return float(entropy(pool.probability_NC).mean() / np.log(pool.probability_NC.shape[1]))


def agreement_with_last(this: Round, pool: PoolScores) -> float | None:
    """Kappa of the predictions for the unlabelled clips and those of the round before; None without either."""
    if this.number == 0 or not pool.clips.ids:
        return None
    before_NC = read_scores(round_folder(this.folder, this.number - 1), pool.clips.ids, this.classes)
    return cohen_kappa(before_NC.argmax(1), pool.probability_NC.argmax(1), len(this.classes))
