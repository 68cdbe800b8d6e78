"""Options of commands that read a corpus: what a reader may choose, on the command line."""

from __future__ import annotations

import csv
import inspect
from collections.abc import Callable
from functools import wraps
from typing import Annotated, Any, TypeVar

import typer
from typer.core import TyperArgument, TyperCommand

from seral.cli.arguments import pair
from seral.cli.completion import of_table
from seral.cli.flags import signature_of

Function = TypeVar("Function", bound=Callable[..., Any])
Texts = list[str] | None

ReaderName = Annotated[str, typer.Argument(help="What it is: the name of a reader.", autocompletion=of_table("reader"))]
Columns = Annotated[
    Texts,
    typer.Option("--column", metavar="OURS=THEIRS", help="Name a column of a table, e.g. emotion=label; repeatable."),
]
Pattern = Annotated[
    str | None,
    typer.Option(
        "--pattern",
        metavar="REGEX",
        help="What paths say: a regular expression whose named groups are fields, such as speaker and emotion.",
    ),
]
Maps = Annotated[
    Texts,
    typer.Option(
        "--map",
        metavar="OURS=A:B,...",
        help="Words of the corpus in ours, * for the others: emotion=W:anger; repeatable.",
    ),
]
Votes = Annotated[
    str | None,
    typer.Option(
        "--votes",
        metavar="COLUMNS",
        help="Columns of raters: a1,a2,a3, or rater=COLUMN,emotion=COLUMN where a row is one rater's answer.",
    ),
]
Ratings = Annotated[
    Texts,
    typer.Option("--ratings", metavar="OURS=COLUMNS", help="The same raters' ratings: valence=v1,v2,v3; repeatable."),
]
Join = Annotated[
    Texts,
    typer.Option("--join", metavar="TABLE[=COLUMN]", help="A further table, joined by file name; repeatable."),
]
AudioRoot = Annotated[
    str | None,
    typer.Option("--audio-root", metavar="DIR", help="Folder that a manifest's relative paths start in."),
]
AllowOutside = Annotated[
    bool,
    typer.Option("--allow-outside", help="Take audio outside of the folder too: absolute paths, .. and links."),
]
FLAGS = {
    "column": Columns,
    "pattern": Pattern,
    "map": Maps,
    "votes": Votes,
    "ratings": Ratings,
    "join": Join,
    "audio_root": AudioRoot,
    "allow_outside": AllowOutside,
}
UNSET = {"allow_outside": False}
"""Defaults of those that are not None."""


class OfReader(TyperCommand):
    """A command whose help lists all readers, which are imported for that alone."""

    def format_help(self, ctx: Any, formatter: Any) -> None:
        from seral.corpora.keywords import listing

        for parameter in self.params:
            if isinstance(parameter, TyperArgument) and parameter.name == "reader":
                parameter.help = f"What it is: {listing()}."
        super().format_help(ctx, formatter)


def reads_corpus(function: Function) -> Callable[..., Any]:
    """Decorator of a command: adds the options of a reader, which it gets as `choices`, values of CorpusOptions."""

    @wraps(function)
    def command(**values: Any) -> Any:
        choices = corpus_values({name: values.pop(name) for name in FLAGS})
        return function(**values, choices=choices)

    signature = signature_of(function)
    own = [parameter for parameter in signature.parameters.values() if parameter.name != "choices"]
    flags = [
        inspect.Parameter(name, inspect.Parameter.KEYWORD_ONLY, default=UNSET.get(name), annotation=annotation)
        for name, annotation in FLAGS.items()
    ]
    command.__signature__ = signature.replace(parameters=[*own, *flags])  # type: ignore[attr-defined]
    return command


def corpus_values(values: dict[str, Any]) -> dict[str, Any]:
    """Values of CorpusOptions by those of FLAGS."""
    texts = {name: values[name] or [] for name in ("column", "map", "ratings", "join")}
    ratings = dict(pair(text, "--ratings") for text in texts["ratings"])
    options = {
        "pattern": values["pattern"],
        "maps": _maps(texts["map"]),
        "votes": _votes(values["votes"] or ""),
        "ratings": {name: columns.split(",") for name, columns in ratings.items()},
        "join": dict(map(_table, texts["join"])),
        "audio_root": values["audio_root"],
    }
    columns = dict(pair(text, "--column") for text in texts["column"])
    readers_own = {name: value for name, value in options.items() if value}
    outside = {"allow_outside": True} if values["allow_outside"] else {}
    return {"columns": columns, "reader_options": readers_own, **outside}


def _maps(texts: list[str]) -> dict[str, dict[str, str]]:
    """`emotion=W:anger,L:boredom`; an entry with a comma stands in double quotes, as in CSV."""
    maps: dict[str, dict[str, str]] = {}
    for text in texts:
        name, entries = pair(text, "--map")
        for entry in next(csv.reader([entries]), []):
            word, colon, ours = entry.partition(":")
            if not colon:
                raise typer.BadParameter(f"expected WORD:OURS, got {entry!r} in {text!r}", param_hint="--map")
            maps.setdefault(name, {})[word] = ours
    return maps


def _votes(text: str) -> list[str] | dict[str, str]:
    entries = text.split(",") if text else []
    return dict(pair(entry, "--votes") for entry in entries) if "=" in text else entries


def _table(text: str) -> tuple[str, str]:
    """Table and column of `TABLE=COLUMN`, no column of `TABLE`."""
    table, equals, column = text.rpartition("=")
    return (table, column) if equals else (text, "")
