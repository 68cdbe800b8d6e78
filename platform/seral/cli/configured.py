"""Commands of the table of verbs: their help comes from it, and each has `--options` and `--json-schema`."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from functools import wraps
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, TypeVar

import typer
from typer.core import TyperCommand

from seral.cli.arguments import Sets
from seral.cli.display import show_outcome, show_plan
from seral.cli.flags import flag, signature_of, with_flags
from seral.verbs import VERBS, Verb

if TYPE_CHECKING:
    from seral.options import Options

Function = TypeVar("Function", bound=Callable[..., Any])
Config = Annotated[
    Path | None, typer.Argument(metavar="CONFIG", help="YAML file of the options; `--options` lists them.")
]

DRY_RUN = flag("--dry-run", None, "Say what would be read, computed and written, and how long it takes; do nothing.")


def command_of(group: typer.Typer, name: str, cls: type[TyperCommand] | None = None) -> Callable[[Function], Function]:
    """Register a function with arguments of its own as the command of a verb.

    It returns the options, or these and what prints the outcome.
    """
    verb = VERBS[name]

    def register(function: Function) -> Function:
        command = listing(verb.options_model, verb.name)(_performing(verb, function))
        group.command(verb.words[-1], cls=cls, help=verb.manual)(command)
        return function

    return register


def _performing(verb: Verb, function: Callable[..., Any]) -> Callable[..., None]:
    """A command that runs its verb with the options that a function makes of the line, or says what it would do."""

    @wraps(function)
    def command(**values: Any) -> None:
        dry_run = values.pop(DRY_RUN.name, False)
        made = function(**values)
        options, present = made if isinstance(made, tuple) else (made, show_outcome)
        if dry_run:
            show_plan(verb.foresee(options))
        else:
            present(verb.call(options))

    signature = signature_of(function)
    flags = [DRY_RUN] if verb.plan else []
    command.__signature__ = signature.replace(  # type: ignore[attr-defined]  # what typer reads
        parameters=[*signature.parameters.values(), *flags]
    )
    return command


def add_configured(app: typer.Typer, verbs: Iterable[Verb]) -> None:
    """Give each of some verbs that has no command in an app yet the command `CONFIG [--set KEY=VALUE ...]`."""
    names = {command.name for command in app.registered_commands}
    for verb in verbs:
        if verb.words[-1] not in names:
            command_of(app, verb.name)(_configured(verb))


def _configured(verb: Verb) -> Callable[..., Options]:
    def command(config: Config = None, settings: Sets = None) -> Options:
        from seral.options import load

        if config is None and not settings:
            raise typer.BadParameter("name a YAML file, or options by --set; --options lists them", param_hint="CONFIG")
        return load(verb.options_model(), config, settings or [], verb.name)

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
        flag("--options", describe, f"List {of} with default, type and meaning, and end."),
        flag("--json-schema", schema, f"Print the JSON Schema of {of}, for editors, and end."),
    ]
    return lambda function: with_flags(function, flags)
