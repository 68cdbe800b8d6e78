"""Commands of the table of verbs: their help comes from it, and each has `--options` and `--json-schema`."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping, Sequence
from functools import wraps
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, TypeVar

import typer
from typer.core import TyperCommand

from seral.cli.arguments import Sets
from seral.cli.display import show_outcome
from seral.verbs import VERBS, Verb

if TYPE_CHECKING:
    from seral.options import Options

Function = TypeVar("Function", bound=Callable[..., Any])
Config = Annotated[
    Path | None, typer.Argument(metavar="CONFIG", help="YAML file of the options; `--options` lists them.")
]


def command_of(group: typer.Typer, name: str, cls: type[TyperCommand] | None = None) -> Callable[[Function], Function]:
    """Register a function with arguments of its own as the command of a verb."""
    verb = VERBS[name]

    def register(function: Function) -> Function:
        group.command(verb.words[-1], cls=cls, help=verb.manual)(listing(verb.options_model, verb.name)(function))
        return function

    return register


def add_configured(groups: Mapping[str, Sequence[typer.Typer]]) -> None:
    """Give every verb that has no command yet the command `CONFIG [--set KEY=VALUE ...]`.

    `groups` holds the commands of each group, of those without a group under ''; the first of several gets new ones.
    """
    for verb in VERBS.values():
        *words, name = verb.words
        parts = groups[" ".join(words)]
        if name not in {command.name for part in parts for command in part.registered_commands}:
            command_of(parts[0], verb.name)(_configured(verb))


def _configured(verb: Verb) -> Callable[..., None]:
    def command(config: Config = None, settings: Sets = None) -> None:
        from seral.options import load

        if config is None and not settings:
            raise typer.BadParameter("name a YAML file, or options by --set; --options lists them", param_hint="CONFIG")
        show_outcome(verb.call(load(verb.options_model(), config, settings or [], verb.name)))

    return command


def listing(
    model: Callable[[], type[Options]], verb: str | None = None, of: str = "all options"
) -> Callable[[Function], Callable[..., Any]]:
    """Decorator of a command: adds `--options` and `--json-schema`, which print the options of a model and end."""

    def describe(value: bool) -> None:
        if value:
            from seral.options import describe

            typer.echo(describe(model()))
            raise typer.Exit

    def schema(value: bool) -> None:
        if value:
            from seral.options import json_schema

            typer.echo(json_schema(model(), verb))
            raise typer.Exit

    flags = [
        _flag("--options", describe, f"List {of} with default, type and meaning, and end."),
        _flag("--json-schema", schema, f"Print the JSON Schema of {of}, for editors, and end."),
    ]

    def decorate(function: Function) -> Callable[..., Any]:
        @wraps(function)
        def command(**values: Any) -> Any:
            return function(**{name: value for name, value in values.items() if name not in names})

        names = {flag.name for flag in flags}
        signature = inspect.signature(function, eval_str=True)
        command.__signature__ = signature.replace(  # type: ignore[attr-defined]  # what typer reads
            parameters=[*signature.parameters.values(), *flags]
        )
        return command

    return decorate


def _flag(option: str, callback: Callable[[bool], None], help: str) -> inspect.Parameter:
    """A flag that is looked at before anything else on the line, and whatever is missing there."""
    info = typer.Option(option, is_eager=True, callback=callback, help=help)
    name = option.removeprefix("--").replace("-", "_")
    return inspect.Parameter(
        f"lists_{name}", inspect.Parameter.KEYWORD_ONLY, default=False, annotation=Annotated[bool, info]
    )
