"""Columns of a table that hold the answers of single raters: a column a rater, or a row a rater."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

from seral.corpora.reading.fields import Fields
from seral.corpora.reading.utterance import Vote
from seral.errors import OptionError, unknown_name
from seral.schema import RATED

ANSWERS = ("emotion", *RATED)


@dataclass(frozen=True, kw_only=True)
class RaterColumns:
    """The columns of every rater, or of a row's one."""

    raters: Mapping[str, Mapping[str, str]]
    """Rater -> emotion, valence, arousal or dominance -> the column. Of a row a rater there is one entry."""
    rater: str | None = None
    """Column that names the rater, where every row is the answer of one."""

    @staticmethod
    def of(votes: Sequence[str] | Mapping[str, str], ratings: Mapping[str, Sequence[str]]) -> RaterColumns | None:
        """The columns that the options `votes` and `ratings` name; None where they name none. Raises OptionError."""
        if isinstance(votes, Mapping):
            return _a_row_a_rater(votes, ratings)
        columns_of = {"emotion": votes, **ratings} if votes else dict(ratings)
        for answer in columns_of:
            if answer not in ANSWERS:
                raise OptionError(unknown_name("rating of raters", answer, RATED))
        counts = {answer: len(columns) for answer, columns in columns_of.items()}
        if len(set(counts.values())) > 1:
            numbers = ", ".join(f"{count} of {answer}" for answer, count in counts.items())
            raise OptionError(f"raters need a column each, in the same order, got {numbers}")
        names = _names(next(iter(columns_of.values()), ()))
        columns_by_rater = zip(*columns_of.values(), strict=True)
        raters = {n: dict(zip(columns_of, row, strict=True)) for n, row in zip(names, columns_by_rater, strict=True)}
        return RaterColumns(raters=raters) if raters else None

    @property
    def columns(self) -> set[str]:
        """All of them."""
        answers = {column for columns in self.raters.values() for column in columns.values()}
        return answers if self.rater is None else {*answers, self.rater}

    def votes(self, fields: Fields) -> tuple[Vote, ...]:
        """The votes in a row. A rater who left all columns empty has none."""
        votes = (self._vote(fields, name, columns) for name, columns in self.raters.items())
        return tuple(vote for vote in votes if any(getattr(vote, answer) is not None for answer in ANSWERS))

    def _vote(self, fields: Fields, name: str, columns: Mapping[str, str]) -> Vote:
        answer = replace(fields, named=columns)
        rater = name if self.rater is None else replace(fields, named={"rater": self.rater}).text("rater")
        valence, arousal, dominance = map(answer.number, RATED)
        return Vote(rater=rater, emotion=answer.text("emotion"), valence=valence, arousal=arousal, dominance=dominance)


def _a_row_a_rater(votes: Mapping[str, str], ratings: Mapping[str, Sequence[str]]) -> RaterColumns:
    for name in votes:
        if name not in {"rater", *ANSWERS}:
            raise OptionError(unknown_name("part of a vote", name, ("rater", *ANSWERS)))
    answers = {name: column for name, column in votes.items() if name != "rater"}
    if "rater" not in votes or not answers:
        raise OptionError(f"a table with a row a rater needs votes rater=COLUMN,emotion=COLUMN, got {dict(votes)}")
    if ratings:
        raise OptionError(f"with a row a rater ratings are parts of votes: valence=COLUMN; got ratings {dict(ratings)}")
    return RaterColumns(raters={"": answers}, rater=votes["rater"])


def _names(columns: Sequence[str]) -> list[str]:
    """Names of raters: their columns, without what these have in common: `a1_cat, a2_cat` are of a1 and a2."""
    parts = [re.split(r"([_.\- ])", column) for column in columns]
    while parts and min(map(len, parts)) > 2 and len({part[-1] for part in parts}) == 1:
        parts = [part[:-2] for part in parts]
    while parts and min(map(len, parts)) > 2 and len({part[0] for part in parts}) == 1:
        parts = [part[2:] for part in parts]
    names = ["".join(part) for part in parts]
    return names if len(set(names)) == len(columns) > 1 else list(columns)
