"""Tables of parts by name: one's own, those of installed packages, and any function as `package.module:name`.

An installed package adds a part by an entry point of the table's group; its name is the part's name everywhere. A part
that is named by its module needs no installation, only an import, and code runs by being imported: so its package has
to be allowed, by whoever gives the command (`allow`), never by what is read from a folder of somebody else's.
"""

from __future__ import annotations

import importlib
import inspect
import os
import re
import sys
import warnings
from collections import UserDict
from collections.abc import Callable, Iterable, Iterator, Mapping
from functools import cache
from importlib.metadata import EntryPoint, entry_points
from typing import Any, TypeVar

PartT = TypeVar("PartT")

PACKAGES = "SERAL_PLUGINS"
"""Environment variable with the packages, divided by commas, whose parts may be named by their modules."""
BY_MODULE = re.compile(r"([A-Za-z_]\w*)(?:\.\w+)*:[A-Za-z_]\w*")
"""`package.module:name`; its first group is the package."""


class PluginError(ValueError):
    """A part of somebody else's that cannot be used, and why."""


class Registry(UserDict[str, PartT]):
    """A table of parts. Iterating gives one's own and those of installed packages; a lookup also takes `module:name`.

    `adopt` makes a record of what a package gives, or raises ValueError. One's own parts cannot be replaced. A package
    that cannot be imported is left out with a warning, and an error where it is asked for.
    """

    def __init__(self, own: Mapping[str, PartT], group: str, adopt: Callable[[Any], PartT]) -> None:
        self.own, self.group, self._adopt = dict(own), group, adopt
        super().__init__(own)

    def __missing__(self, name: str) -> PartT:
        if BY_MODULE.fullmatch(name):
            part = _by_module(name)
        elif name in (entries := _entries(self.group)):
            part = _loaded(entries[name])
        else:
            raise KeyError(name)
        try:
            self.data[name] = self._adopt(part)
        except ValueError as error:
            raise PluginError(f"{name} is no part for {self.group}: {error}") from error
        return self.data[name]

    def __contains__(self, name: object) -> bool:
        """Whether it can be looked up, or would be but for an error that a lookup tells."""
        if name in self.data or name in _entries(self.group):
            return True
        return isinstance(name, str) and bool(BY_MODULE.fullmatch(name))

    def __iter__(self) -> Iterator[str]:
        yield from self.own
        yield from (name for name in self._installed() if name not in self.own)
        # Those that were named by their modules, or put in by hand.
        yield from (name for name in [*self.data] if name not in self.own and name not in _entries(self.group))

    def __len__(self) -> int:
        return sum(1 for _ in self)

    def own_first(self, names: Iterable[str]) -> list[str]:
        """Some names in the order of the table, other people's behind one's own, sorted."""
        wanted = set(names)
        return [name for name in self.own if name in wanted] + sorted(wanted - set(self.own))

    def _installed(self) -> Iterator[str]:
        for name, entry in sorted(_entries(self.group).items()):
            try:
                self[name]
            except PluginError as error:
                warnings.warn(f"{error}; it is left out", stacklevel=3)
            else:
                yield entry.name


def did_you_mean(name: str, valid: Iterable[str]) -> str:
    """A question about the valid name nearest to a wrong one, to put behind a sentence; '' if none is near."""
    from difflib import get_close_matches

    near = get_close_matches(str(name), list(valid), n=1)
    return f"; did you mean {near[0]!r}?" if near else ""


def only(record: type[PartT]) -> Callable[[Any], PartT]:
    """Takes records of one class alone. ValueError for anything else."""

    def adopt(part: Any) -> PartT:
        if not isinstance(part, record):
            raise ValueError(f"{part!r} is no {record.__module__}.{record.__name__}")
        return part

    return adopt


def with_options(function: Callable[..., Any]) -> Callable[..., Any]:
    """A function whose options, its keyword-only parameters, have annotations and defaults. ValueError if not so."""
    if not callable(function):
        raise ValueError(f"a {type(function).__name__} is no function")
    for option in inspect.signature(function).parameters.values():
        if option.kind is inspect.Parameter.KEYWORD_ONLY and inspect.Parameter.empty in (
            option.default,
            option.annotation,
        ):
            raise ValueError(f"its option {option.name} needs a type and a default: `*, {option.name}: float = 1.0`")
    return function


def allow(values: Any) -> None:
    """Allow the packages of all parts that are named by their modules anywhere in these values, here and in workers.

    The current folder is searched for them, too, after everything else.
    """
    names = {match[1] for text in _texts(values) for match in BY_MODULE.finditer(text)}
    if new := names - _allowed():
        os.environ[PACKAGES] = ",".join(sorted(_allowed() | new))
        if os.getcwd() not in sys.path:
            sys.path.append(os.getcwd())


def _texts(values: Any) -> Iterator[str]:
    if isinstance(values, str):
        yield values
    elif isinstance(values, Mapping):
        yield from (text for item in values.values() for text in _texts(item))
    elif isinstance(values, Iterable) and not isinstance(values, bytes):
        yield from (text for item in values for text in _texts(item))


def _allowed() -> set[str]:
    return {name for name in os.environ.get(PACKAGES, "").split(",") if name}


def _by_module(name: str) -> Any:
    module, _, attribute = name.partition(":")
    package = module.partition(".")[0]
    if package not in _allowed():
        raise PluginError(f"{name} is code of the package {package}: set {PACKAGES}={package} if it may run")
    try:
        return getattr(importlib.import_module(module), attribute)
    except Exception as error:  # whatever a stranger's module raises
        raise PluginError(f"{name} cannot be imported: {type(error).__name__}: {error}") from error


@cache
def _entries(group: str) -> dict[str, EntryPoint]:
    entries: dict[str, EntryPoint] = {}
    for entry in entry_points(group=group):
        if (other := entries.get(entry.name)) and other.value != entry.value:
            warnings.warn(f"{group} {entry.name}: {other.value} and {entry.value} have this name", stacklevel=2)
        entries.setdefault(entry.name, entry)
    return entries


def _loaded(entry: EntryPoint) -> Any:
    try:
        return entry.load()
    except Exception as error:  # whatever a stranger's module raises
        package = entry.dist.name if entry.dist else "a package"
        reason = f"{type(error).__name__}: {error}"
        raise PluginError(
            f"{entry.group} {entry.name} of {package} ({entry.value}) cannot be imported: {reason}"
        ) from error
