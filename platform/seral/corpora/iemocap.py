"""IEMOCAP: English, ten actors in five sessions of two. Busso et al. 2008, doi:10.1007/s10579-008-9076-6.

Labels and votes stand in `Session*/dialog/EmoEvaluation/*.txt`, words in `Session*/dialog/transcriptions/*.txt`. A turn
is named by its dialogue and its speaker: `Ses01F_impro01_M013`. The letter after the session says who wears the markers
of motion capture; who speaks is the letter before the number, so that speaker is `Ses01M` here.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from seral.corpora.reading.labels import Label, number, read_text, utterances_by_label
from seral.corpora.reading.tree import Convention, corpus_files, files_below
from seral.corpora.reading.utterance import NO_AGREEMENT, Skipped, Utterance, Vote
from seral.errors import ReaderError

DIALOGUE = r"Ses0[1-5][FM]_(?:impro|script)\d\d\w*"
CONVENTION = Convention(
    corpus="iemocap",
    pattern=re.compile(r"(?P<session>Ses0[1-5])[FM]_(?P<kind>impro|script)\d\d\w*_(?P<speaker>[FM])\d{3}"),
    expected="SesNNX_DIALOGUE_SNNN (session, dialogue, letter of the speaker and number of the turn)",
    example="Session1/sentences/wav/Ses01F_impro01/Ses01F_impro01_M013.wav",
)
LABEL_FILES = r"(.*/)?EmoEvaluation/[^/]+\.txt"
TRANSCRIPTS = r"(.*/)?transcriptions/[^/]+\.txt"
EMOTIONS = {
    "ang": "anger",
    "hap": "happiness",
    "exc": "excited",
    "sad": "sadness",
    "neu": "neutral",
    "fru": "frustration",
    "fea": "fear",
    "sur": "surprise",
    "dis": "disgust",
    "oth": "other",
    "xxx": NO_AGREEMENT,
}
"""Codes of the labels -> the words of the raters, in lower case."""
STYLES = {"impro": "elicited", "script": "acted"}
"""Improvised on a scenario that was written to bring the emotion about, or learnt by heart."""

TURN = re.compile(r"\[[\d.]+ - [\d.]+\]\s+(?P<name>\S+)\s+(?P<code>\w+)\s+\[(?P<ratings>[^\]]*)\]\s*")
CATEGORY = re.compile(r"C-(?P<rater>[A-Z]+\d+):\s*(?P<words>[^()]*)(\(.*)?")
ATTRIBUTES = re.compile(
    r"A-(?P<rater>[A-Z]+\d+):\s*val\s*(?P<v>[\d.]*)\s*;\s*act\s*(?P<a>[\d.]*)\s*;\s*dom\s*(?P<d>[\d.]*)"
)
SPOKEN = re.compile(r"(?P<name>Ses\w+)\s+\[[\d. -]*\]\s*:?\s*(?P<text>.*)")


def read_iemocap(root: Path) -> Iterator[Utterance | Skipped]:
    """All of IEMOCAP, with what each rater said; the actors' ratings of themselves are left out."""
    files = corpus_files(root, CONVENTION)
    tables = files_below(root, LABEL_FILES)
    if not tables:
        expected = "SessionN/dialog/EmoEvaluation/*.txt, for example Session1/dialog/EmoEvaluation/Ses01F_impro01.txt"
        raise ReaderError(f"{root} has no label file: expected {expected}")
    texts = _texts(root)
    labels = (label for table in tables for label in _labels(table, texts))
    yield from utterances_by_label(files, labels, CONVENTION, not_speech=_is_dialogue)


def _is_dialogue(name: str) -> bool:
    return re.fullmatch(DIALOGUE, name) is not None


def _labels(table: Path, texts: dict[str, str]) -> Iterator[Label]:
    """The turns of one dialogue: a line for the turn, then a line for what each rater said of it."""
    lines = read_text(table).splitlines()
    starts = [number for number, line in enumerate(lines) if line.startswith("[")]
    for start, end in zip(starts, [*starts[1:], len(lines)], strict=True):
        location = f"{table}, line {start + 1}"
        turn = TURN.fullmatch(lines[start])
        match = None if turn is None else CONVENTION.pattern.fullmatch(turn["name"])
        if turn is None or match is None or turn["code"] not in EMOTIONS:
            raise ReaderError(
                f"{location}: expected [START - END] TURN EMOTION [V, A, D] with a turn such as Ses01F_impro01_M013 "
                f"and one of {', '.join(EMOTIONS)}, got {lines[start]!r}"
            )
        metadata: dict[str, Any] = {
            "speaker": match["session"] + match["speaker"],
            "gender": {"F": "female", "M": "male"}[match["speaker"]],
            "session": match["session"],
            "language": "en",
            "style": STYLES[match["kind"]],
            "text": texts.get(turn["name"]),
            "emotion": EMOTIONS[turn["code"]],
            **_dimensions(turn["ratings"].split(","), location),
            "votes": _votes(lines[start + 1 : end], location),
        }
        yield Label(name=turn["name"], location=f"{table.name}, line {start + 1}", metadata=metadata)


def _dimensions(ratings: list[str], location: str) -> dict[str, float | None]:
    """Valence, activation, dominance, in the corpus's order; the last is missing in a few places."""
    names = ("valence", "arousal", "dominance")
    return {name: number(value, location) for name, value in zip(names, ratings, strict=False)}


def _votes(lines: list[str], location: str) -> tuple[Vote, ...]:
    """One vote a rater, from a line with words and one with numbers. Raters M and F are the actors themselves."""
    ratings_of: dict[str, dict[str, Any]] = {}
    for line in lines:
        if match := CATEGORY.match(line):
            first, *more = [word.strip().lower() for word in match["words"].split(";") if word.strip()] or [None]
            ratings_of.setdefault(match["rater"], {}).update(emotion=first, secondary=tuple(more))
        elif match := ATTRIBUTES.match(line):
            dimensions = _dimensions([match["v"], match["a"], match["d"]], location)
            ratings_of.setdefault(match["rater"], {}).update(dimensions)
    return tuple(Vote(rater=rater, **ratings) for rater, ratings in sorted(ratings_of.items()) if rater[0] not in "MF")


def _texts(root: Path) -> dict[str, str]:
    lines = (line for file in files_below(root, TRANSCRIPTS) for line in read_text(file).splitlines())
    matches = (SPOKEN.fullmatch(line.strip()) for line in lines)
    return {match["name"]: match["text"] for match in matches if match is not None and match["text"]}
