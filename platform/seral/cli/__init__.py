"""The command line: the verbs of `jobs/` for a person at a terminal. Holds no logic.

A module of this package is a group of commands.
"""

from __future__ import annotations

from typing import Annotated, Any

import typer
from rich.console import Console
from rich.markup import escape
from typer.core import TyperGroup

from seral.cli.completion import join_words
from seral.cli.configured import add_configured
from seral.cli.flags import add_everywhere, reset
from seral.cli.jobs import jobs_app
from seral.cli.labels import labels_app
from seral.cli.layers import layers_app
from seral.cli.loop import loop_app
from seral.cli.pool import pool_app
from seral.cli.project import project_app
from seral.cli.results import results_app, run_app, runs_app
from seral.cli.selection import selection_app
from seral.cli.study import study_app
from seral.cli.sweep import sweep_app
from seral.cli.training import training_app
from seral.errors import AwaitingLabels
from seral.process.ending import end_if_stopped, ends_with
from seral.process.failures import explanation
from seral.versions import __version__

SUMMARY = """Active learning for speech emotion recognition, on Ray.

**pool** imports speech, **loop** decides what deserves a label and trains on the answers, **labels** is for the people
who answer, **report** shows what it was worth, **predict** uses the model and **serve** answers with it over HTTP,
**run** looks after the folder of a run. **pretrain** and **adapt** adapt an encoder, **distil** makes a small one of
it; **select** picks what to label next without a loop, by one of the **strategies**; **compare** and **two-stage** are
studies of how to train, **layers** looks into an encoder; **sweep** looks for the best options of a training; **jobs**
sends any of it to a cluster. **init** makes a folder to start in, **config** prints runs to start from.
"""
GROUPS = {
    "": [training_app, selection_app, results_app],
    "pool": [pool_app],
    "loop": [loop_app],
    "layers": [layers_app],
    "sweep": [sweep_app],
    "study": [study_app],
}
"""Commands by group, those without a group under ''."""


class Commands(TyperGroup):
    """All commands; one with a password on its line is refused before anything can store or print it."""

    def make_context(self, info_name: str | None, args: list[str], *more: Any, **extra: Any) -> Any:
        """Read the line, once it was looked at."""
        from seral.options import refuse_secrets

        refuse_secrets(args)
        return super().make_context(info_name, args, *more, **extra)


add_configured(GROUPS)
app = typer.Typer(
    cls=Commands,
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    rich_markup_mode="markdown",
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


app.add_typer(project_app)
app.add_typer(pool_app, name="pool")
app.add_typer(loop_app, name="loop")
app.add_typer(labels_app, name="labels")
app.add_typer(run_app, name="run")
app.add_typer(runs_app, name="runs")
app.add_typer(training_app)
app.add_typer(selection_app)
app.add_typer(layers_app, name="layers")
app.add_typer(sweep_app, name="sweep")
app.add_typer(study_app, name="study")
app.add_typer(jobs_app, name="jobs")
app.add_typer(results_app)
add_everywhere(app)


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
        error = getattr(raised, "cause", None) or raised  # Ray wraps what its workers raise
        console = Console(stderr=True, highlight=False)
        if isinstance(error, AwaitingLabels):
            console.print(escape(str(error)), soft_wrap=True)
            raise SystemExit(error.status) from None
        if (words := explanation(raised)) is None:
            raise
        console.print(f"[bold red]error:[/] {escape(words)}", soft_wrap=True)
        raise SystemExit(1) from None
