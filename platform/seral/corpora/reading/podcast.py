"""The layout that MSP-Podcast and BIIC-Podcast share: audio in one folder, labels, votes, partitions, transcripts.

Old releases spell the label file `labels_concensus`, the development set `Validation` and the folder `Audio`. A folder
`Previous_releases_information` holds labels and audio of older releases: it is left alone.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, Literal

from seral.corpora.reading.labels import Label, number, one_of, read_text, utterances_by_label
from seral.corpora.reading.raters import blocks, make_vote, rating_line, vote_of
from seral.corpora.reading.rows import Row, parse_csv
from seral.corpora.reading.tree import Convention, corpus_files, files_below
from seral.corpora.reading.utterance import NO_AGREEMENT, Skipped, Utterance, Vote
from seral.errors import ReaderError

EMOTIONS = {
    "A": "angry",
    "S": "sad",
    "H": "happy",
    "U": "surprise",
    "F": "fear",
    "D": "disgust",
    "C": "contempt",
    "N": "neutral",
    "O": "other",
    "X": NO_AGREEMENT,
}
"""Codes of the labels -> the words of the raters, in lower case."""
PREVIOUS = "Previous_releases_information"
CONSENSUS = "labels_con[sc]ensus"
WORKERS = ("Workers", "WorkerID", "Worker", "Annotator")
"""Names that the column of raters has had."""

TestSet = Literal["test1", "test2", "all"]


def read_podcast(
    root: Path, convention: Convention, *, language: str, words: Mapping[str, str], test: TestSet, hint: str = ""
) -> Iterator[Utterance | Skipped]:
    """A podcast corpus. `words`: code in EmoClass -> word; `test`: which official test set is the split's test.

    `hint` ends the error for a code that is not among the words.
    """
    files = [file for file in corpus_files(root, convention) if PREVIOUS not in file.source.split("/")]
    votes = _votes(root)
    texts = {file.stem: file for file in _files(root, r".+\.txt") if convention.pattern.fullmatch(file.stem)}
    partitions = _partitions(root)
    labels = []
    for place, clip, row in _consensus(root):
        match = convention.pattern.fullmatch(Path(clip).stem)
        if match is None:
            raise ReaderError(f"{place}: expected {convention.expected}, got {clip!r}")
        known = {
            "speaker": _known(row.get("SpkrID")),
            "gender": _gender(row.get("Gender")),
            "session": match["podcast"],
            "language": language,
            "style": "natural",
            "split": _split(row.get("Split_Set") or partitions.get(clip), test, place),
            "emotion": _emotion(row.get("EmoClass"), words, place, hint),
            "arousal": number(row.get("EmoAct"), place),
            "valence": number(row.get("EmoVal"), place),
            "dominance": number(row.get("EmoDom"), place),
        }
        if any(known[name] is not None for name in ("emotion", "arousal", "valence", "dominance")):
            name = match.string
            known |= {"votes": votes.get(clip, ()), "text": _text(texts.get(name))}
            labels.append(Label(name=name, place=place, known=known))
    yield from utterances_by_label(files, labels, convention)


def _files(root: Path, pattern: str) -> list[Path]:
    return [file for file in files_below(root, rf"(.*/)?{pattern}") if PREVIOUS not in file.parts]


def _consensus(root: Path) -> Iterator[tuple[str, str, dict[str, Any]]]:
    """Place, file name and columns of each labelled clip."""
    found = _files(root, rf"{CONSENSUS}\.csv") or _files(root, rf"{CONSENSUS}\.json")
    file = one_of(root, found, "labels_consensus.csv or .json", "Labels/labels_consensus.csv")
    if file.suffix == ".json":
        for clip, columns in _json(file).items():
            yield file.name, clip, columns
        return
    for row in parse_csv(file, read_text(file), needs=("FileName", "EmoClass")):
        yield f"{file.name}, {row.place}", row.values["FileName"].strip(), row.values


def _votes(root: Path) -> dict[str, tuple[Vote, ...]]:
    """File name -> the votes, from the first table that is there."""
    votes: dict[str, list[Vote]] = {}
    if found := _files(root, r"labels_detailed\.csv"):
        for row in parse_csv(found[0], read_text(found[0]), needs=("FileName",)):
            votes.setdefault(row.values["FileName"].strip(), []).append(_vote(found[0], row))
    elif found := _files(root, r"labels_detailed\.json"):
        for clip, raters in _json(found[0]).items():
            votes[clip] = [_vote_of_columns(rater, said, found[0].name) for rater, said in raters.items()]
    elif found := _files(root, r"labels\.txt"):
        lines = enumerate(read_text(found[0]).splitlines(), start=1)
        for _, head, said in blocks((f"{found[0].name}, line {count}", line) for count, line in lines):
            votes[head.who] = list(said)
    return {clip: tuple(said) for clip, said in votes.items()}


def _vote(file: Path, row: Row) -> Vote:
    """A row of the table of votes: columns of its own for everything, or the rater's line whole in `EmoDetail`."""
    place = f"{file.name}, {row.place}"
    if "EmoDetail" in row.values:
        line = rating_line(row.values["EmoDetail"], place)
        if line is None:
            raise ReaderError(f"{place}: expected WORKER; word; words; A:3; V:3; D:3; got {row.values['EmoDetail']!r}")
        return vote_of(line)
    rater = next((row.values[name] for name in WORKERS if row.values.get(name)), None)
    if rater is None:
        raise ReaderError(f"{file} has no column for the rater, which may be called {', '.join(WORKERS)}")
    return _vote_of_columns(rater, row.values, place)


def _vote_of_columns(rater: str, said: Mapping[str, Any], place: str) -> Vote:
    names = {"arousal": "EmoAct", "valence": "EmoVal", "dominance": "EmoDom"}
    ratings = {ours: number(said.get(theirs), place) for ours, theirs in names.items()}
    return make_vote(rater, said.get("EmoClass_Major") or "", said.get("EmoClass_Second") or "", ratings)


def _json(file: Path) -> dict[str, dict[str, Any]]:
    try:
        content = json.loads(read_text(file))
    except json.JSONDecodeError as error:
        raise ReaderError(f"{file}: not valid JSON: {error}") from None
    if not isinstance(content, dict) or not all(isinstance(value, dict) for value in content.values()):
        raise ReaderError(f"{file}: expected an object of objects, one for each file name")
    return content


def _partitions(root: Path) -> dict[str, str]:
    """File name -> official set, from lines such as `Test1; NAME.wav`: for tables of labels without Split_Set."""
    lines = [line for file in _files(root, r"Partitions?\.txt")[:1] for line in read_text(file).splitlines()]
    pairs = (line.split(";", 1) for line in lines if ";" in line)
    return {clip.strip(): part.strip() for part, clip in pairs}


def _split(written: str | None, test: TestSet, place: str) -> str | None:
    """The official set as train, dev or test; None for a test set that is not the chosen one."""
    word = (written or "").strip().lower()
    if word in {"", "train"}:
        return word or None
    if word in {"development", "validation"}:
        return "dev"
    if word.rstrip("123") != "test":
        raise ReaderError(f"{place}: expected Train, Development, Validation or Test1-3 as Split_Set, got {written!r}")
    return "test" if word in {"test", test} or test == "all" else None


def _emotion(code: Any, words: Mapping[str, str], place: str, hint: str) -> str | None:
    written = str(code if code is not None else "").strip()
    if not written:
        return None
    word = words.get(written, written.lower())
    if word not in {*EMOTIONS.values(), *words.values()}:
        raise ReaderError(f"{place}: unknown EmoClass {written!r}; known: {', '.join(words)}, or their words{hint}")
    return word


def _known(written: Any) -> str | None:
    text = str(written if written is not None else "").strip()
    return None if text.lower() in {"", "unknown", "nan"} else text


def _gender(written: Any) -> str | None:
    text = (_known(written) or "").lower()
    return text if text in {"female", "male"} else None


def _text(file: Path | None) -> str | None:
    return None if file is None else " ".join(read_text(file).split()) or None
