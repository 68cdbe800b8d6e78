"""Budgets of rounds: labels, as absolute sizes or shares of the training part, or annotator minutes."""

from __future__ import annotations

from decimal import ROUND_HALF_UP, Decimal
from itertools import pairwise

from pydantic import FiniteFloat, model_validator

from seral.errors import OptionError
from seral.options import Options
from seral.selection.options import PaceOptions

PRESETS: dict[str, tuple[float, ...]] = {"clean": (0.05, 0.10, 0.15, 0.20)}
"""Named shares. `clean`: 5 % to start and three rounds of 5 % more. Li et al. 2023, AFTER, arXiv 2310.00283."""


class BudgetOptions(Options):
    """Options of what each round may have bought, the initial set included: labels, or minutes of an annotator."""

    sizes: list[int] | None = None
    """Labels held after each round, absolute."""
    fractions: list[FiniteFloat] | None = None
    """Labels held after each round, as shares of the training part, each in (0, 1]."""
    minutes: list[FiniteFloat] | None = None
    """Minutes of an annotator spent after each round."""
    pace: PaceOptions = PaceOptions()
    """The cost of a clip, where minutes are counted."""

    @model_validator(mode="after")
    def _check(self) -> BudgetOptions:
        kinds = {name: getattr(self, name) for name in ("sizes", "fractions", "minutes")}
        if len(several := [f"{name} {value}" for name, value in kinds.items() if value is not None]) > 1:
            raise ValueError(f"give sizes, fractions or minutes, one of them, got {', '.join(several)}")
        steps = next((value for value in kinds.values() if value is not None), self._shares())
        if not steps:
            raise ValueError("a budget needs at least one entry, got an empty list")
        for earlier, later in pairwise(steps):
            if later <= earlier:
                raise ValueError(f"a budget must increase from round to round, got {earlier} and then {later}")
        if steps[0] <= 0:
            raise ValueError(f"a budget starts above 0, got {steps[0]}")
        if self.sizes is None and self.minutes is None and steps[-1] > 1:
            raise ValueError(f"a fraction is at most 1, got {steps[-1]}; for label counts use sizes")
        return self

    def schedule(self, n_train: int) -> list[int]:
        """Labels held after each round of a training part of `n_train` utterances, strictly increasing.

        A share becomes `round(share · n_train)` with halves rounded up, computed in decimal: 0.29 of 50 is 14.5, thus
        15, though the binary product is 14.499….
        """
        counts = self.sizes if self.sizes is not None else [_share_of(share, n_train) for share in self._shares()]
        if counts[0] < 1:
            raise OptionError(
                f"the budget starts with {counts[0]} labels of {n_train} training utterances; at least 1 is needed"
            )
        if counts[-1] > n_train:
            raise OptionError(
                f"the budget ends at {counts[-1]} labels but there are only {n_train} training utterances"
            )
        for number, (earlier, later) in enumerate(pairwise(counts)):
            if later <= earlier:
                raise OptionError(
                    f"rounds {number} and {number + 1} of the budget are {earlier} and {later} labels of {n_train} "
                    "training utterances; widen the steps"
                )
        return list(counts)

    def _shares(self) -> list[float]:
        return list(PRESETS["clean"]) if self.fractions is None else self.fractions


def _share_of(share: float, n_train: int) -> int:
    """`share · n_train` to the nearest integer, halves up."""
    return int((Decimal(repr(share)) * n_train).quantize(Decimal(1), rounding=ROUND_HALF_UP))
