"""Options: one strict, frozen model per owner, read from YAML, overridden by `key.path=value`."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, TypeVar

import yaml
from pydantic import BaseModel, ConfigDict, ValidationError

from seral.errors import AwaitingLabels, OptionError, SeralError


class Options(BaseModel):
    """Base of every options model: immutable, keyword-only, unknown keys are errors that list the known ones."""

    model_config = ConfigDict(frozen=True, extra="forbid", use_attribute_docstrings=True)


CHECK_FLAG, SUBMITTED_FLAG = "--check", "--submitted"
PAUSED = "seral paused: "
"""How the line begins with which a submitted job that awaits labels ends."""

OptionsT = TypeVar("OptionsT", bound=Options)


def parse(model: type[OptionsT], values: Mapping[str, Any], overrides: Sequence[str] = ()) -> OptionsT:
    """Build a model from plain values and `key.path=value` overrides. Raises OptionError naming each wrong field."""
    merged = deep_copy(values)
    for override in overrides:
        _apply(merged, override)
    try:
        return model.model_validate(merged)
    except ValidationError as error:
        raise OptionError(_explain(model, error)) from None


def load(model: type[OptionsT], path: str | Path | None, overrides: Sequence[str] = ()) -> OptionsT:
    """Build a model from a YAML file (None: from the overrides alone)."""
    return parse(model, {} if path is None else read_yaml(path), overrides)


def read_yaml(path: str | Path) -> dict[str, Any]:
    """A YAML file that holds a mapping."""
    file = Path(path)
    if not file.is_file():
        raise OptionError(f"no configuration file at {file}")
    try:
        values = yaml.safe_load(file.read_text(encoding="utf-8"))
    except yaml.YAMLError as error:
        raise OptionError(f"{file} is not valid YAML: {error}") from None
    if not isinstance(values, dict):
        raise OptionError(f"{file} must hold `key: value` lines, found {type(values).__name__}")
    return values


def dump(options: Options) -> str:
    """The resolved options as YAML, in declaration order."""
    return yaml.safe_dump(options.model_dump(mode="json"), sort_keys=False, allow_unicode=True)


def run_job(model: type[OptionsT], call: Callable[[OptionsT], object], description: str | None) -> None:
    """The command line of a job file: `[--config FILE.yaml] [key=value ...]`, then one library call."""
    parser = argparse.ArgumentParser(
        description=description,
        epilog="options:\n" + describe(model),
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--config", help="YAML file with the options below")
    parser.add_argument(CHECK_FLAG, action="store_true", help="check the options, print all of them as YAML, and end")
    parser.add_argument(
        SUBMITTED_FLAG,
        action="store_true",
        help="to a job server: awaiting labels is a good end",
    )
    parser.add_argument("overrides", nargs="*", metavar="key=value", help="override one option, e.g. finetune.epochs=5")
    given = parser.parse_args()
    try:
        options = load(model, given.config, given.overrides)
        outcome = dump(options) if given.check else call(options)
    except AwaitingLabels as pause:
        if given.submitted:
            print(f"{PAUSED}{pause}")
            return
        print(pause, file=sys.stderr)
        sys.exit(pause.status)
    except SeralError as error:
        sys.exit(f"error: {error}")
    if outcome is not None:
        print(outcome)


def describe(model: type[BaseModel], prefix: str = "") -> str:
    """One line per option: path, default and what it means."""
    lines = []
    for name, field in model.model_fields.items():
        inner = _nested(field.annotation)
        if inner is not None:
            lines.append(describe(inner, f"{prefix}{name}."))
            continue
        default = "required" if field.is_required() else field.get_default(call_default_factory=True)
        lines.append(f"  {prefix}{name} = {default}\n      {' '.join((field.description or '').split())}")
    return "\n".join(lines)


def _nested(annotation: Any) -> type[BaseModel] | None:
    """The options model inside `Model` or `Model | None`, if any."""
    for candidate in (annotation, *getattr(annotation, "__args__", ())):
        if isinstance(candidate, type) and issubclass(candidate, BaseModel):
            return candidate
    return None


def _apply(values: dict[str, Any], override: str) -> None:
    path, equals, text = override.partition("=")
    if not equals or not path:
        raise OptionError(f"an override is key.path=value, got {override!r}")
    try:
        put(values, path, yaml.safe_load(text))
    except yaml.YAMLError:
        raise OptionError(f"the value in {override!r} is not valid YAML; quote it if it is plain text") from None


def put(values: dict[str, Any], path: str, value: Any) -> None:
    """Set one option in plain values in place; `path` is `key.inner.key`."""
    *parents, last = path.split(".")
    for parent in parents:
        if not isinstance(values.get(parent), dict):
            values[parent] = {}
        values = values[parent]
    values[last] = value


def deep_copy(values: Mapping[str, Any]) -> dict[str, Any]:
    """Plain values whose mappings may be changed."""
    return {key: deep_copy(value) if isinstance(value, Mapping) else value for key, value in values.items()}


def _explain(model: type[BaseModel], error: ValidationError) -> str:
    lines = []
    for problem in error.errors():
        path = [str(part) for part in problem["loc"]]
        where = ".".join(path) or model.__name__
        if problem["type"] == "extra_forbidden":
            owner = _owner(model, path[:-1])
            lines.append(f"unknown option {where!r}; known here: {', '.join(owner.model_fields)}")
        else:
            lines.append(f"{where}: {problem['msg']}, got {problem['input']!r}")
    return "\n".join(lines)


def _owner(model: type[BaseModel], path: Sequence[str]) -> type[BaseModel]:
    for part in path:
        field = model.model_fields.get(part)
        inner = None if field is None else _nested(field.annotation)
        if inner is None:
            return model
        model = inner
    return model
