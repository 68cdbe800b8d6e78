"""Commands about the layers of an encoder."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

import typer

from seral.cli.arguments import EncoderName, PoolPath, Sets
from seral.cli.configured import command_of

if TYPE_CHECKING:
    from seral.options import Options

app = typer.Typer(name="layers", no_args_is_help=True, help="Look into the layers of an encoder.")


@command_of(app, "probe")
def layers_probe(
    pool: PoolPath,
    classes: Annotated[str, typer.Option(help="Emotions to tell apart, joined by commas.")],
    encoder: Annotated[
        list[str] | None, typer.Option(help="A hub id, a folder, or an embedded encoder; repeatable.")
    ] = None,
    run: Annotated[str | None, typer.Option("--run", help="Folder for the table and a picture.")] = None,
    settings: Sets = None,
) -> Options:
    """Options of a probe."""
    from seral.options import parse
    from seral.studies.layer_options import ProbeOptions

    values = {"pool": pool, "classes": classes.split(","), "encoders": encoder or ["seral-tiny"], "run": run}
    return parse(ProbeOptions, values, settings or [])


@command_of(app, "similarity")
def layers_similarity(
    pool: PoolPath,
    run: Annotated[str, typer.Option("--run", help="Folder of the table and the heat map.")],
    encoder: EncoderName = "seral-tiny",
    settings: Sets = None,
) -> Options:
    """Options of a comparison of layers."""
    from seral.options import parse
    from seral.studies.layer_options import SimilarityOptions

    return parse(SimilarityOptions, {"pool": pool, "run": run, "encoder": encoder}, settings or [])
