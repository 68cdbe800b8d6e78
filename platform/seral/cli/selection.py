"""Commands about what to label next."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Any

import typer

from ser_models.registry import allow
from seral.cli.arguments import Sets
from seral.cli.completion import of_table
from seral.cli.configured import command_of
from seral.cli.display import show_lines

if TYPE_CHECKING:
    from seral.options import Options

app = typer.Typer()


@command_of(app, "select-batch")
def select(
    features: Annotated[
        str, typer.Argument(help="Folder of Parquet files: `utterance_id` and `embedding`, or `mean`.")
    ],
    out: Annotated[str, typer.Option(help="Parquet file of the picks, in order.")],
    count: Annotated[int | None, typer.Option(help="How many utterances to pick.")] = None,
    minutes: Annotated[float | None, typer.Option(help="Or how many minutes of an annotator to spend.")] = None,
    strategy: Annotated[
        str, typer.Option(help="By which strategy: see `seral strategies`.", autocompletion=of_table("strategy"))
    ] = "auto",
    predictions: Annotated[str | None, typer.Option(help="Class probabilities `p_<class>`: file or folder.")] = None,
    metadata: Annotated[str | None, typer.Option(help="A pool's `utterances` folder: speakers, quality.")] = None,
    labelled: Annotated[str | None, typer.Option(help="What is labelled already: file or folder.")] = None,
    parts: Annotated[int, typer.Option(help="Processes to keep the features in, at most one a file.")] = 1,
    settings: Sets = None,
) -> Options:
    """Options of a selection."""
    from seral.options import parse
    from seral.selection.options import BatchOptions

    allow(strategy)
    source = {"features": features, "predictions": predictions, "metadata": metadata, "labelled": labelled}
    values: dict[str, Any] = {"source": source, "strategy": {"name": strategy}, "out": out, "parts": parts}
    values |= {name: value for name, value in {"count": count, "minutes": minutes}.items() if value is not None}
    return parse(BatchOptions, values, settings or [])


@app.command()
def strategies() -> None:
    """List every strategy and wrapper with its options and their defaults."""
    from seral.selection.selection import describe_strategies

    lines = describe_strategies()
    show_lines(lines, lines)


@app.command()
def protocols() -> None:
    """List the named protocols: corpora, classes or dimensions, and how speakers are kept apart.

    A run takes one by `protocol: emodb-7c-loso@v1` in the place of corpora, classes, class_map and split.
    """
    from seral.pool.protocols import PROTOCOLS

    lines = (f"{name:28s} {protocol}" for name, protocol in PROTOCOLS.items())
    show_lines(lines, {name: protocol.fixed() for name, protocol in PROTOCOLS.items()})
