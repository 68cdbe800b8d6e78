"""Tables that tell more of clips listed elsewhere: their rows meet the clips by file name."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path, PurePosixPath
from typing import Any

from seral.corpora.reading.fields import ALIASES, Fields, blank
from seral.corpora.reading.rows import Row, read_rows
from seral.corpora.reading.table_columns import TableColumns
from seral.corpora.reading.tree import DECODABLE, TO_CONVERT
from seral.corpora.reading.utterance import Skipped, Vote
from seral.corpora.reading.votes import joined_votes
from seral.errors import ReaderError
from seral.progress import say

OF_THE_CLIP = ("audio", "name", "start_s", "end_s", "duration_s", "channel")
"""Fields that say which clip it is, which a joined table does not."""
SHOWN = 3
"""Names in a message."""


@dataclass
class Entry:
    """All that a joined table says of one clip."""

    location: str
    values: dict[str, tuple[str, Any]]
    """Our name -> (the column, its value)."""
    votes: tuple[Vote, ...]
    conflict: str | None = None
    """Rows that contradict each other, quoted."""

    def fill(self, fields: Fields) -> Fields:
        """The fields of the clip, with these where it has none, and all votes."""
        return replace(fields.filled(self.values), votes=joined_votes(fields.votes, self.votes))

    def add(self, other: Entry) -> None:
        """Take in a further row about the same clip."""
        for name, (column, value) in other.values.items():
            _, first = self.values.setdefault(name, (column, value))
            if str(first) != str(value):
                self.conflict = f"{self.location}: {name} {first} but {other.location}: {name} {value}"
        self.votes = joined_votes(self.votes, other.votes)


class JoinedTable:
    """One table, all of it in memory, by the names of files without folder and suffix."""

    def __init__(self, file: Path, columns: TableColumns, key: str = "") -> None:
        """`key` names the column with the file's name; else it is the one that is usually called so.

        Raises ReaderError where there is none.
        """
        self.file, self._columns = file, columns
        self._key = key or columns.named.get("audio") or columns.named.get("name") or ""
        if self._key not in columns.present:
            names = key or f"of {', '.join(ALIASES['audio'] + ALIASES['name'])}"
            raise ReaderError(
                f"{file} has no column {names}, by which to join it; it has: "
                f"{', '.join(sorted(columns.present))}. Name it: --join {file}=COLUMN"
            )
        self._entries: dict[str, Entry] = {}
        for row in read_rows(file):
            name = key_of(row.values.get(self._key))
            if name:
                entry = self._entry_of(row)
                first = self._entries.setdefault(name, entry)
                if first is not entry:
                    first.add(entry)
        self._source_of: dict[str, str] = {}
        self._asked, self._without, self._examples = 0, 0, list[str]()

    def entry(self, name: str | None, source: str) -> Entry | None:
        """The entry of a clip, by its name if it has one, else by its file. Raises ReaderError for one of two files."""
        self._asked += 1
        key = next((key for key in (key_of(name), key_of(source)) if key in self._entries), None)
        if key is None:
            self._without += 1
            self._examples += [source][: SHOWN - len(self._examples)]
            return None
        if (first := self._source_of.setdefault(key, source)) != source:
            raise ReaderError(
                f"{self.file} has one row for {first} and for {source}: a table is joined by file name, "
                "which must be there once; import such folders one by one"
            )
        return self._entries[key]

    def remainder(self, corpus: str) -> Iterator[Skipped]:
        """Rows whose clip is not there; says how many clips have no row. Raises ReaderError where no row met a clip."""
        if not self._source_of:
            raise ReaderError(
                f"{self.file} has no row for any clip: its column {self._key} holds "
                f"{', '.join([*self._entries][:SHOWN])}, the clips are {', '.join(self._examples)}. "
                f"Name another column: --join {self.file}=COLUMN"
            )
        if self._without:
            say(f"{self.file}: no row for {self._without} of {self._asked} clips, such as {', '.join(self._examples)}")
        for key, entry in self._entries.items():
            if key not in self._source_of:
                detail = f"named in {entry.location}"
                yield Skipped(source=key, corpus=corpus, reason="no-audio", detail=detail, size=-1)

    def _entry_of(self, row: Row) -> Entry:
        fields = self._columns.fields(row)
        values = {
            name: (f"{self.file.name}: {column}", row.values.get(column))
            for name, column in fields.named.items()
            if name not in OF_THE_CLIP and column != self._key and not blank(row.values.get(column))
        }
        if share := replace(fields, maps={}).greatest_share():
            values["emotion"] = (f"{self.file.name}: shares of the votes", share)
        return Entry(f"{self.file.name}, {row.location}", values, fields.votes)


def key_of(name: object) -> str:
    """A file's name without folder and suffix; a dot before anything but a suffix of audio stays."""
    path = PurePosixPath(str("" if name is None else name).strip().replace("\\", "/"))
    return path.stem if path.suffix.lower() in DECODABLE | TO_CONVERT else path.name
