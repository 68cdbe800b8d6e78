"""A look at the tables of a corpus folder: which name audio, which tell of it, and which columns are raters'."""

from __future__ import annotations

import re
from collections.abc import Collection, Iterable, Sequence
from dataclasses import dataclass, field, replace
from itertools import chain, islice
from pathlib import Path
from typing import Any

from seral.audio.address import path_of
from seral.corpora.reading.fields import ALIASES, blank, known_columns, share_columns
from seral.corpora.reading.join import OF_THE_CLIP, key_of
from seral.corpora.reading.rater_columns import RaterColumns
from seral.corpora.reading.rows import PACKED, TABLE_FORMATS, read_rows
from seral.corpora.reading.tree import DECODABLE, TO_CONVERT, audio_files, files_below
from seral.corpora.scheme import CODES, COVERED, EMOTIONS
from seral.errors import PoolError
from seral.schema import RATED

ROWS, TABLES, FOLDERS = 1_000, 12, 12
"""Rows of a table, tables, and folders for its audio that are looked at."""
RATERS = {"rater", "annotator", "worker", "listener", "evaluator", "labeler", "labeller"}
RATERS |= {f"{name}{ending}" for name in RATERS for ending in ("id", "_id")}
"""Names of a column that says whose answer a row is, in lower case."""
JOINED = 0.5
"""Share of a table's rows that have to meet a clip by name."""


@dataclass(frozen=True, kw_only=True)
class Table:
    """A table by its first rows."""

    file: Path
    named: dict[str, str]
    """Our name -> the column."""
    columns: dict[str, str]
    """The part of `named` that the usual names do not find."""
    start: Path | None
    """Folder that its paths of audio start in; None where they lead to no files."""
    key: str | None
    """Column by which its rows meet audio by file name; empty where that is the usual one, None where there is none."""
    votes: list[str] | dict[str, str] = field(default_factory=list)
    """Value of a reader's option."""
    ratings: dict[str, list[str]] = field(default_factory=dict)

    @property
    def tells(self) -> bool:
        """Whether it tells anything of a clip."""
        return bool(self.votes) or bool(self.named.keys() - set(OF_THE_CLIP))


def look_at_tables(root: Path, files: Sequence[Path] | None) -> list[Table]:
    """Tables that tell of audio below a folder, those that name files first; all near it, or just some.

    Tables that cannot be read are left out.
    """
    names = {key_of(file.source) for file in audio_files(root, DECODABLE | TO_CONVERT)}
    suffixes = "|".join(suffix[1:] for suffix in TABLE_FORMATS)
    tables = []
    for file in files or files_below(root, rf"([^/]+/)?[^/]+\.({suffixes})(\{PACKED})?")[:TABLES]:
        try:
            rows = [row.values for row in islice(read_rows(file), ROWS)]
        except PoolError:
            continue
        if rows:
            tables.append(_look(file, rows, names, root))
    return sorted(tables, key=lambda table: table.start is None)


def _look(file: Path, rows: list[dict[str, Any]], names: Collection[str], root: Path) -> Table:
    present = list(dict.fromkeys(column for row in rows for column in row))
    words = {column: {str(row[column]) for row in rows if not blank(row.get(column))} for column in present}
    named = {name: column for name, column in known_columns(present).items() if words[column]}
    emotional = [column for column in present if column not in named.values() and _emotions(words[column])]
    columns, votes = dict[str, str](), list[str]()
    if "emotion" not in named and not share_columns(present, named):
        columns = {"emotion": emotional[0]} if len(emotional) == 1 else {}
        votes = emotional if len(emotional) > 1 else []
    usual = named.get("audio") or named.get("name")
    keys = [column for column in [usual, *present] if column and _meets(words[column], names)]
    key = None if not keys else "" if keys[0] == usual else keys[0]
    start = _start(file, words[named["audio"]], root) if "audio" in named else None
    table = Table(file=file, named=named | columns, columns=columns, start=start, key=key)
    if votes:
        return replace(table, votes=votes, ratings=_ratings(votes, present))
    clip = named["audio"] if start is not None else key or usual
    return _a_row_a_rater(table, present, is_long=clip is not None and len(words[clip]) < len(rows))


def _a_row_a_rater(table: Table, present: Sequence[str], *, is_long: bool) -> Table:
    """The table with the votes of a column of raters, if there is one and several rows are about one clip."""
    rater = next((column for column in present if column.lower() in RATERS), None)
    if rater is None or not is_long or "emotion" not in table.named:
        return table
    votes = {"rater": rater} | {name: table.named[name] for name in ("emotion", *RATED) if name in table.named}
    named = {name: column for name, column in table.named.items() if name not in votes}
    return replace(table, named=named, columns={}, votes=votes)


def _emotions(words: Collection[str]) -> bool:
    emotions = {word.lower() for word in words} & (EMOTIONS | CODES.keys())
    return len(emotions) > 1 and 2 * len(emotions) >= len(words)


def _meets(words: Iterable[str], names: Collection[str]) -> bool:
    keys = {key_of(word) for word in words}
    return bool(keys) and len(keys & set(names)) >= JOINED * len(keys)


def _start(file: Path, paths: Collection[str], root: Path) -> Path | None:
    """The folder near the table from which nearly all paths lead to a file."""
    parent = file.resolve().parent
    near = list(dict.fromkeys([parent, root.resolve(), parent.parent]))
    sample = list(islice(paths, 50))
    for folder in chain(near, *map(_folders, near)):
        there = [(path_of(path) if "://" in path else folder / path).is_file() for path in sample]
        if sum(there) >= COVERED * len(sample):
            return folder
    return None


def _folders(folder: Path) -> list[Path]:
    """Folders in a folder on a disk; a store is not searched for them."""
    if "://" in str(folder):
        return []
    return sorted(path for path in folder.iterdir() if path.is_dir() and not path.name.startswith("."))[:FOLDERS]


def _ratings(votes: list[str], present: Sequence[str]) -> dict[str, list[str]]:
    """Columns of the same raters' ratings, emotional by the rater's name and a usual name of the dimension."""
    raters = RaterColumns.of(votes, {})
    ratings = {}
    for dimension in RATED if raters is not None else ():
        aliases = "|".join(map(re.escape, ALIASES[dimension]))
        columns = [_of_rater(rater, aliases, present) for rater in (raters.raters if raters else ())]
        if all(columns):
            ratings[dimension] = [str(column) for column in columns]
    return ratings


def _of_rater(rater: str, aliases: str, present: Sequence[str]) -> str | None:
    name = re.escape(rater)
    both = re.compile(rf"{name}[_.\- ]?(?:{aliases})|(?:{aliases})[_.\- ]?{name}", re.IGNORECASE)
    return next((column for column in present if both.fullmatch(column)), None)
