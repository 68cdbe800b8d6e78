"""Outcomes of several raters' votes on one clip."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable
from statistics import fmean
from typing import Any

from pydantic import ConfigDict, TypeAdapter, ValidationError

from seral.corpora.reading.utterance import Vote
from seral.security.text import parse_json

VOTES = "votes"
"""Column of a table that holds all votes on a clip: a list of objects with the fields of `Vote`, or that as JSON."""
_LISTED = TypeAdapter(tuple[Vote, ...], config=ConfigDict(defer_build=True))


def winners(votes: Iterable[Vote]) -> list[str]:
    """The emotions with the most votes: several at a tie, none where nobody named one."""
    counts: Counter[str] = Counter()
    for vote in votes:
        if vote.emotion is not None:
            counts[vote.emotion] += vote.count
    return [emotion for emotion, count in counts.items() if count == max(counts.values())]


def winner(votes: Iterable[Vote]) -> str | None:
    """The emotion with the most votes; None at a tie and without votes."""
    tops = winners(votes)
    return tops[0] if len(tops) == 1 else None


def mean_rating(votes: Iterable[Vote], dimension: str) -> float | None:
    """The mean of the raters' ratings of a dimension of RATED, None where nobody rated it."""
    ratings = [getattr(vote, dimension) for vote in votes]
    ratings = [rating for rating in ratings if rating is not None]
    return fmean(ratings) if ratings else None


def joined_votes(votes: tuple[Vote, ...], more: Iterable[Vote]) -> tuple[Vote, ...]:
    """The votes, and those of others; of a rater who answered twice the first answer counts."""
    raters = {vote.rater for vote in votes} - {None}
    return (*votes, *(vote for vote in more if vote.rater not in raters))


def listed_votes(value: Any) -> tuple[Vote, ...]:
    """The votes in a value of the column VOTES, none in one that is of another kind."""
    try:
        listed = parse_json(value) if isinstance(value, str) and value.lstrip().startswith("[") else value
        return _LISTED.validate_python(listed) if isinstance(listed, list) else ()
    except (ValueError, ValidationError):
        return ()
