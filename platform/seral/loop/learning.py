"""A round's training, and the scores of its model on what is not labelled."""

# M labelled rows · N rows · C classes · U embedding · R repeats (dropout passes, members of an ensemble)
from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from ser_models.metrics import ccc_of_sums, kappa_of
from seral import storage
from seral.features.speakers import enrol
from seral.labels.annotator import Annotator
from seral.labels.confident import label_error_scores
from seral.loop.asking import Answers, answers_before
from seral.loop.folders import prediction_files, round_folder
from seral.loop.pool_scores import (
    LABELLED,
    SELECTION,
    PoolSummary,
    Projection,
    ScoringPlan,
    prediction_table,
    score_shards,
    vector_column,
)
from seral.loop.rounds import LoopFold, Round, voices
from seral.pool.quality_filter import unequal_shares
from seral.progress import say
from seral.task.examples import Targets, Utterances
from seral.task.folds import FoldData, codes
from seral.training.cross_validation import cross_validated
from seral.training.data import Labelled, Source, TrainingData
from seral.training.finetune import finetune
from seral.training.finetune_options import FinetuneOptions
from seral.training.linear_probe import linear_probe, ridge_probe
from seral.training.ridge_heads import RidgeHeads
from seral.training.scoring import Float, Outputs, Scorer, evaluate, evaluate_scores

SOURCE_METRICS = "metrics.json"
"""File of what the model of a source is worth on the test part, beside the model."""
UNFINISHED = "unfinished"
"""A file that stands in the folder of what the next round selects by while that is made again."""


RIDGES = 8
"""Ridge heads of an ensemble where the options do not say how many."""
MOST_PREDICTED = 100_000
"""Training parts of more clips are not predicted just to tell which classes are left out."""


@dataclass(frozen=True, kw_only=True)
class Examples:
    """The clips of a round that have a label, by what they are for, and those that people found unusable."""

    train: Utterances
    dev: Utterances
    dev_target: Targets
    test: Utterances
    test_target: Targets
    source: Utterances
    """Speech of other languages."""
    target: Targets
    """The targets of `train` and, after it, of `source`."""
    rejected: Utterances

    @property
    def train_target(self) -> Targets:
        """The targets of `train` alone."""
        return self.target.first(len(self.train.ids))


def examples_of(this: Round, answers: Answers) -> Examples:
    """The features and labels that the round's model learns from and is judged by."""
    fold = this.data.fold
    prior_only = this.fold.models is not None and this.options.finetune.frozen
    parts = (answers.labelled_ids, fold.dev, fold.test, () if prior_only else this.fold.source)
    train, dev, test, source = (this.utterances(ids) for ids in parts)
    dev_target, test_target = (_judged(this, part.ids) for part in (dev, test))
    # Nobody is asked for labels of a source: they are there.
    source_target = this.data.oracle().targets(source.ids) if source.ids else _judged(this, [])
    bought_MK = [answers.labelled[name].fill_null(np.nan).to_numpy() for name in this.data.dimensions]
    value_MK = np.array(bought_MK, np.float32).reshape(len(bought_MK), len(train.ids)).T
    label_M = codes(answers.labelled["emotion"].to_pylist(), this.classes)
    return Examples(
        train=train,
        dev=dev,
        dev_target=dev_target,
        test=test,
        test_target=test_target,
        source=source,
        target=Targets(
            label_N=np.concatenate([label_M, source_target.label_N]),
            value_NK=np.concatenate([value_MK, source_target.value_NK]),
            soft_NC=_soft_labels(answers.labelled, source_target, len(this.classes)),
            votes_N=this.annotator.votes([*train.ids, *[""] * len(source.ids)]),
        ),
        rejected=this.utterances(answers.rejected_ids),
    )


def _judged(this: Round, ids: Sequence[str]) -> Targets:
    """The labels of clips of the evaluation."""
    label_N = codes(this.annotator.emotions(ids), this.classes)
    return Targets(label_N=label_N, value_NK=this.annotator.ratings(ids))


def _soft_labels(labelled: pa.Table, source: Targets, num_classes: int) -> Float | None:
    """Shares of the classes (M, C), of what is labelled and of the source, NaN where certain; None where all are."""
    if labelled["probability"].null_count == labelled.num_rows and source.soft_NC is None:
        return None
    nothing = [np.nan] * num_classes
    rows = [nothing if row is None else row for row in labelled["probability"].to_pylist()]
    others_NC = np.full((len(source.label_N), num_classes), np.nan) if source.soft_NC is None else source.soft_NC
    return np.concatenate([np.array(rows, np.float32).reshape(-1, num_classes), others_NC]).astype(np.float32)


def train_model(this: Round, examples: Examples, target: Targets, folder: str, seed: int) -> dict[str, Any]:
    """Train on the labels so far and write the best model on dev to `folder`/model; returns the training's history."""
    finetuning = _finetuning(this)
    data = training_data(this, examples, target)
    return finetune(data, finetuning, folder, seed=seed, on=this.options.cluster)


def _finetuning(this: Round) -> FinetuneOptions:
    """The options of a round's training: of the head alone in rounds whose adapters nobody needs."""
    options = this.options
    return options.finetune.head_only if options.proxy and not this.is_last else options.finetune


def training_data(this: Round, examples: Examples, target: Targets) -> TrainingData:
    """The data that a round's model learns from; its dev part is empty where the bought labels are cross-validated."""
    options, source, models = this.options, examples.source, this.fold.models
    return TrainingData(
        train=Labelled(examples.train.with_others(source), target),
        dev=Labelled(examples.dev, examples.dev_target),
        unlabelled=this.data.unlabelled,
        store=this.data.store,
        classes=this.classes,
        dimensions=this.data.dimensions,
        source=Source(units=source, anchor=options.anchor, models=models) if source.ids or models else None,
        centrings=this.data.centrings,
    )


def score_pool(this: Round, examples: Examples, answers: Answers) -> PoolSummary | None:
    """Score the clips that nobody was asked about and write what the next round selects by; None where nobody reads it.

    Raises FeatureError for features that are missing or of another encoder.
    """
    if not this.reads_pool:
        return None
    options, needs = this.options, this.needs
    with this.times.phase("ensemble"):
        members = _members(this, examples)
    plan = ScoringPlan(
        store=this.data.store,
        model=this.model,
        members=members,
        path=this.path,
        before=round_folder(this.folder, this.number - 1) if this.number else None,
        classes=this.classes,
        dimensions=this.data.dimensions,
        needs=needs,
        dropout_passes=options.dropout_passes if "dropout_RNC" in needs and not members else 0,
        seed=this.seed,
        width=this.fold.embedding_width,
        ridges=_ridges(this, examples) if "member_RNK" in needs else None,
        on=options.cluster,
        shifts=this.data.shifts,
    )
    rows_of = this.data.index.rows_by_shard(this.candidates(this.unasked(answers.asked_ids), this.number + 1))
    with this.times.phase("predict" if this.is_last else "score"):  # nobody selects by what is made of it last
        summary = score_shards(plan, rows_of, this.fold.processes, options.cluster)
    if needs & {"embedding_ND", "labelled_doubt_M", "labelled_value_MK"}:
        _write_labelled(this, examples, needs)
    storage.remove(storage.join(this.path, "ensemble"))
    return summary


def restore_selection(this: Round) -> None:
    """Score the pool by the model of the round before again, where what this one selects by is not there any more."""
    if not this.number or not this.selects_by_model:
        return
    path = round_folder(this.folder, this.number - 1)
    unfinished = storage.join(path, SELECTION, UNFINISHED)
    if storage.exists(storage.join(path, SELECTION)) and not storage.exists(unfinished):
        return
    storage.write_bytes(unfinished, b"")
    before = replace(this, number=this.number - 1, path=path)
    answers = answers_before(this)
    score_pool(before, examples_of(before, answers), answers)
    storage.remove(unfinished)


def _write_labelled(this: Round, examples: Examples, needs: frozenset[str]) -> None:
    """Write what the next round selects by of clips with an answer: no label, but how little it is believed."""
    scorer = Scorer(this.model, this.data.store, this.options.cluster, this.data.shifts)
    train, rejected = (scorer(part) for part in (examples.train, examples.rejected))
    train_MU, rejected_MU = train.embedding_NU, rejected.embedding_NU
    embedding_MU = Projection(this.fold.embedding_width)(np.concatenate([train_MU, rejected_MU]))
    columns: dict[str, Any] = {
        "utterance_id": [*examples.train.ids, *examples.rejected.ids],
        "embedding": vector_column(embedding_MU),
        "answer": ["label"] * len(train_MU) + ["unusable"] * len(rejected_MU),
    }
    if "labelled_value_MK" in needs:
        value_MK = np.concatenate([train.value_NK, rejected.value_NK])
        columns |= {name: value_MK[:, k] for k, name in enumerate(this.data.dimensions)}
    if "labelled_doubt_M" in needs:
        none_M = np.zeros(len(rejected_MU), np.float32)
        columns["doubt"] = np.concatenate([label_error_scores(train_MU, _likeliest(examples), this.seed), none_M])
    storage.write_table(storage.join(this.path, LABELLED), pa.table(columns))


def _ridges(this: Round, examples: Examples) -> RidgeHeads:
    """An ensemble of ridge heads on the embedding of the round's model, one for each member that is asked for."""
    target = examples.train_target
    scorer = Scorer(this.model, this.data.store, this.options.cluster, this.data.shifts)
    embedding_MU = scorer(examples.train.rows(target.rated_N)).embedding_NU
    rng = np.random.default_rng([this.seed, RIDGES])
    return RidgeHeads.fit(embedding_MU, target.value_NK[target.rated_N], this.options.ensemble or RIDGES, rng)


def _likeliest(examples: Examples) -> NDArray[np.int64]:
    """The class of each labelled clip; where votes are tied, the first of those with the largest share, (M,)."""
    label_M, soft_NC = examples.train_target.label_N, examples.target.soft_NC
    if soft_NC is None:
        return label_M
    first_M = np.nan_to_num(soft_NC[: len(label_M)], nan=0.0).argmax(1)
    return np.where(label_M < 0, first_M, label_M)


def _members(this: Round, examples: Examples) -> tuple[str, ...]:
    """Train further models, one after the other; their folders.

    Each has a seed of its own and the labels weighed by a draw of the Bayesian bootstrap (Rubin 1981), so that heads,
    which have one optimum, differ too and no class is ever without a label.
    """
    folders = []
    for member in range(0 if this.is_last else this.options.ensemble_for(this.arm.strategy)):
        rng = np.random.default_rng([this.seed, member])
        weight_M = rng.exponential(size=len(examples.target.label_N)).astype(np.float32)
        folder = storage.join(this.path, "ensemble", str(member))
        target = replace(examples.target, weight_N=weight_M / weight_M.mean())
        train_model(this, examples, target, folder, int(rng.integers(2**31)))
        folders.append(storage.join(folder, "model"))
    return tuple(folders)


@dataclass(frozen=True, kw_only=True)
class Evaluation:
    """A round's model on dev and on test."""

    scores: dict[str, tuple[Utterances, Outputs]]
    """Part -> its clips and what is said of them; no dev where speakers could not be left out."""
    metrics: dict[str, Any]
    """Part -> metrics; None where it has no scores."""


def evaluation_of(this: Round, examples: Examples, history: Mapping[str, Any]) -> Evaluation:
    """Scores and metrics of dev, or of the labels so far with speakers left out in turn, and of test."""
    scorer = Scorer(this.model, this.data.store, this.options.cluster, this.data.shifts)
    truth_of = {"dev": examples.dev_target, "test": examples.test_target}
    scores: dict[str, tuple[Utterances, Outputs]] = {"test": (examples.test, scorer(examples.test))}
    if examples.dev.ids:
        scores["dev"] = (examples.dev, scorer(examples.dev))
    else:
        data, finetuning = training_data(this, examples, examples.target), _finetuning(this)
        normalise = history["head"]["normalise"]
        speakers = voices(this.fold, examples.train.ids)
        outputs = cross_validated(data, finetuning.head_only, speakers, normalise)
        if outputs is not None:
            scores["dev"], truth_of["dev"] = (examples.train, outputs), examples.train_target
    metrics: dict[str, Any] = dict.fromkeys(truth_of)
    for part, (units, outputs) in scores.items():
        target = replace(truth_of[part], soft_NC=this.annotator.shares(units.ids))
        metrics[part] = _metrics(outputs, target, this.data)
    if scorer.normalise == "speaker":
        metrics["enrolled"] = _enrolled(this, examples, scorer)
    return Evaluation(scores=scores, metrics=metrics)


def _metrics(outputs: Outputs, target: Targets, data: FoldData) -> dict[str, Any] | None:
    """Metrics of what is labelled and has been scored; None where nothing is."""
    decided = target.decided_N.any() and bool(np.isfinite(outputs.probability_NC).all())
    rated = target.varies and bool(np.isfinite(outputs.value_NK).all())
    classes, dimensions = data.classes if decided else (), data.dimensions if rated else ()
    return evaluate_scores(outputs, target, classes, dimensions, data.metrics) or None


def _enrolled(this: Round, examples: Examples, scorer: Scorer) -> dict[str, Any] | None:
    """Metrics of test clips whose speakers are known by ENROLLED others; None where none are left to be judged."""
    test, moments = examples.test, this.data.unlabelled.moments
    sums, enrolled_N = enrol(test.ids, voices(this.fold, test.ids), test.mean_NLD, test.std_NLD)
    if enrolled_N.all():
        return None
    scorer.shifts = sums.shifts(moments.mean.mean, moments.std.mean)
    others, target = scorer(test.rows(~enrolled_N)), examples.test_target.rows(np.flatnonzero(~enrolled_N).tolist())
    return _metrics(others, target, this.data)


def judge_source(fold: LoopFold, annotator: Annotator) -> None:
    """Write what the model of a source alone, which has heard no label of the target, says of the test part, and what
    that is worth."""
    folder, classes = storage.join(fold.folder, "source"), fold.data.classes
    uri = storage.join(folder, SOURCE_METRICS)
    if fold.models is None or storage.exists(uri):
        return
    test = fold.data.utterances(fold.data.fold.test)
    outputs = Scorer(fold.models.folder, fold.data.store, fold.options.cluster, fold.data.shifts)(test)
    (predictions,) = prediction_files(folder, "test")
    with fold.data.store.pool.publishing(lambda: [predictions]):
        storage.write_table(predictions, prediction_table("test", test.ids, outputs, classes))
    metrics = evaluate(codes(annotator.emotions(test.ids), classes), outputs.probability_NC, classes)
    storage.write_json(uri, metrics | {"fold": fold.data.fold.name, "normalise": fold.models.normalise})


def say_left_out_classes(fold: LoopFold, filtered: Sequence[str]) -> None:
    """Say of which classes, as the model of a source predicts them, `min_quality` leaves out more than of others."""
    parts = fold.data.fold
    if fold.models is None or not filtered or len(parts.train) > MOST_PREDICTED:
        return
    clips = fold.data.utterances([*parts.train, *fold.data.index.present(list(filtered))])
    scorer = Scorer(fold.models.folder, fold.data.store, fold.options.cluster, fold.data.shifts)
    names = [fold.data.classes[code] for code in scorer(clips).probability_NC.argmax(axis=1).tolist()]
    below_N = np.isin(np.asarray(clips.ids), np.asarray(list(filtered)))
    for line in unequal_shares(below_N, {"predicted class": pa.chunked_array([names], pa.string())}):
        say(f"fold {parts.name}: min_quality {fold.options.min_quality:g} {line}")


def probe_of(this: Round, examples: Examples) -> dict[str, Any]:
    """The metrics of scikit-learn's linear probes on the same labels."""
    train = (examples.train, examples.train_target)
    dev, test = (examples.dev, examples.dev_target), (examples.test, examples.test_target)
    metrics: dict[str, Any] = {}
    if this.classes:
        # The probe learns no shares.
        decided = [(units.rows(t.decided_N), t.label_N[t.decided_N]) for units, t in (train, dev, test)]
        metrics |= linear_probe(decided[0], decided[1], decided[2], len(this.classes))
    if this.data.dimensions:
        rated = [(units.rows(t.rated_N), t.value_NK[t.rated_N]) for units, t in (train, dev, test)]
        metrics["test_ccc"] = ridge_probe(*rated)
    return metrics


def mean_uncertainty(pool: PoolSummary | None, classes: int) -> float | None:
    """Mean entropy of the predictions, as a share of its largest value; None where nothing is unlabelled."""
    if pool is None or not pool.clips or not classes:
        return None
    return float(pool.entropy / pool.clips / np.log(classes))


def agreement_with_last(pool: PoolSummary | None) -> float | None:
    """Kappa of the predictions for the unlabelled clips and those of the round before, or without classes the mean CCC
    of the values; None without either."""
    if pool is None:
        return None
    if pool.change_CC.any():
        return kappa_of(pool.change_CC)
    return float(ccc_of_sums(pool.change_6K).mean()) if pool.change_6K.any() and not len(pool.change_CC) else None
