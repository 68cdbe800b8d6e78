"""Rules that stop a loop: each reads the rounds so far and says why no more labels are asked for."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
from pydantic import Field

from seral.errors import OptionError
from seral.options import Options


@dataclass(frozen=True, kw_only=True)
class RoundSummary:
    """A finished round, as far as stopping rules read it."""

    round: int
    labelled: int
    """Labels held, the initial set included."""
    dev_uar: float | None = None
    """Unweighted average recall on the development part; None = there is none."""
    dev_ccc: float | None = None
    """Mean CCC on the development part of a run without classes; None = there is none, or classes are learnt."""
    uncertainty: float | None = None
    """Mean entropy of the predictions for what is not labelled, as a share of its largest value; None = all is."""
    kappa: float | None = None
    """Agreement of these predictions with those of the round before, kappa of classes or else mean CCC; None = in the
    first round."""
    stop_reason: str | None = None
    """Why the run ended with this round; None = it did not."""

    @property
    def dev(self) -> float | None:
        """The score by which rounds are compared: UAR, or without classes mean CCC, on the development part."""
        return self.dev_ccc if self.dev_uar is None else self.dev_uar


Stop = Callable[[Sequence[RoundSummary]], str | None]
"""(rounds so far) -> the reason to stop, or None to go on."""


class StopOptions(Options):
    """Options of the rules that stop a loop before its budget is spent; a rule whose option is None does not apply."""

    patience: int | None = Field(default=None, ge=1)
    """Rounds without a gain on the development part before the run stops."""
    min_gain: float = Field(default=0.005, ge=0)
    """UAR (0..1), or CCC in a run without classes, that counts as a gain."""
    confidence: float | None = Field(default=None, gt=0, lt=1)
    """Stop only when so sure that the trend of the last rounds gains less than `min_gain` (0.8 is usual)."""
    uncertainty: float | None = Field(default=None, gt=0, lt=1)
    """Stop when the mean entropy of what is not labelled falls to this share of its largest value."""
    kappa: float | None = Field(default=None, gt=0, le=1)
    """Stop when the predictions of `stable_rounds` rounds in a row agree with those before by at least this kappa
    (0.99 is usual); of ratings, by a mean CCC of as much."""
    stable_rounds: int = Field(default=3, ge=1)
    """Rounds that must agree."""
    target_uar: float | None = Field(default=None, gt=0, le=1)
    """Stop when the development UAR reaches this."""
    target_ccc: float | None = Field(default=None, gt=0, le=1)
    """Stop when the mean CCC on the development part of a run without classes reaches this."""

    @property
    def early(self) -> str | None:
        """The first option that may end a run before its budget does; None = none."""
        off = {name: field.default for name, field in StopOptions.model_fields.items() if field.default is None}
        return next((f"stop.{name}" for name in off if getattr(self, name) is not None), None)


@dataclass(frozen=True, kw_only=True)
class StopRule:
    """One way to end a run before its budget is spent."""

    option: str
    """The field of StopOptions that switches it on."""
    make: Callable[[StopOptions], Stop | None]
    """The rule as the options want it; None where they leave it off."""
    summary: str
    """One sentence."""


def budget_spent(*, rounds: int) -> Stop:
    """Stop after the last round that the budget pays for."""
    if rounds < 1:
        raise OptionError(f"a budget pays for at least 1 round, got {rounds}")

    def stop(done: Sequence[RoundSummary]) -> str | None:
        if len(done) >= rounds:
            return f"budget spent: {done[-1].labelled} labels in {rounds} rounds"
        return None

    return stop


def plateau(*, patience: int = 2, min_gain: float = 0.005) -> Stop:
    """Stop when the best score on dev of the last `patience` rounds is not `min_gain` above the best before them."""
    if patience < 1 or min_gain < 0:
        raise OptionError(f"plateau needs patience >= 1 and min_gain >= 0, got {patience} and {min_gain}")

    def stop(done: Sequence[RoundSummary]) -> str | None:
        scores = _dev_scores(done)
        if len(scores) <= patience:
            return None
        gain = max(scores[-patience:]) - max(scores[:-patience])
        if gain >= min_gain:
            return None
        return f"plateau: development {_metric(done)} gained {gain:+.4f} in {patience} rounds, less than {min_gain}"

    return stop


def flat_trend(*, patience: int = 3, min_gain: float = 0.005, confidence: float = 0.8) -> Stop:
    """Stop when the trend of the score on dev over the last `patience` + 1 rounds, at its upper limit, gains less than
    `min_gain` in `patience` rounds.

    The limit is one-sided, of the slope of a straight line by least squares, so that noise between rounds does not
    end a run: three rounds at least.
    """
    if patience < 2 or min_gain < 0 or not 0 < confidence < 1:
        raise OptionError(
            f"flat_trend needs patience >= 2, min_gain >= 0 and confidence in (0, 1), got {patience}, {min_gain} and "
            f"{confidence}"
        )

    def stop(done: Sequence[RoundSummary]) -> str | None:
        from scipy.stats import linregress, t  # takes a second to import

        scores = _dev_scores(done)[-patience - 1 :]
        if len(scores) <= patience:
            return None
        line = linregress(np.arange(len(scores)), scores)
        limit = patience * float(line.slope + t.ppf(confidence, len(scores) - 2) * line.stderr)
        if limit >= min_gain:
            return None
        metric = _metric(done)
        return f"flat trend: development {metric} gains at most {limit:+.4f} in {patience} rounds, less than {min_gain}"

    return stop


def certain(*, uncertainty: float) -> Stop:
    """Stop when the model is sure of what is left: overall uncertainty. Zhu et al. 2010, stopping criteria."""

    def stop(done: Sequence[RoundSummary]) -> str | None:
        left = done[-1].uncertainty if done else None
        if left is None or left > uncertainty:
            return None
        return f"certain: mean entropy of the unlabelled is {left:.3f} of its largest value, at most {uncertainty}"

    return stop


def stable(*, kappa: float = 0.99, rounds: int = 3) -> Stop:
    """Stop when predictions do not change: Bloodgood and Vijay-Shanker 2009, stabilizing predictions,
    arXiv 1409.5165."""

    def stop(done: Sequence[RoundSummary]) -> str | None:
        last = [summary.kappa for summary in done[-rounds:]]
        if len(last) < rounds or any(value is None or value < kappa for value in last):
            return None
        return f"stable: predictions of {rounds} rounds agree with those before by {kappa} and more"

    return stop


def target_reached(*, target: float) -> Stop:
    """Stop when the score on dev is as wanted."""

    def stop(done: Sequence[RoundSummary]) -> str | None:
        scores = _dev_scores(done[-1:])
        if not scores or scores[-1] < target:
            return None
        return f"target reached: development {_metric(done)} {scores[-1]:.4f}, wanted {target}"

    return stop


def _dev_scores(done: Sequence[RoundSummary]) -> list[float]:
    """The score on dev of the rounds that have one: the first labels may be of one speaker, or of one class."""
    return [summary.dev for summary in done if summary.dev is not None]


def _metric(done: Sequence[RoundSummary]) -> str:
    """The name of the score by which these rounds are compared."""
    return "UAR" if any(summary.dev_uar is not None for summary in done) else "CCC"
