"""Choosing by configuration: a strategy, its wrappers and their options, and the contract that picks are held to."""

from __future__ import annotations

import inspect
from collections import Counter
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from collections.abc import Set as AbstractSet
from functools import partial
from typing import Any, Literal, get_args, get_type_hints

import numpy as np
from pydantic import ConfigDict, Field, model_validator

from seral.errors import OptionError, SelectionError, unknown_name
from seral.options import Options
from seral.selection.candidates import GROUPS, Candidates
from seral.selection.strategies import DIVERSITIES, STRATEGIES, UNCERTAINTIES, WRAPPERS
from seral.selection.strategies.records import Merged, Pick, Strategy, Wrapper
from seral.selection.trial import try_out


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
    """One of the wrappers of seral.selection.strategies."""

    @model_validator(mode="after")
    def _check(self) -> WrapperOptions:
        check_options(self.name, self.parameters, kind="wrapper")
        return self


class StrategyOptions(NamedOptions):
    """A strategy by name, with its own options beside it: `margin`, or `{name: after, beta: 10}`."""

    name: str
    """One of the strategies of seral.selection.strategies."""
    wrappers: list[WrapperOptions] = Field(default=[])
    """Wrappers of the strategy, the outermost first. The outermost has the last word: in `[quality, quota]` only good
    recordings are picked while there are any, and the quota is raised where the good ones cannot hold it; in
    `[quota, quality]` the quota holds, by worse recordings if need be."""

    @model_validator(mode="after")
    def _check(self) -> StrategyOptions:
        check_options(self.name, self.parameters)
        for wrapper in self.wrappers[1:]:
            if WRAPPERS[wrapper.name].relabels:
                raise ValueError(
                    f"{wrapper.name} gives ids that other wrappers do not know: put it first, as the outermost"
                )
        if any(part.parameters for part in (self, *self.wrappers)):
            try_out(self.call)
        return self

    @property
    def needs(self) -> frozenset[str]:
        """Fields of Candidates that the strategy and its wrappers read."""
        return frozenset().union(*(needs(part.name, part.parameters) for part in (self, *self.wrappers)))

    @property
    def relabels(self) -> bool:
        """Whether picks may be labelled already."""
        return any(WRAPPERS[wrapper.name].relabels for wrapper in self.wrappers)

    def with_source(self) -> StrategyOptions:
        """The strategy where the model has a source: one with an option `source` has it set."""
        asks = "source" in default_options(self.name)
        return self.model_copy(update={"source": True}) if asks else self

    @property
    def call(self) -> Pick:
        """The strategy in its wrappers."""
        call: Pick = partial(STRATEGIES[self.name].function, **self.parameters)
        for wrapper in reversed(self.wrappers):
            call = partial(WRAPPERS[wrapper.name].function, call, **wrapper.parameters)
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
    """Fields of Candidates that a strategy or wrapper reads with these options, so that a round computes no more."""
    values = {**default_options(name), **options}
    record = STRATEGIES.get(name) or WRAPPERS[name]
    by_options = (reads_of[values[option]] for option, reads_of in VALUES.items() if values.get(option))
    return frozenset(record.reads).union(*by_options)


def describe_strategies() -> list[str]:
    """One paragraph a strategy, then one a wrapper: name, options with defaults, and the first lines of its docs; also
    whether its picks are merged when the pool is in parts."""
    lines = []
    tables: tuple[Mapping[str, Strategy | Wrapper], ...] = (STRATEGIES, WRAPPERS)
    for table in tables:
        for name in table:
            options = ", ".join(f"{key}={value!r}" for key, value in default_options(name).items())
            summary = inspect.cleandoc(function_of(name).__doc__ or "").split("\n\n")[0].replace("\n", " ")
            merged = isinstance(table[name].in_parts, Merged)
            lines.append(f"{name}({options})\n    {summary}" + (" In parts, its picks are merged." if merged else ""))
    return lines


def function_of(name: str) -> Callable[..., Any]:
    """The function of the named strategy or wrapper."""
    return (STRATEGIES.get(name) or WRAPPERS[name]).function


def default_options(name: str) -> dict[str, Any]:
    """The options of the named strategy or wrapper, and their defaults."""
    parameters = inspect.signature(function_of(name)).parameters.values()
    return {item.name: item.default for item in parameters if item.kind is inspect.Parameter.KEYWORD_ONLY}


def check_options(name: str, options: Mapping[str, Any], kind: Literal["strategy", "wrapper"] = "strategy") -> None:
    """Refuse an unknown strategy or wrapper, an option it does not have, or a value of the wrong kind."""
    table: Collection[str] = STRATEGIES if kind == "strategy" else WRAPPERS
    if name not in table:
        raise OptionError(unknown_name(kind, name, table))
    defaults, hints = default_options(name), get_type_hints(function_of(name))
    for option, value in options.items():
        if option not in defaults:
            valid = unknown_name(f"option of {kind} {name}", option, defaults)
            raise OptionError(valid if defaults else f"{kind} {name} has no options, got {option!r}")
        expected = get_args(hints[option]) or (hints[option],)
        expected += (int,) if float in expected else ()
        if isinstance(value, bool) is not (bool in expected) or not isinstance(value, expected):
            raise OptionError(f"option {option} of {kind} {name} is {value!r}; its default is {defaults[option]!r}")
        if option in VALUES and value is not None and value not in VALUES[option]:
            raise OptionError(unknown_name(f"{option} of {kind} {name}", value, VALUES[option]))


VALUES: dict[str, dict[str, AbstractSet[str]]] = {
    "uncertainty": {name: {uncertainty.reads} for name, uncertainty in UNCERTAINTIES.items()},
    "diversity": {name: STRATEGIES[name].reads for name in DIVERSITIES},
    "by": {name: {column} for name, column in GROUPS.items()},
}
"""Options that name something, whichever strategy or wrapper has them: their values, and what each reads."""
