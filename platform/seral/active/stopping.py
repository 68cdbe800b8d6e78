"""When to stop asking for labels: small rules over the rounds so far."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from pydantic import Field

from seral.errors import OptionError
from seral.options import Options


@dataclass(frozen=True, kw_only=True)
class RoundSummary:
    """What a finished round tells a stopping rule."""

    round: int
    labelled: int
    """Labels held, the initial set included."""
    dev_uar: float | None = None
    """Unweighted average recall on the development part; None = there is none."""
    stop_reason: str | None = None
    """Why the run ended with this round; None = it did not."""


Stop = Callable[[Sequence[RoundSummary]], str | None]
"""(rounds so far) -> the reason to stop, or None to go on."""


class StopOptions(Options):
    """When to stop before the budget is spent."""

    patience: int | None = Field(default=None, ge=1)
    """Rounds without a gain on the development part before the run stops; None = spend the whole budget."""
    min_gain: float = Field(default=0.005, ge=0)
    """UAR (0..1) that counts as a gain."""


def budget_spent(*, budget: int) -> Stop:
    """Stop when `budget` labels are held."""
    if budget < 1:
        raise OptionError(f"budget must be at least 1 label, got {budget}")

    def stop(rounds: Sequence[RoundSummary]) -> str | None:
        if rounds and rounds[-1].labelled >= budget:
            return f"budget spent: {rounds[-1].labelled} of {budget} labels"
        return None

    return stop


def plateau(*, patience: int = 2, min_gain: float = 0.005) -> Stop:
    """Stop when the best development UAR of the last `patience` rounds is not `min_gain` above the best before them."""
    if patience < 1 or min_gain < 0:
        raise OptionError(f"plateau needs patience >= 1 and min_gain >= 0, got {patience} and {min_gain}")

    def stop(rounds: Sequence[RoundSummary]) -> str | None:
        scores = [_dev_uar(summary) for summary in rounds]
        if len(scores) <= patience:
            return None
        gain = max(scores[-patience:]) - max(scores[:-patience])
        if gain >= min_gain:
            return None
        return f"plateau: development UAR gained {gain:+.4f} in {patience} rounds, less than {min_gain}"

    return stop


STOPS: dict[str, Callable[..., Stop]] = {"budget_spent": budget_spent, "plateau": plateau}
"""Rules by name; each entry takes its options and returns the rule."""


def stop_reason(rounds: Sequence[RoundSummary], schedule: Sequence[int], options: StopOptions) -> str | None:
    """Why to stop after these rounds of a schedule of label counts, or None to go on; a spent budget comes first."""
    stops = [STOPS["budget_spent"](budget=schedule[-1])]
    if options.patience is not None:
        stops.append(STOPS["plateau"](patience=options.patience, min_gain=options.min_gain))
    return next((reason for stop in stops if (reason := stop(rounds)) is not None), None)


def _dev_uar(summary: RoundSummary) -> float:
    """The development UAR, without which a plateau cannot be seen."""
    if summary.dev_uar is None:
        raise OptionError(
            f"round {summary.round} has no development UAR, which the plateau rule needs; make a dev part"
        )
    return summary.dev_uar
