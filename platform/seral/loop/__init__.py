"""The main job: rounds of selecting, labelling, training and scoring, for every arm, fold and seed.

options     LoopOptions, and what a resumed run may change
annotators  how the loop reaches gold labels or people
stopping    rules that end a run before its budget is spent
rounds      what a round is, and reading the folders of complete rounds
picking     the clips that a round asks about
asking      a round's questions and their answers
learning    a round's training, and the scores of its model
writing     a round's files
trajectory  one round after the other
loop        a run: folds, features, all trajectories
relabel     doubts about labels, and asking again
"""

from __future__ import annotations

from seral.loop.annotators import (
    AnnotatorKind,
    check_people,
    never_lacking,
    no_wait,
    nothing_pending,
    open_gold,
    open_people,
    pending_batches,
    wait_for_people,
    with_known_speakers,
)
from seral.loop.stopping import StopRule, certain, flat_trend, plateau, stable, target_reached
from seral.training.options import sides

ANNOTATORS: dict[str, AnnotatorKind] = {
    "gold": AnnotatorKind(
        summary="The gold labels of a benchmark corpus answer everything at once.",
        open=open_gold,
        candidates=sides,
        check=never_lacking,
        pending=nothing_pending,
        wait=no_wait,
        more_evaluation="split.dev_speakers",
    ),
    "people": AnnotatorKind(
        summary="People answer at the annotation page, and the run goes on when they have.",
        open=open_people,
        candidates=with_known_speakers,
        check=check_people,
        pending=pending_batches,
        wait=wait_for_people,
        more_evaluation="people.evaluation",
    ),
}
"""Annotators of a run by the name in `LoopOptions.annotator`; the contract test runs over this table."""

STOPS: dict[str, StopRule] = {
    "target": StopRule(
        option="target_uar",
        make=lambda stop: None if stop.target_uar is None else target_reached(target=stop.target_uar),
        summary="The development UAR is as high as wanted.",
    ),
    "target-ccc": StopRule(
        option="target_ccc",
        make=lambda stop: None if stop.target_ccc is None else target_reached(target=stop.target_ccc),
        summary="The development CCC of a run without classes is as high as wanted.",
    ),
    "plateau": StopRule(
        option="patience",
        make=lambda stop: (
            None
            if stop.patience is None or stop.confidence is not None
            else plateau(patience=stop.patience, min_gain=stop.min_gain)
        ),
        summary="The best score on dev of the last rounds is hardly above the best before them.",
    ),
    "flat-trend": StopRule(
        option="confidence",
        make=lambda stop: (
            None
            if stop.confidence is None
            else flat_trend(patience=max(2, stop.patience or 3), min_gain=stop.min_gain, confidence=stop.confidence)
        ),
        summary="The trend of the score on dev is flat at its upper confidence limit.",
    ),
    "certain": StopRule(
        option="uncertainty",
        make=lambda stop: None if stop.uncertainty is None else certain(uncertainty=stop.uncertainty),
        summary="The model is sure of what is not labelled.",
    ),
    "stable": StopRule(
        option="kappa",
        make=lambda stop: None if stop.kappa is None else stable(kappa=stop.kappa, rounds=stop.stable_rounds),
        summary="The predictions of several rounds agree with those before them.",
    ),
}
"""Rules that end a run before its budget is spent, in the order in which they are asked; each is off unless its option
is given. The contract test runs over this table."""
