"""The command line: the verbs of `jobs/` for a person at a terminal. Holds no logic.

A module of this package is a group of commands, or several that have none; it is imported when one of its commands is
asked for, so that what only reads or lists answers at once.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from functools import cache
from importlib import import_module
from typing import Annotated, Any, Literal

import typer
from typer.core import TyperCommand, TyperGroup
from typer.main import get_command

from seral.cli.completion import join_words
from seral.cli.configured import add_configured
from seral.cli.flags import add_everywhere, reset
from seral.errors import AwaitingLabels, refuse_secrets
from seral.process.ending import end_if_stopped, ends_with
from seral.process.failures import explanation
from seral.verbs import VERBS
from seral.versions import __version__

MARKUP: Literal["markdown"] = "markdown"
SUMMARY = """Active learning for speech emotion recognition, on Ray.

**pool** imports speech, **loop** decides what deserves a label and trains on the answers, **labels** is for the people
who answer, **report** shows what it was worth, **predict** uses the model and **serve** answers with it over HTTP,
**run** looks after the folder of a run. **pretrain** and **adapt** adapt an encoder, **distil** makes a small one of
it; **select** picks what to label next without a loop, by one of the **strategies**; **compare** and **two-stage** are
studies of how to train, **layers** looks into an encoder; **sweep** looks for the best options of a training; **jobs**
sends any of it to a cluster. **init** makes a folder to start in, **config** prints runs to start from.
"""
MODULES = {
    "project": "init config",
    "pool": "pool",
    "loop": "loop",
    "labels": "labels",
    "runs": "run runs",
    "training": "features pretrain distil fit ensemble adapt transfer train compare two-stage "
    "compare-strategies strategy-survey",
    "selection": "select strategies protocols",
    "layers": "layers",
    "sweep": "sweep",
    "study": "study",
    "jobs": "jobs",
    "results": "report serve predict export doctor demo",
}
"""Modules of this package, and the first words of their commands, in the order of `seral --help`."""
HOME = {word: module for module, words in MODULES.items() for word in words.split()}
HOME |= {verb.words[0]: "training" for verb in VERBS.values() if verb.words[0] not in HOME}
"""First word of a command -> its module; that of a verb which nobody has listed is `training`."""


class Commands(Mapping[str, TyperCommand | TyperGroup]):
    """All commands and groups by their first words, each built when it is looked up."""

    def __getitem__(self, word: str) -> TyperCommand | TyperGroup:
        return _built(HOME[word])[word]

    def __iter__(self) -> Iterator[str]:
        return iter(HOME)

    def __len__(self) -> int:
        return len(HOME)


@cache
def _built(module: str) -> dict[str, TyperCommand | TyperGroup]:
    """The commands and groups of a module, those of its verbs without a function of their own too."""
    app: typer.Typer = import_module(f"seral.cli.{module}").app
    add_configured(app, [verb for verb in VERBS.values() if HOME[verb.words[0]] == module])
    add_everywhere(app)
    top = typer.Typer(rich_markup_mode=MARKUP, add_completion=False)
    top.add_typer(app)
    commands: dict[str, TyperCommand | TyperGroup] = get_command(top).commands  # type: ignore[attr-defined]  # a group
    return commands


class Root(TyperGroup):
    """`seral` itself; a line with a password on it is refused before anything can store or print it."""

    def __init__(self, **attributes: Any) -> None:
        super().__init__(**attributes)
        self.commands = Commands()  # type: ignore[assignment]  # nobody adds to them

    def list_commands(self, ctx: Any) -> list[str]:
        """The first words, without building what they name."""
        return list(self.commands)

    def make_context(self, info_name: str | None, args: list[str], *more: Any, **extra: Any) -> Any:
        """Read the line, once it was looked at."""
        refuse_secrets(args)
        return super().make_context(info_name, args, *more, **extra)


app = typer.Typer(
    cls=Root,
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    rich_markup_mode=MARKUP,
    help=SUMMARY,
)


def _print_version(asked: bool) -> None:
    if asked:
        typer.echo(f"seral {__version__}")
        raise typer.Exit


@app.callback()
def _before_any_command(
    version: Annotated[
        bool, typer.Option("--version", is_eager=True, callback=_print_version, help="Show the version, and exit.")
    ] = False,
) -> None:
    """Options that stand before a command."""
    reset()


def main() -> None:
    """Run the command line; what a person can do something about is one clear message and exit status 1.

    Waiting for people is status 75.
    """
    join_words()
    try:
        _run()
    except SystemExit as end:
        ends_with(end.code if isinstance(end.code, int) else int(end.code is not None))
        raise


def _run() -> None:
    try:
        app()
    except Exception as raised:
        end_if_stopped()
        from rich.console import Console
        from rich.markup import escape

        error = getattr(raised, "cause", None) or raised  # Ray wraps what its workers raise
        console = Console(stderr=True, highlight=False)
        if isinstance(error, AwaitingLabels):
            console.print(escape(str(error)), soft_wrap=True)
            raise SystemExit(error.status) from None
        if (words := explanation(raised)) is None:
            raise
        console.print(f"[bold red]error:[/] {escape(words)}", soft_wrap=True)
        raise SystemExit(1) from None
