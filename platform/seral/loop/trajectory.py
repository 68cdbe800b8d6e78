"""One arm on one fold with one seed: a round of select, label, train and score after the other."""

from __future__ import annotations

import uuid
from collections.abc import Callable, Sequence
from contextlib import closing
from dataclasses import replace
from typing import Any

from seral import storage
from seral.errors import SeralError
from seral.labels.annotator import Annotator
from seral.loop import STOPS
from seral.loop.asking import collect_answers
from seral.loop.folders import count_rounds, read_rounds, round_folder
from seral.loop.growth import reopened
from seral.loop.learning import (
    agreement_with_last,
    evaluation_of,
    examples_of,
    mean_uncertainty,
    probe_of,
    restore_selection,
    score_pool,
    train_model,
)
from seral.loop.pool_scores import SELECTION
from seral.loop.rounds import Arm, LoopFold, Round, Trajectory
from seral.loop.stopping import RoundSummary, StopOptions, budget_spent
from seral.loop.writing import describe_trajectory, write_record, write_tables

ATTEMPTS = "attempts"
OnRound = Callable[[Sequence[RoundSummary]], None]
"""Called with all complete rounds after each new one."""


def run_trajectory(
    folder: str, trajectory: Trajectory, arm: Arm, fold: LoopFold, on_round: OnRound | None = None
) -> str | None:
    """Run, or resume, all rounds of a trajectory, telling `on_round` of each new one; returns why it stopped.

    Raises AwaitingLabels when people have not answered what a round asks; nothing of that round is written then.
    """
    storage.write_json(storage.join(folder, "trajectory.json"), describe_trajectory(trajectory, arm, fold))
    summaries = read_rounds(folder)
    reason = summaries[-1].stop_reason if summaries else None
    if len(summaries) < len(arm.schedule) and reopened(fold.options.run, trajectory.name, len(summaries)):
        reason = None  # what stopped it was said of a smaller pool, or of a smaller budget
    with closing(fold.open_annotator()) as annotator:
        while reason is None:
            summaries = complete_round(folder, trajectory, arm, fold, annotator, summaries)
            reason = summaries[-1].stop_reason
            if on_round is not None:
                on_round(summaries)
    storage.remove(storage.join(folder, ATTEMPTS))
    return reason


def complete_round(
    folder: str,
    trajectory: Trajectory,
    arm: Arm,
    fold: LoopFold,
    annotator: Annotator,
    before: Sequence[RoundSummary],
) -> list[RoundSummary]:
    """Run the round after those `before` and put it in place; returns all complete rounds.

    Raises AwaitingLabels when the annotator has no answers yet; nothing of the round is written then.
    """
    number = len(before)
    # Built aside and put in place whole: a worker that outlives its killed driver may still be at this round.
    path = storage.join(folder, ATTEMPTS, f"{number:04d}-{uuid.uuid4().hex[:8]}")
    this = Round(
        number=number, folder=folder, path=path, trajectory=trajectory, arm=arm, fold=fold, annotator=annotator
    )
    try:
        with fold.data.store.pool.publishing(lambda: [path, round_folder(folder, number)]):
            run_round(this, before)
            storage.publish(path, round_folder(folder, number), last="round.json")
    except (SeralError, OSError):
        # That worker has put this round in place meanwhile, and taken away what it was made of.
        if count_rounds(folder) <= number:
            raise
        storage.remove(path)
    if number:
        storage.remove(storage.join(round_folder(folder, number - 1), SELECTION))
    return read_rounds(folder)


def run_round(this: Round, before: Sequence[RoundSummary]) -> None:
    """Select, label, train, score and evaluate one round after those `before`, and write it to its path."""
    times = this.times
    restore_selection(this)
    answers = collect_answers(this)
    examples = examples_of(this, answers)
    with times.phase("train"):
        history = train_model(this, examples, examples.target, this.path, this.seed)
    with times.phase("evaluate"):
        evaluation = evaluation_of(this, examples, history)
    labelled, parts = len(examples.train.ids), this.data.fold
    bought = labelled + len(parts.dev)  # dev labels are bought as well
    result: dict[str, Any] = {"labelled": bought, "fraction": bought / (len(parts.train) + len(parts.dev))}
    result |= {**evaluation.metrics, "training": history}
    pool = score_pool(this, examples, answers)
    summary = RoundSummary(
        round=this.number,
        labelled=labelled,
        dev_uar=(evaluation.metrics["dev"] or {}).get("uar"),
        dev_ccc=None if this.classes else (evaluation.metrics["dev"] or {}).get("ccc"),
        uncertainty=mean_uncertainty(pool, len(this.classes)),
        kappa=agreement_with_last(pool),
    )
    summary = replace(summary, stop_reason=stop_reason([*before, summary], len(this.arm.schedule), this.options.stop))
    if summary.stop_reason is not None:
        storage.remove(storage.join(this.path, SELECTION))
    if this.options.probe:
        with times.phase("probe"):
            result["probe"] = probe_of(this, examples)
    with times.phase("write"):
        write_tables(this, answers, evaluation.scores, examples.test_target)
        storage.write_json(storage.join(this.path, "metrics.json"), result)
    write_record(this, answers, summary)


def stop_reason(rounds: Sequence[RoundSummary], planned: int, options: StopOptions) -> str | None:
    """Why to stop after these of the `planned` rounds, or None to go on; a spent budget comes first."""
    stops = [budget_spent(rounds=planned), *(rule.make(options) for rule in STOPS.values())]
    return next((reason for stop in stops if stop is not None and (reason := stop(rounds)) is not None), None)
