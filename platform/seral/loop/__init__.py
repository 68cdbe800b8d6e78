"""The main job: rounds of selecting, labelling, training and scoring, for every arm, fold and seed.

options     LoopOptions, and what a resumed run may change
annotators  how the loop reaches gold labels or people
stopping    rules that end a run before its budget is spent
rounds      what a round is, and reading the folders of complete rounds
picking     the clips that a round asks about
reasons     why they were picked: the scores that strategies go by
asking      a round's questions and their answers
learning    a round's training, and the scores of its model
writing     a round's files
trajectory  one round after the other
loop        a run: folds, features, all trajectories
relabel     doubts about labels, and asking again
"""

from __future__ import annotations

from seral.loop.stopping import StopRule, certain, flat_trend, plateau, stable, target_reached

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
