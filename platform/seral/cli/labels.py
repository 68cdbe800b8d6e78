"""Commands about labels and the people who give them."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from seral.cli.arguments import LedgerUrl, pair
from seral.cli.completion import of_table
from seral.cli.display import show, show_lines, show_rows, wants_json
from seral.cli.people import labels_audit, labels_serve, people_app

FormatName = Annotated[
    str,
    typer.Option(
        help="label-studio, argilla, audformat, csv, jsonl or parquet.", autocompletion=of_table("labels format")
    ),
]

LabelSource = Annotated[
    str, typer.Argument(metavar="RUN|LEDGER", help="The folder of a run with people, or a ledger alone.")
]
CrossValidate = Annotated[
    bool,
    typer.Option("--cross-validate", help="Judge by a new model on frozen features instead of what the run predicted."),
]

app = typer.Typer(
    name="labels", no_args_is_help=True, help="People who label: who they are, what they said, and how well."
)
app.add_typer(people_app, name="people")
app.command("serve")(labels_serve)
app.command("audit")(labels_audit)


@app.command("progress")
def labels_progress(ledger: LedgerUrl) -> None:
    """Show how far the batches of a ledger are.

    Example: `seral labels progress runs/calls/labels.sqlite`
    """
    from contextlib import closing
    from dataclasses import asdict
    from datetime import datetime

    from seral.labels.ledger import Ledger

    with closing(Ledger(ledger)) as store:
        rows = [asdict(batch) for batch in store.progress()]
    if not wants_json():
        rows = [row | {"asked_at": f"{datetime.fromtimestamp(row['asked_at']):%Y-%m-%d %H:%M}"} for row in rows]
    show_rows(rows)


@app.command("agreement")
def labels_agreement(
    source: Annotated[str, typer.Argument(metavar="LEDGER|POOL", help="A ledger, or a pool with its raters' votes.")],
    classes: Annotated[
        str | None, typer.Option(help="Classes of a pool, with commas; else all that its raters named.")
    ] = None,
) -> None:
    """Show how far people agree (Krippendorff's alpha), and how well each of them labels.

    Of a pool: how many raters a clip has, on how many clips they are tied, and the UAR of one rater by the majority of
    the others, which no model can be asked to pass.

    Example: `seral labels agreement runs/calls/labels.sqlite`
    """
    from seral import storage

    if storage.exists(storage.join(source, "manifest.json")):
        _show_votes(source, classes)
    else:
        _show_answers(source)


def _show_votes(pool: str, classes: str | None) -> None:
    from dataclasses import asdict

    from seral.labels.votes import vote_facts
    from seral.pool.shards import open_pool
    from seral.task.gold import CLASS_MAP, read_votes, voted_classes

    votes = read_votes(open_pool(pool))
    names = classes.split(",") if classes else voted_classes(votes, CLASS_MAP)
    facts = asdict(vote_facts(votes, names, CLASS_MAP))
    alpha = facts.pop("alpha")
    about = facts | {name: alpha[name] for name in ("alpha", "low", "high")}
    if wants_json():
        show(about | {"classes": names})
    else:
        show_rows([about])


def _show_answers(ledger: str) -> None:
    from contextlib import closing
    from dataclasses import asdict

    from seral.labels.agreement import agreement, person_reports
    from seral.labels.ledger import Ledger

    with closing(Ledger(ledger)) as store:
        answers, project = store.answers(), store.project
    alphas = agreement(answers, project.classes, project.dimensions)
    about = [{"of": name, **asdict(alpha)} for name, alpha in alphas.items()]
    people = [asdict(report) for report in person_reports(answers, project.classes)]
    if wants_json():
        show({"agreement": about, "people": people})
        return
    show_rows(about)
    typer.echo()
    show_rows([{key: value for key, value in person.items() if key != "confusion"} for person in people])


@app.command("consensus")
def labels_consensus(
    ledger: LedgerUrl,
    out: Annotated[str, typer.Option(help="The Parquet file to write.")],
    method: Annotated[str, typer.Option(help="majority, soft or dawid-skene.")] = "majority",
) -> None:
    """Write one label for each utterance: the consensus of the answers about it.

    Example: `seral labels consensus runs/calls/labels.sqlite --out labels.parquet --method soft`
    """
    from contextlib import closing
    from typing import Any, cast

    from seral import storage
    from seral.labels.consensus import consensus
    from seral.labels.ledger import Ledger

    with closing(Ledger(ledger)) as store:
        answers, project = store.answers(), store.project
    labels = consensus(answers, project.classes, cast(Any, method), project.dimensions)
    storage.write_table(out, labels)
    show_lines([f"{labels.num_rows} labels in {out}"], {"labels": labels.num_rows, "out": out})


@app.command("export")
def labels_export(
    ledger: LedgerUrl,
    out: Annotated[Path, typer.Option(help="The file or folder to write.")],
    format: FormatName,
    batch: Annotated[str | None, typer.Option(help="Only this batch, such as `evaluation`.")] = None,
    tasks: Annotated[
        bool, typer.Option("--tasks", help="Only what is asked, no answers: for people to label.")
    ] = False,
    history: Annotated[bool, typer.Option("--history", help="Superseded answers too.")] = False,
    audio: Annotated[
        str, typer.Option(help="Address or path of the audio; {utterance_id} stands for the id.")
    ] = "clips/{utterance_id}.flac",
    pool: Annotated[str | None, typer.Option(help="A pool: its clips are written too, into `clips` beside.")] = None,
    predictions: Annotated[
        str | None, typer.Option(help="Parquet file of the model's predictions, for scores of tasks.")
    ] = None,
    suggest: Annotated[
        bool, typer.Option("--suggest", help="Show people what the model thinks. It biases them.")
    ] = False,
) -> None:
    """Write answers, or tasks for people, for another tool.

    Example: `seral labels export runs/calls/labels.sqlite --format csv --out labels.csv`
    """
    from contextlib import closing

    from seral.labels.exchange import ExportOptions, export_labels
    from seral.labels.ledger import Ledger

    with closing(Ledger(ledger)) as store:
        count = export_labels(
            store,
            out,
            format,
            ExportOptions(
                batch=batch,
                with_answers=not tasks,
                history=history,
                audio=audio,
                predictions=predictions,
                suggest=suggest,
                pool=pool,
            ),
        )
    show_lines([f"{count} answers in {out}"], {"answers": count, "out": out})


@app.command("import")
def labels_import(
    ledger: LedgerUrl,
    file: Annotated[Path, typer.Argument(metavar="FILE", help="The file or folder to read.")],
    format: FormatName,
    person: Annotated[
        list[str] | None,
        typer.Option(metavar="THERE=HERE", help="Who is who, such as 10=ada for user 10; repeatable."),
    ] = None,
) -> None:
    """Read answers from another tool: all of a file or nothing, and each answer once however often it comes.

    Example: `seral labels import runs/calls/labels.sqlite export.json --format label-studio --person 10=ada`
    """
    from contextlib import closing

    from seral.labels.exchange import import_labels
    from seral.labels.ledger import Ledger

    people = dict(pair(text, "--person") for text in person or ())
    with closing(Ledger(ledger)) as store:
        count = import_labels(store, file, format, people)
    show_lines([f"{count} new answers"], {"new_answers": count})


@app.command("doubts")
def labels_doubts(
    source: LabelSource,
    cross_validate: CrossValidate = False,
    count: Annotated[int, typer.Option(min=1, help="How many to print.")] = 20,
    out: Annotated[str | None, typer.Option(help="Parquet file to write all of them to.")] = None,
) -> None:
    """List doubtful labels with the reasons, the strongest doubt first.

    Example: `seral labels doubts runs/calls --out doubts.parquet`
    """
    from seral import storage
    from seral.loop.relabel import doubts_of

    doubts = doubts_of(source, cross_validate=cross_validate)
    if out is not None:
        storage.write_table(out, doubts)
    show_rows(doubts.slice(0, count).to_pylist())


@app.command("relabel")
def labels_relabel(
    source: LabelSource,
    count: Annotated[int, typer.Option(min=1, help="How many clips to ask about again.")] = 20,
    overlap: Annotated[int, typer.Option(min=1, help="How many others hear each.")] = 2,
    cross_validate: CrossValidate = False,
) -> None:
    """Ask other people about the most doubtful labels. Two others outvote one who was wrong.

    Example: `seral labels relabel runs/calls --count 50`
    """
    from seral.loop.relabel import ask_again

    batch, ids = ask_again(source, count, overlap=overlap, cross_validate=cross_validate)
    show_lines([f"{batch}: {len(ids)} clips to hear again"], {"batch": batch, "utterance_ids": list(ids)})
