"""Which utterances deserve a label next: strategies by name, and the contract they are held to."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
from pydantic import ConfigDict, model_validator

from seral.active.candidates import Candidates, Strategy
from seral.active.strategies.clusters import k_means
from seral.active.strategies.farthest_first import k_center
from seral.active.strategies.informative_diverse import after
from seral.active.strategies.uncertainty import bald, entropy, least_confidence, margin
from seral.active.strategies.uniform import uniform
from seral.errors import OptionError, SelectionError, unknown_name
from seral.options import Options

STRATEGIES: dict[str, Strategy] = {
    "random": uniform,
    "entropy": entropy,
    "margin": margin,
    "least_confidence": least_confidence,
    "bald": bald,
    "k_center": k_center,
    "k_means": k_means,
    "after": after,
}
"""A new strategy is one function and one line here; the contract tests run over this table."""

NEEDS: dict[str, frozenset[str]] = {
    "random": frozenset(),
    "entropy": frozenset({"probability_NC"}),
    "margin": frozenset({"probability_NC"}),
    "least_confidence": frozenset({"probability_NC"}),
    "bald": frozenset({"dropout_SNC"}),
    "k_center": frozenset({"embedding_ND"}),
    "k_means": frozenset({"embedding_ND"}),
    "after": frozenset({"probability_NC", "embedding_ND"}),
}
"""What each strategy reads of the candidates, so that a round computes no more than it is asked for."""


class StrategyOptions(Options):
    """A strategy by name, with its own options beside it: `margin`, or `{name: after, beta: 10}`."""

    model_config = ConfigDict(extra="allow")

    name: str
    """One of the strategies of seral.active.strategies."""

    @model_validator(mode="before")
    @classmethod
    def _name_alone(cls, value: Any) -> Any:
        return {"name": value} if isinstance(value, str) else value

    @model_validator(mode="after")
    def _check(self) -> StrategyOptions:
        check_options(self.name, self.parameters)
        return self

    @property
    def parameters(self) -> dict[str, Any]:
        """The options beside the name."""
        return dict(self.model_extra or {})

    @property
    def needs_dropout(self) -> bool:
        """Whether the strategy reads stochastic passes."""
        return "dropout_SNC" in NEEDS[self.name]

    @property
    def needs_embedding(self) -> bool:
        """Whether the strategy reads features."""
        return "embedding_ND" in NEEDS[self.name]


def select(
    strategy: str | StrategyOptions, candidates: Candidates, k: int, rng: np.random.Generator, **options: Any
) -> list[str]:
    """The k ids a strategy prefers, in its order, checked: k different ones, all of them candidates."""
    if isinstance(strategy, StrategyOptions):
        return select(strategy.name, candidates, k, rng, **{**strategy.parameters, **options})
    check_options(strategy, options)
    if not 0 <= k <= len(candidates):
        raise SelectionError(f"asked {strategy} for {k} picks of {len(candidates)} candidates")
    call: Callable[..., list[str]] = STRATEGIES[strategy]
    picks = call(candidates, k, rng, **options)
    _check_picks(strategy, picks, candidates, k)
    return picks


def _check_picks(name: str, picks: list[str], candidates: Candidates, k: int) -> None:
    """The contract of a strategy."""
    if len(picks) != k:
        raise SelectionError(f"{name} gave {len(picks)} picks, asked for {k}")
    if len(set(picks)) != k:
        raise SelectionError(f"{name} picked {k - len(set(picks))} utterances more than once")
    if strangers := set(picks) - set(candidates.ids.tolist()):
        raise SelectionError(f"{name} picked {min(strangers)}, which is not a candidate ({len(strangers)} such picks)")


def strategy_options(name: str) -> dict[str, Any]:
    """The named strategy's options and their defaults."""
    if name not in STRATEGIES:
        raise OptionError(unknown_name("strategy", name, STRATEGIES))
    parameters = inspect.signature(STRATEGIES[name]).parameters.values()
    return {item.name: item.default for item in parameters if item.kind is inspect.Parameter.KEYWORD_ONLY}


def check_options(name: str, options: Mapping[str, Any]) -> None:
    """Refuse an unknown strategy, an option it does not have, or a value of the wrong kind."""
    known = strategy_options(name)
    for option, value in options.items():
        if option not in known:
            valid = unknown_name(f"option of strategy {name}", option, known)
            raise OptionError(valid if known else f"strategy {name} has no options, got {option!r}")
        default = known[option]
        expected: tuple[type, ...] = (str,) if isinstance(default, str) else (int, float, type(default))
        if isinstance(value, bool) or not isinstance(value, expected):
            raise OptionError(f"option {option} of strategy {name} is {value!r}; its default is {default!r}")
