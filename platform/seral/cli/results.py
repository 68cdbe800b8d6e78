"""Commands for what a run leaves behind, and for the machine it runs on."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from seral.cli.arguments import RunPath, Sets
from seral.cli.completion import of_table
from seral.cli.configured import command_of, listing
from seral.cli.display import show, show_outcome, show_rows, wants_json
from seral.errors import OptionError

if TYPE_CHECKING:
    from seral.options import Options

app = typer.Typer()


@command_of(app, "report")
def report(
    runs: Annotated[list[str], typer.Argument(metavar="RUN [RUN ...]", help="The run, then others to compare with.")],
    settings: Sets = None,
) -> Options:
    """Options of a report."""
    from seral.options import parse
    from seral.report.options import ReportOptions

    return parse(ReportOptions, {"run": runs[0], "against": runs[1:]}, settings or [])


def _server_options() -> type[Options]:
    from seral.models.options import ServerOptions

    return ServerOptions


@app.command("serve")
@listing(_server_options)
def serve(
    model: Annotated[str, typer.Argument(metavar="MODEL", help="A run, a final model, or an export of the format hf.")],
    host: Annotated[str, typer.Option(help="Address to listen on; only this machine unless told otherwise.")] = (
        "127.0.0.1"
    ),
    port: Annotated[int, typer.Option(help="Port to listen on.")] = 8000,
    replicas: Annotated[int, typer.Option(help="Copies of the model, each on a CPU or GPU of its own.")] = 1,
    settings: Sets = None,
) -> None:
    """Serve a model over HTTP by Ray Serve, until stopped. `--options` lists what goes through --set.

    On its page one drops or records a clip, and sees the classes with their probabilities. Programs send audio to
    /predict; /health says whether the model answers, and /metrics counts for Prometheus. With a token in
    SERAL_SERVE_TOKEN, or in the file that SERAL_SERVE_TOKEN_FILE names, requests have to bring it. Needs the extra
    `serve`: pip install 'seral[serve]'.

    Example: `seral serve models/emodb --replicas 2`, then `curl -F clip=@speech.wav http://127.0.0.1:8000/predict`
    """
    from seral.models.options import ServerOptions
    from seral.options import parse

    values = {"model": model, "host": host, "port": port, "replicas": replicas}
    options = parse(ServerOptions, values, settings or [])
    try:
        from seral.models.serve import serve_model
    except ImportError as error:
        raise OptionError(f"{error.name} is missing: pip install 'seral[serve]'") from None
    serve_model(options)


@command_of(app, "predict")
def predict(
    run: RunPath,
    source: Annotated[list[str], typer.Argument(metavar="POOL_OR_FILES", help="A pool, audio files, or folders.")],
    out: Annotated[
        str | None, typer.Option("--out", help="Table to write: .parquet, of files also .csv or .jsonl; else printed.")
    ] = None,
    trajectory: Annotated[
        str | None, typer.Option(help="Which trajectory's model; default: the best on dev among the strategy's.")
    ] = None,
    settings: Sets = None,
) -> tuple[Options, Callable[[Any], None]]:
    """Options of a prediction; without a table to write, the rows are printed."""
    from seral.models.options import PredictOptions
    from seral.options import parse

    values = {"run": run, "source": source, "out": out, "trajectory": trajectory}
    return parse(PredictOptions, values, settings or []), _show_predictions


@command_of(app, "export")
def export(
    run: RunPath,
    out: Annotated[str, typer.Option("--out", help="A new folder.")],
    form: Annotated[
        str, typer.Option("--format", help="hf, peft, onnx or torch-export.", autocompletion=of_table("model format"))
    ] = "hf",
    trajectory: Annotated[
        str | None, typer.Option(help="Which trajectory's model; default: the best on dev among the strategy's.")
    ] = None,
    settings: Sets = None,
) -> Options:
    """Options of an export."""
    from seral.models.options import ExportOptions
    from seral.options import parse

    values = {"run": run, "out": out, "format": form, "trajectory": trajectory}
    return parse(ExportOptions, values, settings or [])


def _show_predictions(outcome: dict[str, Any]) -> None:
    if "predictions" in outcome:
        show_rows(outcome["predictions"])
    else:
        show(outcome)


@app.command()
def doctor(
    config: Annotated[Path | None, typer.Argument(help="A run's YAML file, to check what it needs.")] = None,
) -> None:
    """Check versions, Ray, devices, codecs, storage, and that the encoder loads and its adapters learn."""
    from seral.verbs.doctor import examine

    findings = []
    for finding in examine(config):
        findings.append(finding)
        if not wants_json():
            typer.echo(f"{'ok  ' if finding.ok else 'FAIL'}  {finding.subject:<22} {finding.detail}")
    if wants_json():
        show([asdict(finding) for finding in findings])
    raise typer.Exit(0 if all(finding.ok for finding in findings) else 1)


@app.command()
def demo(out: Annotated[Path, typer.Option(help="Folder for the generated pool, the run and the report.")]) -> None:
    """Generate a small multilingual pool and run the main job on it, start to finish, in a few minutes."""
    from seral.verbs.demo import run_demo

    show_outcome(run_demo(out))
