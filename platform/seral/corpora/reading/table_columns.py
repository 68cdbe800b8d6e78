"""The columns of one table, and what they are."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace

from seral.corpora.reading.fields import Fields
from seral.corpora.reading.rater_columns import RaterColumns
from seral.corpora.reading.rows import Row
from seral.corpora.reading.utterance import Vote
from seral.corpora.reading.votes import VOTES, joined_votes, listed_votes


@dataclass(frozen=True, kw_only=True)
class TableColumns:
    """All that a reader makes of a table's columns."""

    table: str
    """For errors."""
    present: frozenset[str]
    named: Mapping[str, str]
    """Our name -> the column."""
    shares: Sequence[str]
    raters: RaterColumns | None
    maps: Mapping[str, Mapping[str, str]]

    def fields(self, row: Row) -> Fields:
        """The fields of a row, and the votes in it."""
        fields = Fields(
            location=f"{self.table}, {row.location}",
            values=row.values,
            named=self.named,
            shares=self.shares,
            maps=self.maps,
        )
        votes = listed_votes(row.values.get(VOTES)) if self.raters is None else self.raters.votes(fields)
        return replace(fields, votes=votes) if votes else fields

    def clips(self, rows: Callable[[], Iterable[Row]]) -> Iterator[Fields]:
        """The fields of every clip in the rows, which are read twice where each is the answer of one rater.

        Of the rows about one clip the first says all but the votes.
        """
        if self.raters is None or self.raters.rater is None:
            yield from map(self.fields, rows())
            return
        votes: dict[tuple[str | None, ...], tuple[Vote, ...]] = {}
        for fields in map(self.fields, rows()):
            key = self._clip(fields)
            votes[key] = joined_votes(votes.get(key, ()), fields.votes)
        for fields in map(self.fields, rows()):
            key = self._clip(fields)
            if key in votes:
                yield replace(fields, votes=votes.pop(key))

    def _clip(self, fields: Fields) -> tuple[str | None, ...]:
        return tuple(fields.text(name) for name in ("audio", "start_s", "end_s"))
