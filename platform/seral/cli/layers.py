"""Commands about the layers of an encoder."""

from __future__ import annotations

from typing import Annotated

import typer

from seral.cli.arguments import PoolPath, Sets, StudyPath

layers_app = typer.Typer(no_args_is_help=True, help="Look into the layers of an encoder.")


@layers_app.command("relevance")
def layers_relevance(config: StudyPath, settings: Sets = None) -> None:
    """What every hidden state knows of emotions and dimensions: learned weights, single states, truncated encoders.

    Prints the centres of mass; `relevance.png` and `relevance.csv` in the run folder show the layers.

    Example: `seral layers relevance jobs/configs/relevance-whisper.yaml --set corpora=[emodb]`
    """
    from seral.options import load
    from seral.studies.layer_relevance import RelevanceOptions, run_relevance

    typer.echo(run_relevance(load(RelevanceOptions, config, settings or [])))


@layers_app.command("probe")
def layers_probe(
    pool: PoolPath,
    classes: Annotated[str, typer.Option(help="Emotions to tell apart, joined by commas.")],
    encoder: Annotated[
        list[str] | None, typer.Option(help="A hub id, a folder, or an embedded encoder; repeatable.")
    ] = None,
    run: Annotated[str | None, typer.Option("--run", help="Folder for the table and a picture.")] = None,
    settings: Sets = None,
) -> None:
    """What encoders are worth: a linear probe of every hidden state on unseen speakers, beside log-mel statistics.

    Prints UAR, size and speed of each encoder and of its network with untrained weights.

    Example: `seral layers probe data/pool --classes anger,neutral,sadness --encoder runs/student/encoder --run runs/p`
    """
    from seral.options import parse
    from seral.studies.layer_probe import ProbeOptions, probe_layers

    values = {"pool": pool, "classes": classes.split(","), "encoders": encoder or ["seral-tiny"], "run": run}
    typer.echo(probe_layers(parse(ProbeOptions, values, settings or [])))


@layers_app.command("similarity")
def layers_similarity(
    pool: PoolPath,
    run: Annotated[str, typer.Option("--run", help="Folder of the table and the heat map.")],
    encoder: Annotated[str, typer.Option(help="A hub id, a folder, or an embedded encoder.")] = "seral-tiny",
    settings: Sets = None,
) -> None:
    """How alike every hidden state is in the languages (or corpora) of a pool, label-free by default.

    Prints the similarities, larger is more alike; `similarity.png` is a heat map, `similarity.csv` the table.

    Example: `seral layers similarity data/pool --run runs/similarity --set by=corpus --set measures=[coral,mmd]`
    """
    from seral.options import parse
    from seral.studies.layer_similarity import SimilarityOptions, compare_layers

    typer.echo(compare_layers(parse(SimilarityOptions, {"pool": pool, "run": run, "encoder": encoder}, settings or [])))


@layers_app.command("anchor")
def layers_anchor(config: StudyPath, settings: Sets = None) -> None:
    """Carry a labelled language over to an unlabelled one, anchored in the layers that are alike in both.

    Prints UAR of every anchor set for every pair of languages, beside source only and the target's own labels.

    Example: `seral layers anchor jobs/configs/anchors-whisper.yaml --set groups=[en,de]`
    """
    from seral.options import load
    from seral.studies.transfer import TransferOptions, run_transfer

    typer.echo(run_transfer(load(TransferOptions, config, settings or [])))
