"""The contract of every annotator that a run may name: it is asked, it answers, and it says when it has not."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import closing
from typing import Any

import pytest

from seral.errors import AwaitingLabels, LabelError
from seral.labels.annotator import Annotator
from seral.labels.ledger import Ledger
from seral.labels.people import ledger_url
from seral.labels.simulated import Person, answer_all, even
from seral.loop.annotators import ANNOTATORS
from seral.loop.options import LoopOptions
from seral.options import describe, parse
from seral.pool.shards import Pool, open_pool
from seral.pool.splits import Fold, folds_of
from seral.schema import LABEL
from seral.task.gold import Oracle

OPTIONS: dict[str, dict[str, Any]] = {"gold": {}, "people": {"people": {"evaluation": 8}, "strategy": "margin"}}
"""Options of a run by the annotator that they name."""


def answer_by_hand(options: LoopOptions, pool: Pool) -> None:
    """Let somebody who knows every gold label, and takes other clips for the first class, answer all that is asked."""
    if options.people is None:
        return
    oracle = Oracle(pool, options.classes)
    ids = sorted(oracle.answerable)
    truth = dict.fromkeys(pool.metadata["utterance_id"].to_pylist(), options.classes[0])
    truth |= dict(zip(ids, oracle.emotions(ids), strict=True))
    person = Person(name="ada", classes=tuple(options.classes), confusion_CC=even(options.classes, 1.0))
    with closing(Ledger(ledger_url(options.run, options.people))) as ledger:
        answer_all(ledger, [person], truth)


def patiently(options: LoopOptions, pool: Pool, ask: Callable[[], Any]) -> Any:
    """What `ask` returns, once what it awaits is answered."""
    try:
        return ask()
    except AwaitingLabels:
        assert ANNOTATORS[options.annotator].pending(options), f"{options.annotator} waits although nothing is pending"
        answer_by_hand(options, pool)
        return ask()


def test_every_annotator_is_tried_here() -> None:
    missing = set(ANNOTATORS) - set(OPTIONS)
    assert not missing, f"OPTIONS has no options of a run that names the annotator {min(missing)!r}"


@pytest.mark.parametrize("name", ANNOTATORS)
def test_an_annotator_answers_what_it_is_asked(name: str, run_values: dict[str, Any]) -> None:
    kind, options = ANNOTATORS[name], parse(LoopOptions, run_values | OPTIONS[name])
    assert options.annotator == name, f"LoopOptions.annotator has to return {name!r} for {OPTIONS[name]}"
    assert kind.summary.endswith("."), f"{name}: the summary is one sentence"
    assert f"  {kind.more_evaluation} = " in describe(LoopOptions), f"{name}: no option {kind.more_evaluation}"
    pool = open_pool(options.pool)
    kind.check(options)
    metadata, source = kind.candidates(options, pool)
    assert source.num_rows == 0
    fold = folds_of(metadata, options.split, options.folds)[0]
    with closing(kind.open(options, pool)) as annotator:
        assert isinstance(annotator, Annotator), f"{name} lacks a method of seral.labels.annotator.Annotator"
        answers_about_evaluation(annotator, options, pool, fold)
        answers_about_rounds(annotator, options, pool, list(fold.train))
    assert kind.pending(options) == []
    kind.check(options)


def answers_about_evaluation(annotator: Annotator, options: LoopOptions, pool: Pool, fold: Fold) -> None:
    annotator.ask_evaluation(fold, 0)
    evaluated = patiently(options, pool, lambda: annotator.evaluated(fold))
    assert evaluated.train == fold.train
    for part in ("dev", "test"):
        ids = getattr(evaluated, part)
        assert ids
        assert set(ids) <= set(getattr(fold, part))
        assert set(annotator.emotions(ids)) <= set(options.classes)
    with pytest.raises(LabelError):
        annotator.emotions(["nobody-asked-about-this"])


def answers_about_rounds(annotator: Annotator, options: LoopOptions, pool: Pool, ids: list[str]) -> None:
    assert annotator.asked("margin.fold-00.seed-0/round-0000") == []
    batch = "margin.fold-00.seed-0/round-0000"
    asked_ids = patiently(options, pool, lambda: annotator.ask(batch, ids[:4], [], 0))
    assert sorted(asked_ids) == sorted(ids[:4])
    assert sorted(annotator.asked(batch)) in ([], sorted(asked_ids)), "a batch holds what was asked under its name"
    labels = annotator.labels(asked_ids, 0)
    assert labels.schema == LABEL
    assert labels["utterance_id"].to_pylist() == asked_ids
    assert set(labels["emotion"].to_pylist()) <= set(options.classes)
    assert set(labels["annotator"].to_pylist()) == {annotator.name}
    assert set(labels["round"].to_pylist()) == {0}


def test_gold_labels_are_never_waited_for(run_values: dict[str, Any]) -> None:
    kind, options = ANNOTATORS["gold"], parse(LoopOptions, run_values)
    assert kind.wait(options, AwaitingLabels("nothing")) is False
    assert kind.pending(options) == []


def test_people_are_waited_for_only_when_the_run_says_so(run_values: dict[str, Any]) -> None:
    options = parse(LoopOptions, run_values | OPTIONS["people"])
    assert ANNOTATORS["people"].wait(options, AwaitingLabels("nothing")) is False
