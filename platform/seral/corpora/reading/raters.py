"""What single raters said in the MSP corpora: `WHO; word; more, words; A:3; V:4; D:2;`, activation before valence."""

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


def rating_line(line: str, place: str) -> RatingLine | None:
    """The line's parts; None for a line that is no rating. Words may hold semicolons: the ratings end the line."""
    who, *parts = (part.strip() for part in line.split(";"))
    found = [DIMENSION.fullmatch(part) for part in parts]
    first = next((index for index, match in enumerate(found) if match), None)
    if first is None:
        return None
    given = {match[1]: number(match[2], place) for match in found if match}
    ratings = {"arousal": given.get("A"), "valence": given.get("V"), "dominance": given.get("D")}
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


def _word(written: str) -> str | None:
    return written.strip().lower() or None


def blocks(lines: Iterable[tuple[str, str]]) -> Iterator[tuple[str, RatingLine, tuple[Vote, ...]]]:
    """(place, text) of the lines of a file -> place and line of each clip, with the votes that follow it."""
    head: tuple[str, RatingLine] | None = None
    votes: list[Vote] = []
    for place, text in lines:
        line = rating_line(text, place)
        if line is None:
            continue
        if line.who.lower().endswith((".wav", ".avi")):
            if head is not None:
                yield *head, tuple(votes)
            head, votes = (place, line), []
        else:
            votes.append(vote_of(line))
    if head is not None:
        yield *head, tuple(votes)
