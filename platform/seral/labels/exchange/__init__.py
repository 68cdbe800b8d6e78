"""Answers to and from other tools. `FORMATS` is the whole list; `seral labels export --help` shows it.

A format is a pair of functions: `write(out, export)`, and `read(path, project)`, which only gives entries.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import pyarrow as pa
import pyarrow.compute as pc

from seral import storage
from seral.errors import LabelError, unknown_name
from seral.labels.exchange.argilla import read_argilla, write_argilla
from seral.labels.exchange.audformat import read_audformat, write_audformat
from seral.labels.exchange.clips import write_clips
from seral.labels.exchange.entries import Entry, Export, Question, write_entries
from seral.labels.exchange.label_studio import read_label_studio, write_label_studio
from seral.labels.exchange.tables import read_csv, read_jsonl, read_parquet, write_csv, write_jsonl, write_parquet
from seral.labels.ledger import Ledger
from seral.labels.records import Project
from seral.pool.derivations import note_derivation
from seral.pool.shards import open_pool


@dataclass(frozen=True)
class Format:
    """The pair of functions that write answers to a file and read them from it."""

    write: Callable[[Path, Export], None]
    read: Callable[[Path, Project], list[Entry]]
    folder: bool = False
    """Whether it is a folder of files."""


FORMATS: dict[str, Format] = {
    "csv": Format(write_csv, read_csv),
    "jsonl": Format(write_jsonl, read_jsonl),
    "parquet": Format(write_parquet, read_parquet),
    "argilla": Format(write_argilla, read_argilla),
    "audformat": Format(write_audformat, read_audformat, folder=True),
    "label-studio": Format(write_label_studio, read_label_studio),
}


@dataclass(frozen=True, kw_only=True)
class ExportOptions:
    """Options of an export."""

    batch: str | None = None
    """Only this batch; None = all that is asked."""
    with_answers: bool = True
    """Answers too, and not only what is asked."""
    history: bool = False
    """Superseded answers too."""
    audio: str = Export.audio
    """The address of the audio; {utterance_id} stands for the id."""
    predictions: str | None = None
    """A Parquet file with `utterance_id` and a column `p_<class>` for each class: it gives the tasks a score."""
    suggest: bool = False
    """Show people what the model thinks, which biases."""
    pool: str | None = None
    """A pool, whose clips are written too, as FLAC, into the folder `clips` beside the file or in the folder."""


def export_labels(ledger: Ledger, out: Path, format: str, options: ExportOptions | None = None) -> int:
    """Write what is asked in a ledger, or in one batch, and the answers to it; returns the number of answers."""
    options = options or ExportOptions()
    batch = options.batch
    if batch is not None and not ledger.asked(batch):
        raise LabelError(unknown_name("batch", batch, (progress.batch for progress in ledger.progress())))
    answers = ledger.answers(batch=batch, history=options.history)
    if not options.with_answers:
        answers = answers.slice(0, 0)
    classes, predictions = ledger.project.classes, options.predictions
    export = Export(
        project=ledger.project,
        answers=answers,
        questions=_questions(ledger, answers, batch),
        audio=options.audio,
        probabilities=None if predictions is None else _probabilities(predictions, classes),
        suggest=options.suggest,
    )
    chosen = _format(format)
    if options.pool is not None:
        ids = [question.utterance_id for question in export.questions]
        note_derivation(options.pool, out, "labels")
        write_clips(open_pool(options.pool), ids, (out if chosen.folder else out.parent) / "clips")
    chosen.write(out, export)
    return int(answers.num_rows)


def import_labels(ledger: Ledger, path: Path, format: str, people: Mapping[str, str] | None = None) -> int:
    """Read answers into a ledger, all of a file or nothing; returns how many were new. Twice is the same as once.

    `people` gives those another name whom the file calls otherwise: number of a user -> name.
    """
    named = people or {}
    entries = [
        replace(entry, answer=replace(entry.answer, person=named.get(entry.answer.person, entry.answer.person)))
        for entry in _format(format).read(path, ledger.project)
    ]
    return write_entries(ledger, entries)


def _questions(ledger: Ledger, answers: pa.Table, batch: str | None) -> list[Question]:
    """All that is asked, batch by batch, and what people answered about without being asked."""
    questions = [
        Question(utterance_id=name, batch=about.batch, purpose=about.purpose, round=about.round, rank=rank)
        for about in ledger.progress()
        if batch in {None, about.batch}
        for rank, name in enumerate(ledger.asked(about.batch), start=1)
    ]
    unasked = answers.filter(pc.is_null(answers["batch"]))["utterance_id"].unique().to_pylist()
    return questions + [
        Question(utterance_id=name, batch=None, purpose=None, round=None, rank=None) for name in unasked
    ]


def _probabilities(predictions: str, classes: Sequence[str]) -> dict[str, dict[str, float]]:
    table = storage.read_table(predictions, ["utterance_id", *(f"p_{name}" for name in classes)])
    return {
        row.pop("utterance_id"): {name.removeprefix("p_"): p for name, p in row.items()} for row in table.to_pylist()
    }


def _format(name: str) -> Format:
    if name not in FORMATS:
        raise LabelError(unknown_name("format", name, FORMATS))
    return FORMATS[name]


__all__ = ["FORMATS", "Entry", "Export", "ExportOptions", "Format", "Question", "export_labels", "import_labels"]
