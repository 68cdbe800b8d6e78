"""Choices that the caller of a reader of anything has: columns, a pattern of paths, words, raters, tables to join."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Iterator, Mapping
from dataclasses import replace
from typing import TypedDict

from seral.audio.address import path_of
from seral.corpora.reading.fields import Fields, chosen_columns, segment_name, share_columns
from seral.corpora.reading.join import JoinedTable
from seral.corpora.reading.pattern import GROUPS, PathPattern
from seral.corpora.reading.rater_columns import RaterColumns
from seral.corpora.reading.rows import Row, columns_present
from seral.corpora.reading.table_columns import TableColumns
from seral.corpora.reading.tree import AudioFile
from seral.corpora.reading.utterance import Skipped, Utterance
from seral.errors import OptionError, ReaderError, unknown_name

SHOWN = 3
"""Names in an error."""


class Choices(TypedDict, total=False):
    """Reader options of `folder`, `audiofolder`, `manifest`, `hf-parquet`, `hf-arrow` and `webdataset`."""

    columns: Mapping[str, str] | None
    """Our name -> the table's column, where the usual names do not fit; empty to leave a column out."""
    corpus: str | None
    """Name of the corpus, instead of the folder's."""
    pattern: str | None
    """Regular expression for the path below the folder, whose named groups are fields of the utterance."""
    maps: Mapping[str, Mapping[str, str]] | None
    """Our name -> the corpus's word -> ours; `*` stands for all others, and for none."""
    votes: list[str] | dict[str, str] | None
    """A column of emotions for every rater, or `rater` and `emotion` -> column where a row is one rater's answer."""
    ratings: Mapping[str, list[str]] | None
    """valence, arousal or dominance -> a column for every rater, in the order of `votes`."""
    join: Mapping[str, str] | None
    """Table -> the column with the file's name, empty for the one that is usually called so."""


class Reading:
    """Choices at work on one corpus: they complete what a reader knows of each clip.

    `present` holds the columns of the reader's own table; None = they come with the clips, and are checked at the end
    (`check`). Raises OptionError for choices that mean nothing, and ReaderError for columns that are in no table.
    """

    def __init__(self, choices: Choices, corpus: str, present: Collection[str] | None = ()) -> None:
        self.columns = choices.get("columns") or {}
        self.corpus, self._named_corpus = choices.get("corpus") or corpus, bool(choices.get("corpus"))
        self.maps = choices.get("maps") or {}
        for name in self.maps:
            if name not in GROUPS:
                raise OptionError(unknown_name("field to map words of", name, GROUPS))
        pattern = choices.get("pattern")
        self._pattern = None if pattern is None else PathPattern(pattern)
        self._matched, self._unmatched = False, list[str]()
        self._raters = RaterColumns.of(choices.get("votes") or [], choices.get("ratings") or {})
        join = {path_of(path): key for path, key in (choices.get("join") or {}).items()}
        present_in = {file: columns_present(file) for file in join}
        self._in_joined = [*present_in.values()]
        own = set(filter(None, self.columns.values())) if present is None else set(present)
        self._present = own.union(*self._in_joined)
        if present is not None:
            self._check_columns([own, *self._in_joined])
        self._joined = [JoinedTable(file, self.table(str(file), present_in[file]), key) for file, key in join.items()]

    @property
    def rater_columns(self) -> set[str]:
        """The raters' columns, unless a joined table has them."""
        columns = set() if self._raters is None else self._raters.columns
        return set() if any(columns <= present for present in self._in_joined) else columns

    def check_a_row_a_clip(self, where: str) -> None:
        """Raise OptionError where the reader's own rows are to be of single raters, and each of them is a clip."""
        if self.rater_columns and self._raters is not None and self._raters.rater is not None:
            raise OptionError(f"{where} has a row a clip, not a row a rater: put the answers in a table, and --join it")

    def check(self, table: str, present: set[str]) -> None:
        """Raise ReaderError for columns that are not among those of all clips, nor in a joined table."""
        chosen_columns(table, present.union(*self._in_joined), self.columns)
        self._check_columns([present, *self._in_joined])

    def table(self, table: str, present: set[str], audio: str | None = None) -> TableColumns:
        """The columns of one of the tables, of which `audio` is known. Raises ReaderError for a column no table has."""
        raters = self._raters if self._raters is not None and self._raters.columns <= present else None
        taken = raters.columns if raters is not None else set()
        # A column that another table has is chosen there.
        elsewhere = self._present - present
        choice = {name: "" if column in elsewhere else column for name, column in self.columns.items()}
        named = chosen_columns(table, present - taken, choice)
        named |= {} if audio is None else {"audio": audio}
        shares = () if "emotion" in self.columns else share_columns(present - taken, named)
        return TableColumns(
            table=table, present=frozenset(present), named=named, shares=shares, raters=raters, maps=self.maps
        )

    def fields(self, table: str, row: Row) -> Fields:
        """The fields of a row that has columns of its own, as an object of JSON has."""
        values = dict.fromkeys(self.rater_columns) | row.values
        return self.table(table, set(values)).fields(replace(row, values=values))

    def path_fields(self, file: AudioFile) -> Fields:
        """The fields of a file that is in no table."""
        return Fields(location=file.source, values={}, named={}, maps=self.maps)

    def record(self, fields: Fields, file: AudioFile, **weaker: str | None) -> Utterance | Skipped:
        """The utterance of a file; `weaker` is our name -> what to take where nothing else says it."""
        completed = self._complete(fields, file)
        if isinstance(completed, Skipped):
            return completed
        more = {name: (f"the {name} in the path", value) for name, value in weaker.items() if value is not None}
        return self._utterance(completed.filled(more) if more else completed, file)

    def remainder(self) -> Iterator[Skipped]:
        """Rows of joined tables that no clip has asked for. To be called last.

        Raises ReaderError for a pattern, or a joined table, that fits no clip.
        """
        if self._pattern is not None and self._unmatched and not self._matched:
            hint = "it has to fit from a folder or file name on to the end; where a part says nothing, write .*"
            names = ", ".join(self._unmatched)
            raise ReaderError(f"the pattern {self._pattern.text!r} fits no path, such as {names}: {hint}")
        for table in self._joined:
            yield from table.remainder(self.corpus)

    def _complete(self, fields: Fields, file: AudioFile) -> Fields | Skipped:
        """The fields, and what joined tables and the path say; Skipped where these say nothing or contradict."""
        for table in self._joined:
            entry = table.entry(fields.text("name"), file.source)
            if entry is not None and entry.conflict is not None:
                return file.skip(self.corpus, "conflict", entry.conflict)
            fields = fields if entry is None else entry.fill(fields)
        if self._pattern is None:
            return fields
        groups = self._pattern.groups(file.source)
        if groups is None:
            self._unmatched += [file.source][: SHOWN - len(self._unmatched)]
            return file.skip(self.corpus, "unreadable-name", f"the path does not fit the pattern {self._pattern.text}")
        self._matched = True
        return fields.filled(groups)

    def _utterance(self, fields: Fields, file: AudioFile) -> Utterance:
        """The utterance of a file, or of the part of it that the fields tell."""
        metadata = fields.metadata()
        segment = segment_name(metadata["start_s"], metadata["end_s"])
        segment += f"#{metadata['channel']}" if metadata["channel"] else ""
        return Utterance(
            audio=file.path,
            source=file.source + segment,
            corpus=self.corpus if self._named_corpus else fields.corpus(self.corpus),
            name=fields.text("name") or file.source.removesuffix(file.path.suffix) + segment,
            **metadata,
        )

    def _check_columns(self, tables: Iterable[set[str]]) -> None:
        tables = [*tables]
        there = ", ".join(sorted(set().union(*tables))) or "no table; name one: --join TABLE"
        if self._raters is not None and not any(self._raters.columns <= present for present in tables):
            raters = ", ".join(sorted(self._raters.columns))
            raise ReaderError(f"no table has all the raters' columns {raters}; there is: {there}")
        if self.columns and not any(tables):
            raise ReaderError(f"no table has the columns {', '.join(self.columns.values())}; there is: {there}")
