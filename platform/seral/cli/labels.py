"""Commands about labels and the people who give them."""

from __future__ import annotations

from typing import Annotated

import typer

from seral.cli.arguments import AsJson, LedgerUrl
from seral.cli.display import show, show_rows

labels_app = typer.Typer(no_args_is_help=True, help="People who label: who they are, what they said, and how well.")


@labels_app.command("progress")
def labels_progress(ledger: LedgerUrl, as_json: AsJson = False) -> None:
    """How far the batches of a ledger are.

    Example: `seral labels progress runs/calls/labels.sqlite`
    """
    from dataclasses import asdict

    from seral.annotate.ledger import Ledger

    show([asdict(batch) for batch in Ledger(ledger).progress()], as_json=as_json)


@labels_app.command("agreement")
def labels_agreement(ledger: LedgerUrl, as_json: AsJson = False) -> None:
    """How far people agree (Krippendorff's alpha), and how well each of them labels.

    Example: `seral labels agreement runs/calls/labels.sqlite`
    """
    from dataclasses import asdict

    from seral.annotate.agreement import agreement, person_reports
    from seral.annotate.ledger import Ledger

    opened = Ledger(ledger)
    answers, project = opened.answers(), opened.project
    alphas = agreement(answers, project.classes, project.dimensions)
    about = [{"of": name, **asdict(alpha)} for name, alpha in alphas.items()]
    people = [asdict(report) for report in person_reports(answers, project.classes)]
    if as_json:
        show({"agreement": about, "people": people}, as_json=True)
        return
    show_rows(about)
    typer.echo()
    show_rows([{key: value for key, value in person.items() if key != "confusion"} for person in people])


@labels_app.command("consensus")
def labels_consensus(
    ledger: LedgerUrl,
    out: Annotated[str, typer.Option(help="The Parquet file to write.")],
    method: Annotated[str, typer.Option(help="majority, soft or dawid-skene.")] = "majority",
) -> None:
    """Write one label for each utterance: what people's answers are worth together.

    Example: `seral labels consensus runs/calls/labels.sqlite --out labels.parquet --method soft`
    """
    from typing import Any, cast

    from seral import storage
    from seral.annotate.consensus import consensus
    from seral.annotate.ledger import Ledger

    opened = Ledger(ledger)
    classes, dimensions = opened.project.classes, opened.project.dimensions
    labels = consensus(opened.answers(), classes, cast(Any, method), dimensions)
    storage.write_table(out, labels)
    typer.echo(f"{labels.num_rows} labels in {out}")
