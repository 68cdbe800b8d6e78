"""Commands that train, or study how to."""

from __future__ import annotations

from typing import Annotated

import typer

from seral.cli.arguments import PoolPath, Sets, StudyPath

training_app = typer.Typer()


@training_app.command()
def pretrain(
    pool: PoolPath,
    run: Annotated[str, typer.Option("--run", help="Folder of the result: the encoder is in `encoder/`.")],
    encoder: Annotated[str, typer.Option(help="A hub id, a folder, or an embedded encoder.")] = "seral-tiny",
    settings: Sets = None,
) -> None:
    """Adapt an encoder to the speech of a pool without labels (TAPT). Run it again: it goes on where it stopped.

    The objective is contrastive for wav2vec 2.0, masked prediction of clusters for all others, or `tapt.objective`.
    `tapt.json` and `tapt.png` show how it went. `--set fold=0` hears the training part of a fold only.

    Example: `seral pretrain data/pool --encoder facebook/hubert-base-ls960 --run runs/tapt --set tapt.steps=500`
    """
    from seral.options import parse
    from seral.pretraining.tapt import TaptJobOptions
    from seral.pretraining.tapt import pretrain as run_pretrain

    typer.echo(run_pretrain(parse(TaptJobOptions, {"pool": pool, "run": run, "encoder": encoder}, settings or [])))


@training_app.command()
def distil(
    pool: Annotated[list[str], typer.Argument(metavar="POOL", help="Pools of speech; no label is read.")],
    teacher: Annotated[str, typer.Option(help="A hub id or a folder of an encoder.")],
    run: Annotated[str, typer.Option("--run", help="Folder of the result: the student is in `encoder/`.")],
    layers: Annotated[int, typer.Option(min=1, help="Depth of the student; it starts as its teacher's bottom.")] = 2,
    settings: Sets = None,
) -> None:
    """Make a small encoder from a large one (DistilHuBERT). Run it again: it goes on where it stopped.

    The student learns what the teacher makes of the speech, layer by layer. `distil.json` and `distil.png` show how it
    went, `python jobs/probe.py` what the student is worth.

    Example: `seral distil data/pool --teacher microsoft/wavlm-base-plus --layers 4 --run runs/student`
    """
    from seral.options import parse
    from seral.pretraining.distillation import DistilOptions
    from seral.pretraining.distillation import distil as run_distil

    values = {"pools": pool, "teacher": teacher, "run": run, "layers": layers}
    typer.echo(run_distil(parse(DistilOptions, values, settings or [])))


@training_app.command()
def train(config: StudyPath, settings: Sets = None) -> None:
    """Train on all labels of a pool: a model for every fold and seed, tested on speakers it has not heard.

    The options are those of `seral loop` without strategy and budget. A training that is run again computes what is
    missing; `seral predict RUN` takes its model with the best dev score.

    Example: `seral train run.yaml --set finetune.adapter=lora --set folds=[0]`
    """
    from seral.options import load
    from seral.training.supervised import SupervisedOptions, run_train

    typer.echo(run_train(load(SupervisedOptions, config, settings or [])))


@training_app.command()
def compare(config: StudyPath, settings: Sets = None) -> None:
    """Compare variants of training (adapters, pretraining, shares of the labels) on the same folds and seeds.

    Prints the table and writes it to the run folder as Markdown and CSV. Run it again: it goes on where it stopped.

    Example: `seral compare jobs/configs/adapters-emodb.yaml --set seeds=[0]`
    """
    from seral.options import load
    from seral.studies.compare import CompareOptions, run_compare

    typer.echo(run_compare(load(CompareOptions, config, settings or [])))


@training_app.command("two-stage")
def two_stage(config: StudyPath, settings: Sets = None) -> None:
    """Adapt from acted to natural speech in two stages, beside source only, target only and joint training.

    Example: `seral two-stage jobs/configs/two-stage-urdu.yaml`
    """
    from seral.options import load
    from seral.studies.two_stage import TwoStageOptions, run_two_stage

    typer.echo(run_two_stage(load(TwoStageOptions, config, settings or [])))
