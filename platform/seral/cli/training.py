"""Commands that train, or study how to."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

import typer

from seral.cli.arguments import EncoderName, PoolPath, RunPath, Sets
from seral.cli.configured import command_of

if TYPE_CHECKING:
    from seral.options import Options

app = typer.Typer()


@command_of(app, "features")
def features(pool: PoolPath, encoder: EncoderName = "seral-tiny", settings: Sets = None) -> Options:
    """Options of an extraction."""
    from seral.features.options import ExtractOptions
    from seral.options import parse

    return parse(ExtractOptions, {"pool": pool, "encoder": encoder}, settings or [])


@command_of(app, "pretrain")
def pretrain(
    pool: PoolPath,
    run: Annotated[str, typer.Option("--run", help="Folder of the result: the encoder is in `encoder/`.")],
    encoder: EncoderName = "seral-tiny",
    settings: Sets = None,
) -> Options:
    """Options of a pretraining."""
    from seral.options import parse
    from seral.pretraining.options import TaptJobOptions

    return parse(TaptJobOptions, {"pool": pool, "run": run, "encoder": encoder}, settings or [])


@command_of(app, "distil")
def distil(
    pool: Annotated[list[str], typer.Argument(metavar="POOL", help="Pools of speech; no label is read.")],
    teacher: Annotated[str, typer.Option(help="A hub id or a folder of an encoder.")],
    run: Annotated[str, typer.Option("--run", help="Folder of the result: the student is in `encoder/`.")],
    layers: Annotated[int, typer.Option(min=1, help="Depth of the student; it starts as its teacher's bottom.")] = 2,
    settings: Sets = None,
) -> Options:
    """Options of a distillation."""
    from seral.options import parse
    from seral.pretraining.options import DistilOptions

    values = {"pools": pool, "teacher": teacher, "run": run, "layers": layers}
    return parse(DistilOptions, values, settings or [])


@command_of(app, "ensemble")
def ensemble(
    runs: Annotated[list[str], typer.Argument(metavar="RUN...", help="Runs, or final models.")],
    out: Annotated[str, typer.Option("--out", help="Folder of the ensemble.")],
    settings: Sets = None,
) -> Options:
    """Options of an ensemble."""
    from seral.models.options import EnsembleOptions
    from seral.options import parse

    return parse(EnsembleOptions, {"runs": runs, "run": out}, settings or [])


@command_of(app, "fit")
def fit(
    run: RunPath,
    out: Annotated[str | None, typer.Option("--out", help="Folder of the final model; default: RUN/final.")] = None,
    settings: Sets = None,
) -> Options:
    """Options of a final model."""
    from seral import storage
    from seral.models.options import FinalOptions
    from seral.options import parse

    values = {"of": run, "run": out or storage.join(run, "final")}
    return parse(FinalOptions, values, settings or [])
