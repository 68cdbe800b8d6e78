"""Choosing by configuration: a strategy, its wrappers and their options, and the contract that picks are held to."""

from __future__ import annotations

import inspect
from collections import Counter
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from functools import partial
from typing import Any, Literal, get_args, get_type_hints

import numpy as np
from pydantic import ConfigDict, Field, model_validator

from seral.errors import OptionError, SelectionError, unknown_name
from seral.options import Options
from seral.selection.candidates import GROUPS, Candidates, Strategy
from seral.selection.strategies import NEEDS, STRATEGIES
from seral.selection.strategies.informative_diverse import DIVERSITIES
from seral.selection.strategies.uncertainty import UNCERTAINTIES
from seral.selection.strategies.wrappers import WRAPPERS


class NamedOptions(Options):
    """A function of a table by name, with its own options beside it."""

    model_config = ConfigDict(extra="allow")

    name: str
    """One of the functions of a table."""

    @model_validator(mode="before")
    @classmethod
    def _name_alone(cls, value: Any) -> Any:
        return {"name": value} if isinstance(value, str) else value

    @property
    def parameters(self) -> dict[str, Any]:
        """The options beside the name."""
        return dict(self.model_extra or {})


class WrapperOptions(NamedOptions):
    """A wrapper by name: `quality`, or `{name: quota, by: corpus, share: 0.5}`."""

    name: str
    """One of the wrappers of seral.selection.strategies.wrappers."""

    @model_validator(mode="after")
    def _check(self) -> WrapperOptions:
        check_options(self.name, self.parameters, kind="wrapper")
        return self


class StrategyOptions(NamedOptions):
    """A strategy by name, with its own options beside it: `margin`, or `{name: after, beta: 10}`."""

    name: str
    """One of the strategies of seral.selection.strategies."""
    wrappers: list[WrapperOptions] = Field(default=[])
    """What it is wrapped in, the outermost first. The outermost has the last word: in `[quality, quota]` only good
    recordings are picked while there are any, and the quota is raised where the good ones cannot hold it; in
    `[quota, quality]` the quota holds, by worse recordings if need be."""

    @model_validator(mode="after")
    def _check(self) -> StrategyOptions:
        check_options(self.name, self.parameters)
        if any(wrapper.name == "relabel" for wrapper in self.wrappers[1:]):
            raise ValueError("relabel gives ids that other wrappers do not know: put it first, as the outermost")
        return self

    @property
    def needs(self) -> frozenset[str]:
        """What is read of the candidates."""
        return frozenset().union(*(needs(part.name, part.parameters) for part in (self, *self.wrappers)))

    @property
    def relabels(self) -> bool:
        """Whether picks may be labelled already."""
        return any(wrapper.name == "relabel" for wrapper in self.wrappers)

    @property
    def call(self) -> Strategy:
        """The strategy in its wrappers."""
        call: Strategy = partial(STRATEGIES[self.name], **self.parameters)
        for wrapper in reversed(self.wrappers):
            call = partial(WRAPPERS[wrapper.name], call, **wrapper.parameters)
        return call


def select(
    strategy: str | StrategyOptions, candidates: Candidates, k: int, rng: np.random.Generator, **options: Any
) -> list[str]:
    """The k ids a strategy prefers, in its order, checked: k different ones, all of them candidates.

    Wrapped in `relabel`, some of them are labelled already.
    """
    if isinstance(strategy, str):
        strategy = StrategyOptions(name=strategy, **options)
    check_count(strategy.name, k, len(candidates))
    if k == 0:
        return []
    picks = strategy.call(candidates, k, rng)
    allowed = candidates.ids[np.minimum(candidates.rows(picks), len(candidates) - 1)].tolist()
    if strategy.relabels and candidates.labelled_ids is not None:
        allowed += candidates.labelled_ids.tolist()
    check_picks(strategy.name, picks, k, allowed)
    return picks


def check_count(name: str, k: int, count: int) -> None:
    """Refuse to ask for more picks than there are candidates."""
    if not 0 <= k <= count:
        why = "" if count else ": every utterance with features is labelled already"
        raise SelectionError(f"asked {name} for {k} picks of {count} candidates{why}")


def check_picks(name: str, picks: Sequence[str], k: int, allowed: Iterable[str]) -> None:
    """The contract of a strategy: k picks, different ones, all of them allowed. Raises SelectionError."""
    if len(picks) != k:
        raise SelectionError(f"{name} gave {len(picks)} picks, asked for {k}")
    if twice := sorted(pick for pick, times in Counter(picks).items() if times > 1):
        raise SelectionError(f"{name} picked {twice[0]} more than once ({len(twice)} such utterances)")
    if strangers := set(picks).difference(allowed):
        raise SelectionError(f"{name} picked {min(strangers)}, which is not a candidate ({len(strangers)} such picks)")


def needs(name: str, options: Mapping[str, Any]) -> frozenset[str]:
    """What a strategy or wrapper reads of the candidates with these options, so that a round computes no more."""
    chosen = {**default_options(name), **options}
    found = set(NEEDS[name])
    if chosen.get("uncertainty"):
        found.add(UNCERTAINTIES[chosen["uncertainty"]][1])
    if chosen.get("diversity"):
        found |= NEEDS[chosen["diversity"]]
    if chosen.get("by"):
        found.add("probability_NC" if chosen["by"] == "predicted" else chosen["by"])
    return frozenset(found)


def describe_strategies() -> list[str]:
    """One paragraph a strategy, then one a wrapper: name, options with defaults, and the first lines of its docs."""
    lines = []
    for table in (STRATEGIES, WRAPPERS):
        for name, call in table.items():
            options = ", ".join(f"{key}={value!r}" for key, value in default_options(name).items())
            summary = inspect.cleandoc(call.__doc__ or "").split("\n\n")[0].replace("\n", " ")
            lines.append(f"{name}({options})\n    {summary}")
    return lines


def default_options(name: str) -> dict[str, Any]:
    """The options of the named strategy or wrapper, and their defaults."""
    table: dict[str, Callable[..., Any]] = {**STRATEGIES, **WRAPPERS}
    parameters = inspect.signature(table[name]).parameters.values()
    return {item.name: item.default for item in parameters if item.kind is inspect.Parameter.KEYWORD_ONLY}


def check_options(name: str, options: Mapping[str, Any], kind: Literal["strategy", "wrapper"] = "strategy") -> None:
    """Refuse an unknown strategy or wrapper, an option it does not have, or a value of the wrong kind."""
    table: Mapping[str, Callable[..., Any]] = STRATEGIES if kind == "strategy" else WRAPPERS
    if name not in table:
        raise OptionError(unknown_name(kind, name, table))
    known, hints = default_options(name), get_type_hints(table[name])
    for option, value in options.items():
        if option not in known:
            valid = unknown_name(f"option of {kind} {name}", option, known)
            raise OptionError(valid if known else f"{kind} {name} has no options, got {option!r}")
        expected = get_args(hints[option]) or (hints[option],)
        expected += (int,) if float in expected else ()
        if isinstance(value, bool) or not isinstance(value, expected):
            raise OptionError(f"option {option} of {kind} {name} is {value!r}; its default is {known[option]!r}")
        if option in VALUES and value is not None and value not in VALUES[option]:
            raise OptionError(unknown_name(f"{option} of {kind} {name}", value, VALUES[option]))


VALUES: dict[str, Collection[str]] = {"uncertainty": UNCERTAINTIES, "diversity": DIVERSITIES, "by": GROUPS}
"""Options that name something, whichever strategy or wrapper has them."""
