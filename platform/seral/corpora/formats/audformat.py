"""audformat databases: a header `db.yaml` and tables `db.<table>.csv` or `.parquet`; the package is not needed.

Rows of filewise tables are files, those of segmented tables are segments of files (start, end). What a column means is
told by its scheme, named as in `fields.ALIASES` (emotion, arousal, speaker, ...); what its values are worth, by its
rater: a human rater's column is a vote; one of a rater of the type "ground truth" or "vote", one without a rater and
all of a table called gold_standard are gold; machines are not asked. Speaker, split and text of a file hold for its
segments, its ratings do not. A file with segments is not read as a whole. Convention: audeering.github.io/audformat.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import yaml

from seral.corpora.reading.fields import ALIASES, Fields, segment_name
from seral.corpora.reading.languages import language_code
from seral.corpora.reading.rows import Row, read_rows
from seral.corpora.reading.utterance import Skipped, Utterance, Vote
from seral.errors import ReaderError

HEADER = "db.yaml"
RATED = ("emotion", "valence", "arousal", "dominance")
MEANING = {alias: name for name, aliases in ALIASES.items() for alias in aliases}
FORMATS = (".parquet", ".csv")

Segment = tuple[str, float | None, float | None]
"""File, start and end in seconds."""


@dataclass
class _Facts:
    """Values and ratings of one file or segment, from all tables."""

    values: dict[str, Any] = field(default_factory=dict)
    """Our name -> value."""
    ratings: dict[str, dict[str, Any]] = field(default_factory=lambda: defaultdict(dict))
    """Rater -> our name -> value."""


def read_audformat(root: Path, *, corpus: str | None = None) -> Iterator[Utterance | Skipped]:
    """All files and segments of a database. The corpus is `corpus`, else the database's name."""
    database = _Database(root)
    facts: dict[Segment, _Facts] = defaultdict(_Facts)
    # Gold standards last: they count where another table tells an emotion too.
    for table in sorted(database.tables, key=lambda name: ("gold_standard" in name, name)):
        database.add(table, facts)
    if not facts:
        raise ReaderError(f"{database.file} has no table of files or segments")
    defaults = {"corpus": corpus or database.name, "language": database.language}
    cut_files = {file for file, *times in facts if times != [None, None]}
    whole_files = {file: of_file for (file, *times), of_file in facts.items() if times == [None, None]}
    utterances = []
    for segment, segment_facts in facts.items():
        if segment[1:] != (None, None):
            segment_facts.values = _but_ratings(whole_files.get(segment[0], _Facts()).values) | segment_facts.values
        if segment[1:] != (None, None) or segment[0] not in cut_files:
            utterances.append(database.utterance(segment, segment_facts, defaults))
    yield from sorted(utterances, key=lambda utterance: utterance.source)


class _Database:
    """The header of a database, and its tables read in the header's terms."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self.file = root / HEADER
        if not self.file.is_file():
            raise ReaderError(f"no audformat database in {root}: expected a header, for example {self.file}")
        try:
            header = yaml.safe_load(self.file.read_text(encoding="utf-8"))
        except yaml.YAMLError as error:
            raise ReaderError(f"{self.file} is not valid YAML: {error}") from None
        if not isinstance(header, dict):
            raise ReaderError(f"{self.file}: expected a mapping, got {type(header).__name__}")
        self.name = str(header.get("name") or root.resolve().name)
        languages = header.get("languages") or []
        self.language = language_code(str(languages[0])) if len(languages) == 1 else None
        self.tables, self.misc_tables, self.schemes, self.raters, self.splits = (
            header.get(part) or {} for part in ("tables", "misc_tables", "schemes", "raters", "splits")
        )
        self.speakers = self._speakers()

    def add(self, table: str, facts: dict[Segment, _Facts]) -> None:
        """Add what a table says to `facts`."""
        split = (self.splits.get(self.tables[table].get("split_id")) or {}).get("type")
        columns = self.tables[table].get("columns") or {}
        for row in self._rows(table):
            row_facts = facts[self._segment(table, row)]
            if split in {"train", "dev", "test"}:
                row_facts.values["split"] = split
            for column, settings in columns.items():
                meaning = _meaning(column, settings.get("scheme_id"))
                value = self._label(settings.get("scheme_id"), row.values.get(column))
                if meaning is None or value is None or value == "":
                    continue
                self._add_value(row_facts, meaning, value, table, settings.get("rater_id"))

    def utterance(self, segment: Segment, facts: _Facts, defaults: dict[str, Any]) -> Utterance:
        """The utterance of a segment, from the facts that all tables hold of it."""
        file, start_s, end_s = segment
        metadata = {
            name: fact for name, fact in self._fields(file, facts.values).metadata().items() if fact is not None
        }
        suffix = segment_name(start_s, end_s)
        votes = tuple(self._vote(file, rater, facts.ratings[rater]) for rater in sorted(facts.ratings))
        name = Path(file).with_suffix("").as_posix() + suffix
        at = {"start_s": start_s, "end_s": end_s, "name": name, "votes": votes}
        audio = self.root.resolve() / file
        return Utterance(audio=audio, source=file + suffix, **(defaults | metadata | at))

    def _add_value(self, facts: _Facts, meaning: str, value: Any, table: str, rater: str | None) -> None:
        kind = (self.raters.get(rater) or {}).get("type") if rater is not None else None
        if meaning not in RATED or "gold_standard" in table or kind in {None, "ground truth", "vote"}:
            facts.values[meaning] = value
        elif kind != "machine":
            facts.ratings[str(rater)][meaning] = value
        if meaning == "speaker":
            facts.values |= self.speakers.get(str(value), {})

    def _rows(self, table: str) -> list[Row]:
        names = [f"db.{table}{suffix}" for suffix in FORMATS]
        for name in names:
            if (self.root / name).is_file():
                return [*read_rows(self.root / name)]
        raise ReaderError(f"{self.file} lists the table {table!r}, but there is no {' or '.join(names)} beside it")

    def _segment(self, table: str, row: Row) -> Segment:
        column_of = {"audio": "file", "start_s": "start", "end_s": "end"}
        fields = Fields(location=f"table {table!r} of {self.file}, {row.location}", values=row.values, named=column_of)
        file = fields.text("audio")
        if file is None:
            fields.fail("audio", "no file")
        start_s, end_s = fields.segment()
        return (file, None, None) if (start_s or 0.0, end_s) == (0.0, None) else (file, start_s, end_s)

    def _label(self, scheme: str | None, value: Any) -> Any:
        """A value as its scheme spells it out, where the scheme has words for its labels."""
        labels = (self.schemes.get(scheme) or {}).get("labels")
        spelled = labels.get(value) if isinstance(labels, dict) else None
        return spelled if isinstance(spelled, str) else value

    def _speakers(self) -> dict[str, dict[str, Any]]:
        """Speaker -> gender and language, from the labels of the scheme or from the table that holds them."""
        labels = (self.schemes.get("speaker") or {}).get("labels")
        if isinstance(labels, str) and labels in self.misc_tables:
            level = next(iter(self.misc_tables[labels]["levels"]))
            labels = {row.values[level]: row.values for row in self._rows(labels)}
        table = labels if isinstance(labels, dict) else {}
        return {
            str(name): {key: facts[key] for key in ("gender", "language") if facts.get(key)}
            for name, facts in table.items()
            if isinstance(facts, dict)
        }

    def _vote(self, file: str, rater: str, ratings: dict[str, Any]) -> Vote:
        fields = self._fields(f"{file}, rater {rater}", ratings)
        valence, arousal, dominance = (fields.number(name) for name in ("valence", "arousal", "dominance"))
        return Vote(rater=rater, emotion=fields.text("emotion"), valence=valence, arousal=arousal, dominance=dominance)

    def _fields(self, subject: str, values: dict[str, Any]) -> Fields:
        return Fields(location=f"{self.file}, {subject}", values=values, named={name: name for name in values})


def _meaning(column: str, scheme: str | None) -> str | None:
    """Our name for a column: by its scheme, else by its own name, of which only a part may count without a scheme."""
    names = [scheme, column] if scheme else [column, column.rpartition(".")[2]]
    return next((MEANING[name.lower()] for name in names if name and name.lower() in MEANING), None)


def _but_ratings(values: dict[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in values.items() if name not in RATED}
