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
from seral.cli.display import show, show_lines, show_outcome, show_rows, wants_json
from seral.errors import OptionError

if TYPE_CHECKING:
    from seral.options import Options

results_app = typer.Typer()
runs_app = typer.Typer(no_args_is_help=True, help="Look over the runs of a folder.")
run_app = typer.Typer(no_args_is_help=True, help="Look after the folder of a run.")


@run_app.command("check")
def run_check(run: RunPath) -> None:
    """Read every file of a run and compare it with its checksum. Exit status 1 on a problem.

    Covers rounds, models, predictions, cells and records, the run's own cache of features, and its ledger; what lacks
    a checksum, since an older release wrote it, is counted. `seral pool check` does the same for a pool.
    Example: `seral run check runs/emodb`
    """
    from seral.verbs.check_run import check_run

    outcome = check_run(run)
    verdict = "sound" if not outcome.problems else f"{len(outcome.problems)} problems"
    without = f", {len(outcome.without)} have none" if outcome.without else ""
    last = f"{run}: {verdict}; {outcome.files} files compared with their checksums{without}"
    show_lines([*outcome.problems, last], {"run": run, **asdict(outcome)})
    raise typer.Exit(1 if outcome.problems else 0)


@command_of(results_app, "report")
def report(
    runs: Annotated[list[str], typer.Argument(metavar="RUN [RUN ...]", help="The run, then others to compare with.")],
    settings: Sets = None,
) -> Options:
    """Options of a report."""
    from seral.options import parse
    from seral.report.options import ReportOptions

    return parse(ReportOptions, {"run": runs[0], "against": runs[1:]}, settings or [])


@runs_app.command("ls")
def runs_ls(
    folder: Annotated[str, typer.Argument(metavar="DIR", help="The folder that runs lie in.")] = "runs",
) -> None:
    """List the runs in a folder: verb, when it began, labels, score on dev, state.

    Example: `seral runs ls runs`
    """
    from seral.report.listing import list_runs

    show_rows(list_runs(folder), empty=f"no run in {folder}")


def _server_options() -> type[Options]:
    from seral.models.options import ServerOptions

    return ServerOptions


@results_app.command("serve")
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


@command_of(results_app, "predict")
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


@command_of(results_app, "export")
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


@results_app.command()
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


@results_app.command()
def demo(out: Annotated[Path, typer.Option(help="Folder for the generated pool, the run and the report.")]) -> None:
    """Generate a small multilingual pool and run the main job on it, start to finish, in a few minutes."""
    from seral.verbs.demo import run_demo

    show_outcome(run_demo(out))
