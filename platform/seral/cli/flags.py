"""Flags that every command has: `--json`, `--quiet`, `--verbose`."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Sequence
from functools import wraps
from typing import Annotated, Any

import typer

from seral import progress
from seral.cli.display import print_json


def flag(option: str, callback: Callable[[bool], None] | None, help: str, short: str = "") -> inspect.Parameter:
    """A flag of a command; with a callback, which is looked at before anything else on the line."""
    names = [option, *([short] if short else [])]
    info = typer.Option(*names, is_eager=callback is not None, callback=callback, help=help)
    name = option.removeprefix("--").replace("-", "_")
    return inspect.Parameter(
        f"flag_{name}", inspect.Parameter.KEYWORD_ONLY, default=False, annotation=Annotated[bool, info]
    )


def signature_of(function: Callable[..., Any]) -> inspect.Signature:
    """The parameters of a command as typer reads them; what it returns is imported only when it runs."""
    function.__annotations__["return"] = None
    return inspect.signature(function, eval_str=True)


def with_flags(function: Callable[..., Any], flags: Sequence[inspect.Parameter]) -> Callable[..., Any]:
    """A command with further flags, whose callbacks do all that they do."""

    @wraps(function)
    def command(**values: Any) -> Any:
        return function(**{name: value for name, value in values.items() if name not in names})

    names = {one.name for one in flags}
    signature = signature_of(function)
    command.__signature__ = signature.replace(  # type: ignore[attr-defined]  # what typer reads
        parameters=[*signature.parameters.values(), *flags]
    )
    return command


def reset() -> None:
    """Begin a command as if no flag stood on its line."""
    progress.set_level(progress.USUAL)
    print_json(False)


def _json(on: bool) -> None:
    if on:
        print_json(True)


def _quiet(on: bool) -> None:
    if on:
        progress.set_level(progress.QUIET)


def _verbose(on: bool) -> None:
    if on:
        progress.set_level(progress.VERBOSE)


EVERYWHERE = [
    flag("--json", _json, "Print JSON, for other programs."),
    flag("--quiet", _quiet, "Print the result alone: no progress, no remarks.", "-q"),
    flag("--verbose", _verbose, "Say more: words of the workers, the traceback of an error.", "-v"),
]


def add_everywhere(app: typer.Typer) -> None:
    """Give the flags to every command of an app and of the groups in it."""
    for command in app.registered_commands:
        if command.callback is not None:
            command.callback = with_flags(command.callback, EVERYWHERE)
    for group in app.registered_groups:
        if group.typer_instance is not None:
            add_everywhere(group.typer_instance)
