"""CREMA-D: English, acted, 12 sentences, 91 actors, and about ten raters a clip. Cao et al. 2014,
doi:10.1109/TAFFC.2014.2336244.

A name is actor, sentence, emotion, level: `1001_IEO_ANG_HI`. The emotion in the name is what the actor was asked for;
raters heard it in the voice alone in well under half of the clips, so which of the two is the label has to be said.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, Literal

from seral.corpora.reading.labels import Label, read_text, utterances_by_label
from seral.corpora.reading.rows import parse_csv
from seral.corpora.reading.tree import AudioFile, Convention, corpus_files, files_below
from seral.corpora.reading.utterance import NO_AGREEMENT, Skipped, Utterance, Vote
from seral.corpora.reading.votes import winner
from seral.errors import ReaderError

EMOTIONS = {"ANG": "anger", "DIS": "disgust", "FEA": "fear", "HAP": "happy", "NEU": "neutral", "SAD": "sad"}
LETTERS = {word[0].upper(): word for word in EMOTIONS.values()}
"""Letters of the votes -> the same words."""
SENTENCES = {
    "IEO": "It's eleven o'clock.",
    "TIE": "That is exactly what happened.",
    "IOM": "I'm on my way to the meeting.",
    "IWW": "I wonder what this is about.",
    "TAI": "The airplane is almost full.",
    "MTI": "Maybe tomorrow it will be cold.",
    "IWL": "I would like a new alarm clock.",
    "ITH": "I think I have a doctor's appointment.",
    "DFA": "Don't forget a jacket.",
    "ITS": "I think I've seen this before.",
    "TSI": "The surface is slick.",
    "WSI": "We'll stop in a couple of minutes.",
}
CONVENTION = Convention(
    corpus="crema-d",
    pattern=re.compile(
        rf"(?P<actor>10[0-8]\d|109[01])_(?P<sentence>{'|'.join(SENTENCES)})_(?P<emotion>{'|'.join(EMOTIONS)})_(LO|MD|HI|XX?)"
    ),
    expected="ACTOR_SENTENCE_EMOTION_LEVEL (1001-1091, three letters, three letters, LO MD HI or XX)",
    example="AudioWAV/1001_IEO_ANG_HI.wav",
)
MODALITIES = {"acted": "1", "voice": "1", "multimodal": "3"}
"""Labels -> the raters whose votes go with them: 1 heard the voice alone, 3 heard and saw the clip."""

CremaLabels = Literal["acted", "voice", "multimodal"]


def read_crema_d(root: Path, *, labels: CremaLabels = "acted") -> Iterator[Utterance | Skipped]:
    """All of CREMA-D. The gold emotion is what was acted, or what most raters heard (`voice`) or heard and saw.

    Votes come from finishedResponses.csv, one a rater, or else from tabulatedVotes.csv, counted.
    """
    files = corpus_files(root, CONVENTION)
    votes = read_votes(root, MODALITIES[labels])
    if labels != "acted" and not votes:
        raise ReaderError(
            f"{root} has no votes for labels={labels}: expected finishedResponses.csv or "
            f"tabulatedVotes.csv, for example {root}/processedResults/tabulatedVotes.csv"
        )
    genders = _genders(root)
    names = dict.fromkeys([*votes, *(_name(file) for file in files if CONVENTION.pattern.fullmatch(file.name))])
    metadata = {name: _metadata(name, labels, votes.get(name, ()), genders) for name in names}
    clip_labels = (
        Label(name=name, location="the votes", metadata=values)
        for name, values in metadata.items()
        if values["emotion"]
    )
    yield from utterances_by_label(files, clip_labels, CONVENTION, name_of=_name)


def _name(file: AudioFile) -> str:
    """The clip as the votes name it: one file of the release, 1040_ITH_SAD_X, lacks its last letter."""
    return file.name + "X" if file.name.endswith("_X") else file.name


def _metadata(name: str, labels: CremaLabels, votes: tuple[Vote, ...], genders: Mapping[str, str]) -> dict[str, Any]:
    match = CONVENTION.pattern.fullmatch(name)
    if match is None:
        raise ReaderError(f"the votes name a clip {name!r}: expected {CONVENTION.expected}")
    return {
        "speaker": match["actor"],
        "gender": genders.get(match["actor"]),
        "language": "en",
        "style": "acted",
        "text": SENTENCES[match["sentence"]],
        "emotion": EMOTIONS[match["emotion"]] if labels == "acted" else majority(votes),
        "votes": votes,
    }


def majority(votes: tuple[Vote, ...]) -> str | None:
    """The emotion with the most votes; NO_AGREEMENT on a tie, None without votes."""
    return winner(votes) or (NO_AGREEMENT if votes else None)


def read_votes(root: Path, modality: str) -> dict[str, tuple[Vote, ...]]:
    """Clip -> the votes of raters who were given this modality: 1 voice, 2 face, 3 both. Empty without vote tables."""
    for table, parse in (("finishedResponses", _responses), ("tabulatedVotes", _tabulated)):
        files = files_below(root, rf"(.*/)?{table}\.csv")
        if files:
            return {clip: tuple(votes) for clip, votes in parse(files[0], modality).items()}
    return {}


def _responses(file: Path, modality: str) -> dict[str, list[Vote]]:
    """One vote a rater; of the few raters who met a clip twice the first answer counts."""
    vote_of: dict[str, dict[str, Vote]] = {}
    for row in parse_csv(file, read_text(file), needs=("localid", "queryType", "clipName", "respEmo")):
        values = row.values
        if values["queryType"] == modality:
            vote = Vote(rater=values["localid"], emotion=_word(file, row.location, values["respEmo"]))
            vote_of.setdefault(values["clipName"], {}).setdefault(values["localid"], vote)
    return {clip: list(votes.values()) for clip, votes in vote_of.items()}


def _tabulated(file: Path, modality: str) -> dict[str, list[Vote]]:
    """Votes counted by emotion. The number of a row begins with the modality; its column has no name."""
    votes_of = {}
    for row in parse_csv(file, read_text(file), needs=("", "fileName", *LETTERS)):
        if row.values[""].startswith(modality):
            votes = ((word, int(row.values[letter])) for letter, word in LETTERS.items())
            votes_of[row.values["fileName"]] = [Vote(emotion=word, count=count) for word, count in votes if count]
    return votes_of


def _word(file: Path, location: str, letter: str) -> str:
    if letter not in LETTERS:
        raise ReaderError(f"{file}, {location}: expected one of {', '.join(LETTERS)} as respEmo, got {letter!r}")
    return LETTERS[letter]


def _genders(root: Path) -> dict[str, str]:
    """Actor -> female or male, where the table of actors is there."""
    files = files_below(root, r"(.*/)?VideoDemographics\.csv")
    rows = parse_csv(files[0], read_text(files[0]), needs=("ActorID", "Sex")) if files else ()
    return {row.values["ActorID"]: row.values["Sex"].lower() for row in rows}
