"""Options: one strict, frozen model per owner, read from YAML, overridden by `key.path=value`."""

from __future__ import annotations

import argparse
import json
import re
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from types import NoneType, UnionType
from typing import Annotated, Any, Literal, Self, TypeVar, Union, get_args, get_origin

import yaml
from pydantic import BaseModel, ConfigDict, ValidationError, model_validator
from pydantic.fields import FieldInfo
from pydantic.json_schema import GenerateJsonSchema
from pydantic_core import core_schema

from ser_models.registry import allow, did_you_mean
from seral.errors import AwaitingLabels, OptionError, refuse_secrets
from seral.process.ending import end_if_stopped, ends_with, stoppable
from seral.process.failures import explanation
from seral.secrets.addresses import complaint, is_secret
from seral.security.phrases import with_value


class Options(BaseModel):
    """Base of every options model: immutable, keyword-only, unknown keys are errors that list the known ones.

    Options are stored and shown, so an address with a password is refused.
    """

    model_config = ConfigDict(
        frozen=True, extra="forbid", use_attribute_docstrings=True, hide_input_in_errors=True, defer_build=True
    )

    @model_validator(mode="after")
    def _refuse_secrets(self) -> Self:
        for path, reason in secrets_in(self.__dict__):
            raise ValueError(f"{path}: {reason}")
        return self


CHECK_FLAG, SUBMITTED_FLAG = "--check", "--submitted"
PAUSED = "seral paused: "
"""Beginning of the line with which a submitted job that awaits labels ends."""
VERB = "verb"
"""Key of a YAML file that names the verb whose options it holds."""
BOUNDS = {"gt": "> {}", "ge": ">= {}", "lt": "< {}", "le": "<= {}", "min_length": "at least {}", "pattern": "like {}"}
"""Constraints of a field as `describe` writes them."""

OptionsT = TypeVar("OptionsT", bound=Options)


def parse(model: type[OptionsT], values: Mapping[str, Any], overrides: Sequence[str] = ()) -> OptionsT:
    """Build a model from plain values and `key.path=value` overrides, which may name code by its module as a command's
    words may. Raises OptionError naming each wrong field."""
    allow(overrides)
    merged = deep_copy(values)
    for override in overrides:
        _apply(merged, override)
    for option, reason in secrets_in(merged):
        raise OptionError(f"{option}: {reason}")
    try:
        return model.model_validate(merged)
    except ValidationError as error:
        raise OptionError(_explain(model, error)) from None


def load(
    model: type[OptionsT], path: str | Path | None, overrides: Sequence[str] = (), verb: str | None = None
) -> OptionsT:
    """Build a model from a YAML file (None: from the overrides alone) for a verb.

    The file may say `verb: NAME`, as the config.yaml of every result does. Raises OptionError for another verb's file.
    """
    values = {} if path is None else read_yaml(path)
    allow(values)
    named = values.pop(VERB, verb)
    if verb is not None and named != verb:
        raise OptionError(f"{path} holds options of {named!r}, not of {verb!r}: name a file of {verb!r}")
    return parse(model, values, overrides)


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


def run_job(
    model: type[OptionsT], call: Callable[[OptionsT], object], description: str | None, verb: str | None = None
) -> None:
    """The command line of a job file: `[--config FILE.yaml] [key=value ...]`, then one library call."""
    with stoppable():
        _run_job(model, call, description, verb)


def _run_job(
    model: type[OptionsT], call: Callable[[OptionsT], object], description: str | None, verb: str | None
) -> None:
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
    try:
        refuse_secrets(sys.argv[1:])
    except OptionError as error:
        sys.exit(f"error: {error}")
    arguments = parser.parse_args()
    try:
        options = load(model, arguments.config, arguments.overrides, verb)
        outcome = dump(options) if arguments.check else call(options)
    except AwaitingLabels as pause:
        if arguments.submitted:
            print(f"{PAUSED}{pause}")
            ends_with(0)
            return
        print(pause, file=sys.stderr)
        ends_with(pause.status)
        sys.exit(pause.status)
    except Exception as error:
        end_if_stopped()
        if (words := explanation(error)) is None:
            raise
        sys.exit(f"error: {words}")
    if outcome is not None:
        print(outcome)
    ends_with(0)


def describe(model: type[BaseModel]) -> str:
    """Path, default, type and meaning of every option, two lines each."""
    return "\n".join(
        f"  {path} = {_default(field)}  ({_type_of(field)})\n      {' '.join((field.description or '').split())}"
        for path, field in every_option(model)
    )


def every_option(model: type[BaseModel], prefix: str = "") -> Iterator[tuple[str, FieldInfo]]:
    """Path and field of every option, those of nested models after the option that holds them.

    `inner.rate` is an option of the nested model `inner`, `rows[].name` one of each entry of a list, `rows.KEY.name`
    one of each value of a mapping. A nested model that is always there stands for itself by its options alone.
    """
    for name, field in model.model_fields.items():
        inner = _nested(field.annotation)
        if inner is not field.annotation:
            yield f"{prefix}{name}", field
        if inner is not None:
            origin = get_origin(field.annotation)
            entry = "[]" if origin is list else ".KEY" if origin is dict else ""
            yield from every_option(inner, f"{prefix}{name}{entry}.")


def json_schema(model: type[BaseModel], verb: str | None = None) -> str:
    """JSON Schema of the YAML files of a model, for editors that complete and check them."""
    schema = model.model_json_schema(schema_generator=_SchemaOfFiles)
    schema |= schema.pop("anyOf", [{}])[0]  # a file is never the short form of a model
    if verb is not None:
        says = {"const": verb, "description": "The verb whose options these are."}
        schema["properties"] = {VERB: says, **schema["properties"]}
    return json.dumps(schema, indent=2, ensure_ascii=False)


class _SchemaOfFiles(GenerateJsonSchema):
    """JSON Schema of what files may hold: a field, or a model, that a validator completes may stand in a short form."""

    def function_before_schema(self, schema: core_schema.BeforeValidatorFunctionSchema) -> dict[str, Any]:
        full = super().function_before_schema(schema)
        return full if "properties" in full else {"anyOf": [full, {}]}

    def model_schema(self, schema: core_schema.ModelSchema) -> dict[str, Any]:
        full = super().model_schema(schema)
        inner = schema["schema"]
        while inner["type"] == "function-after":
            inner = inner["schema"]
        return {"anyOf": [full, {"not": {"type": "object"}}]} if inner["type"] == "function-before" else full


def _default(field: FieldInfo) -> Any:
    return "required" if field.is_required() else field.get_default(call_default_factory=True)


def _type_of(field: FieldInfo) -> str:
    """Type and bounds of an option: `float, > 0, <= 1`."""
    bounds = [
        text.format(value)
        for constraint in field.metadata
        for name, text in BOUNDS.items()
        if (value := getattr(constraint, name, None)) is not None
    ]
    return ", ".join([_type_name(field.annotation), *bounds])


def _type_name(annotation: Any) -> str:
    origin, arguments = get_origin(annotation), get_args(annotation)
    if annotation in (None, NoneType):
        return "None"
    if annotation is Ellipsis:
        return "..."
    if origin is Annotated:
        return _type_name(arguments[0])
    if origin in (Union, UnionType):
        return " | ".join(map(_type_name, arguments))
    if origin is Literal:
        return " | ".join(map(str, arguments))
    name = getattr(origin or annotation, "__name__", str(annotation))
    return f"{name}[{', '.join(map(_type_name, arguments))}]" if arguments else name


def _nested(annotation: Any) -> type[BaseModel] | None:
    """The options model inside `Model`, `Model | None`, `list[Model]` or `dict[str, Model]`, if any."""
    for candidate in (annotation, *get_args(annotation)):
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


def secrets_in(value: Any, path: str = "") -> Iterator[tuple[str, str]]:
    """Path and sentence of every address with a password in plain values, those of models in them left out."""
    if isinstance(value, str):
        if reason := complaint(value):
            yield path, reason
    elif isinstance(value, Mapping):
        for name, inner in value.items():
            yield from secrets_in(name, path)
            yield from secrets_in(inner, f"{path}.{name}" if path else str(name))
    elif isinstance(value, list | tuple | set):
        for inner in value:
            yield from secrets_in(inner, path)


def put(values: dict[str, Any], path: str, value: Any) -> None:
    """Set one option in plain values in place; `path` is `key.inner.key`. A name alone becomes `{name: NAME}` first, as
    of a strategy that options are set of."""
    *parents, last = keys_of(path)
    for parent in parents:
        if not isinstance(inner := values.get(parent), dict):
            values[parent] = {"name": inner} if isinstance(inner, str) else {}
        values = values[parent]
    values[last] = value


def keys_of(path: str) -> list[str]:
    """The keys of a path; a part that is named by its module is one key, as in `settings.package.module:NAME.rate`."""
    named = re.fullmatch(r"(.*\bsettings)\.([\w.]+:\w+)(.*)", path)
    return path.split(".") if named is None else [*named[1].split("."), named[2], *named[3].split(".")[1:]]


def deep_copy(values: Mapping[str, Any]) -> dict[str, Any]:
    """Plain values whose mappings may be changed."""
    return {key: deep_copy(value) if isinstance(value, Mapping) else value for key, value in values.items()}


def _explain(model: type[BaseModel], error: ValidationError) -> str:
    lines: dict[str, str] = {}
    for problem in error.errors():
        path = [text for part in problem["loc"] if "[" not in (text := str(part))]  # without the members of a union
        where = ".".join(path) or model.__name__
        if problem["type"] == "extra_forbidden":
            owner = _owner(model, path[:-1])
            near = did_you_mean(path[-1], owner.model_fields)
            lines[where] = f"unknown option {where!r}; known here: {', '.join(owner.model_fields)}{near}"
            continue
        # A check of our own names the values it is about; all fields of the model would bury it.
        named = problem["type"] in ("value_error", "missing") and isinstance(problem["input"], dict)
        value = "" if named or any(map(is_secret, path)) else f", got {problem['input']!r}"
        words = with_value(problem, value)
        if where in lines:
            lines[where] = f"{lines[where].removesuffix(value)}, or {words.removeprefix('expected ')}"
        else:
            lines[where] = f"{where}: {words}"
    return "\n".join(lines.values())


def _owner(model: type[BaseModel], path: Sequence[str]) -> type[BaseModel]:
    for part in path:
        field = model.model_fields.get(part)
        inner = None if field is None else _nested(field.annotation)
        if inner is None:
            return model
        model = inner
    return model
