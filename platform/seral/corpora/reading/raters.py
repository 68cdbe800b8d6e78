"""Votes of single raters in the MSP corpora: `WHO; word; more, words; A:3; V:4; D:2;`, activation before valence."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass

from seral.corpora.reading.labels import number
from seral.corpora.reading.utterance import Vote

DIMENSION = re.compile(r"([AVDN])\s*:\s*(\S*)")
OTHER = re.compile(r"other\s*-\s*(?P<word>.*)", re.IGNORECASE)


@dataclass(frozen=True, kw_only=True)
class RatingLine:
    """One line: of a clip (its code and mean ratings) or of a rater (words and ratings)."""

    who: str
    words: tuple[str, ...]
    ratings: dict[str, float | None]
    """Fields of Utterance and of Vote."""


def rating_line(line: str, location: str) -> RatingLine | None:
    """The line's parts; None for a line that is no rating. Words may hold semicolons: the ratings end the line."""
    who, *parts = (part.strip() for part in line.split(";"))
    matches = [DIMENSION.fullmatch(part) for part in parts]
    first = next((index for index, match in enumerate(matches) if match), None)
    if first is None:
        return None
    value_of = {match[1]: number(match[2], location) for match in matches if match}
    ratings = {"arousal": value_of.get("A"), "valence": value_of.get("V"), "dominance": value_of.get("D")}
    return RatingLine(who=who, words=tuple(parts[:first]), ratings=ratings)


def vote_of(line: RatingLine) -> Vote:
    """A rater's line as a vote: the last of several words is the list of further emotions."""
    *primary, secondary = line.words if len(line.words) > 1 else (*line.words, "")
    return make_vote(line.who, "; ".join(primary), secondary, line.ratings)


def make_vote(rater: str, primary: str, secondary: str, ratings: dict[str, float | None]) -> Vote:
    """A vote in lower-case words. `Other-confused` is the class other, and confused one of the further emotions."""
    own = OTHER.fullmatch(primary.strip())
    more = [own["word"]] if own else []
    more += secondary.split(",")
    return Vote(
        rater=rater,
        emotion="other" if own else _word(primary),
        secondary=tuple(dict.fromkeys(word for word in map(_word, more) if word)),
        arousal=ratings["arousal"],
        valence=ratings["valence"],
        dominance=ratings["dominance"],
    )


def _word(text: str) -> str | None:
    return text.strip().lower() or None


def blocks(lines: Iterable[tuple[str, str]]) -> Iterator[tuple[str, RatingLine, tuple[Vote, ...]]]:
    """(location, text) of the lines of a file -> location and line of each clip, with the votes that follow it."""
    head: tuple[str, RatingLine] | None = None
    votes: list[Vote] = []
    for location, text in lines:
        line = rating_line(text, location)
        if line is None:
            continue
        if line.who.lower().endswith((".wav", ".avi")):
            if head is not None:
                yield *head, tuple(votes)
            head, votes = (location, line), []
        else:
            votes.append(vote_of(line))
    if head is not None:
        yield *head, tuple(votes)
