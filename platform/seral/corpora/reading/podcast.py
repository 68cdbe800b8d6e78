"""The layout that MSP-Podcast and BIIC-Podcast share: audio in one folder, labels, votes, partitions, transcripts.

Old releases spell the label file `labels_concensus`, the development set `Validation` and the folder `Audio`. A folder
`Previous_releases_information` holds labels and audio of older releases: it is left alone.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, Literal

from seral.corpora.reading.labels import Label, number, one_of, read_text, utterances_by_label
from seral.corpora.reading.raters import blocks, make_vote, rating_line, vote_of
from seral.corpora.reading.rows import Row, parse_csv
from seral.corpora.reading.tree import Convention, corpus_files, files_below
from seral.corpora.reading.utterance import NO_AGREEMENT, Skipped, Utterance, Vote
from seral.errors import ReaderError
from seral.security.text import parse_json

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
    for location, clip, row in _consensus(root):
        match = convention.pattern.fullmatch(Path(clip).stem)
        if match is None:
            raise ReaderError(f"{location}: expected {convention.expected}, got {clip!r}")
        metadata = {
            "speaker": _text_or_none(row.get("SpkrID")),
            "gender": _gender(row.get("Gender")),
            "session": match["podcast"],
            "language": language,
            "style": "natural",
            "split": _split(row.get("Split_Set") or partitions.get(clip), test, location),
            "emotion": _emotion(row.get("EmoClass"), words, location, hint),
            "arousal": number(row.get("EmoAct"), location),
            "valence": number(row.get("EmoVal"), location),
            "dominance": number(row.get("EmoDom"), location),
        }
        if any(metadata[name] is not None for name in ("emotion", "arousal", "valence", "dominance")):
            name = match.string
            metadata |= {"votes": votes.get(clip, ()), "text": _text(texts.get(name))}
            labels.append(Label(name=name, location=location, metadata=metadata))
    yield from utterances_by_label(files, labels, convention)


def _files(root: Path, pattern: str) -> list[Path]:
    return [file for file in files_below(root, rf"(.*/)?{pattern}") if PREVIOUS not in file.parts]


def _consensus(root: Path) -> Iterator[tuple[str, str, dict[str, Any]]]:
    """Location, file name and columns of each labelled clip."""
    label_files = _files(root, rf"{CONSENSUS}\.csv") or _files(root, rf"{CONSENSUS}\.json")
    file = one_of(root, label_files, "labels_consensus.csv or .json", "Labels/labels_consensus.csv")
    if file.suffix == ".json":
        for clip, columns in _json(file).items():
            yield file.name, clip, columns
        return
    for row in parse_csv(file, read_text(file), needs=("FileName", "EmoClass")):
        yield f"{file.name}, {row.location}", row.values["FileName"].strip(), row.values


def _votes(root: Path) -> dict[str, tuple[Vote, ...]]:
    """File name -> the votes, from the first table that is there."""
    votes: dict[str, list[Vote]] = {}
    if tables := _files(root, r"labels_detailed\.csv"):
        for row in parse_csv(tables[0], read_text(tables[0]), needs=("FileName",)):
            votes.setdefault(row.values["FileName"].strip(), []).append(_vote(tables[0], row))
    elif tables := _files(root, r"labels_detailed\.json"):
        for clip, raters in _json(tables[0]).items():
            votes[clip] = [_vote_of_columns(rater, answers, tables[0].name) for rater, answers in raters.items()]
    elif tables := _files(root, r"labels\.txt"):
        lines = enumerate(read_text(tables[0]).splitlines(), start=1)
        for _, head, answers in blocks((f"{tables[0].name}, line {count}", line) for count, line in lines):
            votes[head.who] = list(answers)
    return {clip: tuple(answers) for clip, answers in votes.items()}


def _vote(file: Path, row: Row) -> Vote:
    """A row of the table of votes: columns of its own for everything, or the rater's line whole in `EmoDetail`."""
    location = f"{file.name}, {row.location}"
    if "EmoDetail" in row.values:
        line = rating_line(row.values["EmoDetail"], location)
        if line is None:
            raise ReaderError(
                f"{location}: expected WORKER; word; words; A:3; V:3; D:3; got {row.values['EmoDetail']!r}"
            )
        return vote_of(line)
    rater = next((row.values[name] for name in WORKERS if row.values.get(name)), None)
    if rater is None:
        raise ReaderError(f"{file} has no column for the rater, which may be called {', '.join(WORKERS)}")
    return _vote_of_columns(rater, row.values, location)


def _vote_of_columns(rater: str, columns: Mapping[str, Any], location: str) -> Vote:
    names = {"arousal": "EmoAct", "valence": "EmoVal", "dominance": "EmoDom"}
    ratings = {dimension: number(columns.get(column), location) for dimension, column in names.items()}
    return make_vote(rater, columns.get("EmoClass_Major") or "", columns.get("EmoClass_Second") or "", ratings)


def _json(file: Path) -> dict[str, dict[str, Any]]:
    try:
        content = parse_json(read_text(file))
    except ValueError as error:
        raise ReaderError(f"{file}: not valid JSON: {error}") from None
    if not isinstance(content, dict) or not all(isinstance(value, dict) for value in content.values()):
        raise ReaderError(f"{file}: expected an object of objects, one for each file name")
    return content


def _partitions(root: Path) -> dict[str, str]:
    """File name -> official set, from lines such as `Test1; NAME.wav`: for tables of labels without Split_Set."""
    lines = [line for file in _files(root, r"Partitions?\.txt")[:1] for line in read_text(file).splitlines()]
    pairs = (line.split(";", 1) for line in lines if ";" in line)
    return {clip.strip(): part.strip() for part, clip in pairs}


def _split(value: str | None, test: TestSet, location: str) -> str | None:
    """The official set as train, dev or test; None for a test set that is not the chosen one."""
    word = (value or "").strip().lower()
    if word in {"", "train"}:
        return word or None
    if word in {"development", "validation"}:
        return "dev"
    if word.rstrip("123") != "test":
        raise ReaderError(f"{location}: expected Train, Development, Validation or Test1-3 as Split_Set, got {value!r}")
    return "test" if word in {"test", test} or test == "all" else None


def _emotion(code: Any, words: Mapping[str, str], location: str, hint: str) -> str | None:
    text = str(code if code is not None else "").strip()
    if not text:
        return None
    word = words.get(text, text.lower())
    if word not in {*EMOTIONS.values(), *words.values()}:
        raise ReaderError(f"{location}: unknown EmoClass {text!r}; known: {', '.join(words)}, or their words{hint}")
    return word


def _text_or_none(value: Any) -> str | None:
    text = str(value if value is not None else "").strip()
    return None if text.lower() in {"", "unknown", "nan"} else text


def _gender(value: Any) -> str | None:
    text = (_text_or_none(value) or "").lower()
    return text if text in {"female", "male"} else None


def _text(file: Path | None) -> str | None:
    return None if file is None else " ".join(read_text(file).split()) or None
