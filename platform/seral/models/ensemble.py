"""Ensembles of runs: their models' calibrated probabilities, averaged or weighed by a classifier, and their worth.

Judged by what the fold models of every run said of clips whose speakers they had not heard, on the folds and seeds that
all runs share. Temperatures and the classifier are chosen on the other folds, or with one fold on the other speakers.

    RUN/ensemble.json    the members, their temperatures, the classifier: what predictions are made by
    RUN/table.*          every member, their mean and the classifier beside one another
"""

# R repeats (members) · N rows (clips as often as they were tested) · C classes
# U embedding (of the classifier: all members' probabilities side by side)
from __future__ import annotations

from collections.abc import Sequence
from contextlib import closing
from dataclasses import dataclass, replace
from pathlib import PurePath
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from sklearn.linear_model import LogisticRegression

from ser_models.losses import best_temperature
from seral import storage
from seral.errors import OptionError, StateError
from seral.loop.annotators import ANNOTATORS
from seral.loop.options import LoopOptions
from seral.models.decision import tempered
from seral.models.fold_models import FoldModel, read_fold_models, task_of_run
from seral.models.options import EnsembleOptions, FinalOptions
from seral.models.results import FEWEST, Judged
from seral.pool.shards import open_pool
from seral.task.cells import Cell, write_study_table
from seral.task.context import open_run
from seral.task.options import protocol_name
from seral.task.run import read_options, verb_of
from seral.training.scoring import evaluate

Floats = NDArray[np.float64]
RECORD = "ensemble.json"
MEAN, STACKED = "mean", "stacked"
TINY = 1e-12


@dataclass(frozen=True, kw_only=True)
class Member:
    """A run of an ensemble."""

    name: str
    """Of its row in the table."""
    run: str
    """The folder that predictions are made by: a run, or its final model."""
    task: LoopOptions
    models: list[FoldModel]


@dataclass(frozen=True, kw_only=True)
class Joined:
    """The way from the members' probabilities to those of the ensemble."""

    temperatures: list[float]
    weight_CU: list[list[float]] | None = None
    """Of the classifier on the logarithms of all members' tempered probabilities, side by side; None = their mean."""
    bias_C: list[float] | None = None

    @staticmethod
    def fit(share_RNC: Floats, truth_N: NDArray[np.int64], rule: str) -> Joined:
        """Temperatures, and of `stacked` the classifier, that fit these clips best."""
        logits = [torch.from_numpy(np.log(np.maximum(share_NC, TINY))) for share_NC in share_RNC]
        joined = Joined(temperatures=[best_temperature(one, torch.from_numpy(truth_N)) for one in logits])
        if rule == MEAN:
            return joined
        fitted = LogisticRegression(class_weight="balanced", max_iter=1000).fit(joined.features(share_RNC), truth_N)
        classes = share_RNC.shape[2]
        weight_CU, bias_C = np.zeros((classes, fitted.coef_.shape[1])), np.full(classes, np.log(TINY))
        signs = np.array([[-1.0], [1.0]]) / 2 if len(fitted.classes_) == 2 else np.ones((1, 1))
        weight_CU[fitted.classes_] = signs * fitted.coef_
        bias_C[fitted.classes_] = (signs * fitted.intercept_[None]).sum(1) if len(signs) == 2 else fitted.intercept_
        return replace(joined, weight_CU=weight_CU.tolist(), bias_C=bias_C.tolist())

    def features(self, share_RNC: Floats) -> Floats:
        """Logarithms of all tempered probabilities, which the classifier reads, (R, N, C) -> (N, RC)."""
        return np.log(np.maximum(np.concatenate(self._tempered(share_RNC), 1), TINY))

    def __call__(self, share_RNC: Floats) -> Floats:
        """Probabilities of the ensemble, (R, N, C) -> (N, C)."""
        if self.weight_CU is None or self.bias_C is None:
            mean_NC: Floats = np.mean(self._tempered(share_RNC), axis=0)
            return mean_NC
        logits_NC = self.features(share_RNC) @ np.array(self.weight_CU).T + np.array(self.bias_C)
        return torch.from_numpy(logits_NC).softmax(1).numpy()

    def _tempered(self, share_RNC: Floats) -> list[Floats]:
        return [tempered(share_NC, t) for share_NC, t in zip(share_RNC, self.temperatures, strict=True)]


def run_ensemble(options: EnsembleOptions) -> str:
    """Judge the runs and what is made of them together, and write what predicts; returns the table as text.

    Raises OptionError for runs that are not about the same classes, pool and test clips.
    """
    options = options.model_copy(update={"run": storage.absolute(options.run)})
    members = _members([storage.absolute(run) for run in options.runs])
    task = members[0].task
    _check_alike(members)
    changes = {"run": options.run, "cluster": options.cluster}
    context = open_run(task.model_copy(update=changes), "ensemble", {"cluster"}, config=options)
    pool = context.pool
    with storage.writing_to(options.run), closing(ANNOTATORS[task.annotator].open(task, pool)) as annotator:
        metadata, _ = ANNOTATORS[task.annotator].candidates(task, pool)
        judged = [
            Judged.of(models, annotator, metadata, task.classes, ()) for models in _shared([m.models for m in members])
        ]
        share_RNC, all_N = np.stack([one.share_NC for one in judged]), judged[0]
        outputs = dict(zip((member.name for member in members), share_RNC, strict=True))
        outputs |= {rule: _left_out(all_N, share_RNC, rule) for rule in (MEAN, STACKED)}
        text = _table(options.run, all_N, outputs)
        joined = Joined.fit(share_RNC, all_N.truth, options.rule)
        record = {"members": [member.run for member in members], "classes": list(task.classes), **vars(joined)}
        storage.write_json(storage.join(options.run, RECORD), record)
        context.write_environment(protocol_name(task, pool), {})
    return text


def read_joined(run: str) -> tuple[list[str], list[str], Joined]:
    """The members' folders, the classes and the rule of an ensemble. Raises StateError where there is none."""
    if not storage.exists(uri := storage.join(run, RECORD)):
        raise StateError(f"{run} holds no ensemble yet: run `seral ensemble` again, and it goes on")
    record = storage.read_json(uri)
    members, classes = record.pop("members"), record.pop("classes")
    return members, classes, Joined(**record)


def _members(runs: Sequence[str]) -> list[Member]:
    of = [_judged_run(run) for run in runs]
    if len(set(of)) < len(of):
        raise OptionError(f"runs: {max(of, key=of.count)} is named twice, and says the same twice")
    names = [PurePath(run).name for run in of]
    if len(set(names)) < len(names):
        names = ["/".join(PurePath(run).parts[-2:]) for run in of]
    tasks = [task_of_run(run) for run in of]
    return [
        Member(name=name, run=run, task=task, models=read_fold_models(source, task))
        for name, run, source, task in zip(names, runs, of, tasks, strict=True)
    ]


def _judged_run(run: str) -> str:
    """The run whose folds say what a model is worth: of a final model the one that it was fitted for."""
    return storage.absolute(read_options(FinalOptions, run).of) if verb_of(run) == "fit" else run


def _check_alike(members: Sequence[Member]) -> None:
    """Raise OptionError unless all runs tell the same classes apart, on the same pool."""
    first = members[0].task
    if not first.classes:
        raise OptionError(f"{members[0].run} learns ratings alone: an ensemble joins probabilities of classes")
    for member in members[1:]:
        if tuple(member.task.classes) != tuple(first.classes):
            raise OptionError(
                f"{member.run} tells apart {', '.join(member.task.classes)}, and {members[0].run} "
                f"{', '.join(first.classes)}: an ensemble needs the same classes in the same order"
            )
        if open_pool(member.task.pool).hash != open_pool(first.pool).hash:
            raise OptionError(f"{member.run} is about {member.task.pool}, and {members[0].run} about {first.pool}")


def _shared(models_of: Sequence[Sequence[FoldModel]]) -> list[list[FoldModel]]:
    """The models of every run on the folds and seeds that all have, with the test clips that all have, by id.

    Raises OptionError where there are none, and where one fold has other speakers than another run's.
    """
    by_key = [{(model.fold, model.seed): model for model in models} for models in models_of]
    keys = sorted(set.intersection(*map(set, by_key)))
    if not keys:
        raise OptionError("the runs have no fold and seed in common: run them with the same `split`, folds and seeds")
    alike: list[list[FoldModel]] = [[] for _ in models_of]
    for key in keys:
        outputs = [models[key].outputs for models in by_key]
        ids = sorted(set.intersection(*map(set, outputs)))
        if 2 * len(ids) < max(map(len, outputs)):
            raise OptionError(f"fold {key[0]} tests other speakers in one run than in another: give them one `split`")
        for models, own in zip(alike, by_key, strict=True):
            models.append(replace(own[key], outputs={name: own[key].outputs[name] for name in ids}))
    return alike


def _left_out(judged: Judged, share_RNC: Floats, rule: str) -> Floats:
    """Probabilities of the ensemble, by a rule that was chosen without the fold, or the speaker, of each row, (N, C).

    Raises OptionError where one fold has too few speakers to leave one out.
    """
    folds = len(np.unique(judged.fold_N)) > 1
    group_N = judged.fold_N.astype(str) if folds else judged.about["speaker"].to_numpy(str)
    if not folds and len(np.unique(group_N)) < FEWEST:
        raise OptionError(
            f"one fold with fewer than {FEWEST} test speakers says nothing of an ensemble: run more folds"
        )
    share_NC = np.empty(share_RNC.shape[1:])
    for group in np.unique(group_N):
        own_N = group_N == group
        others_N = ~judged.about["speaker"].isin(judged.about["speaker"][own_N]).to_numpy()
        share_NC[own_N] = Joined.fit(share_RNC[:, others_N], judged.truth[others_N], rule)(share_RNC[:, own_N])
    return share_NC


def _table(run: str, judged: Judged, outputs: dict[str, Floats]) -> str:
    """Write a row for each member and rule, with the gain over the member that is best in this very table."""
    results: dict[Cell, dict[str, Any]] = {}
    for row, share_NC in outputs.items():
        for fold, seed in sorted(set(zip(judged.fold_N.tolist(), judged.seed_N.tolist(), strict=True))):
            own_N = (judged.fold_N == fold) & (judged.seed_N == seed)
            scores = evaluate(judged.truth[own_N], share_NC[own_N].astype(np.float32), judged.classes)
            results[Cell(row=row, fold=fold, seed=seed)] = scores
    means = {row: np.mean([v["uar"] for cell, v in results.items() if cell.row == row]) for row in outputs}
    best = max((row for row in outputs if row not in (MEAN, STACKED)), key=lambda row: means[row])
    return write_study_table(run, results, dict.fromkeys((MEAN, STACKED), best))
