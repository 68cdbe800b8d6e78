"""Exports of Label Studio: JSON, in which every annotation is a rater's answer, and JSON-MIN, with one a row.

The audio is named by the field `audio` of a task, else by the one whose value has the suffix of a sound file. Choices
of the control `emotion` (or `label`, or the only control with choices) are votes, the first one of several primary;
ratings and numbers called valence, arousal and dominance are the rater's, a text area is the transcript. Choices about
regions of the audio make an utterance of every region. Uploads and files of a local storage are looked for below the
folder by their path, then by their name. Skipped annotations do not count. Convention: labelstud.io, "Export formats".
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from dataclasses import replace
from pathlib import Path, PurePosixPath
from typing import Any, Unpack
from urllib.parse import parse_qs, unquote, urlsplit

from seral.corpora.formats.kaldi import located
from seral.corpora.reading.choices import Choices, Reading
from seral.corpora.reading.fields import ALIASES
from seral.corpora.reading.rows import Row, read_rows
from seral.corpora.reading.tree import DECODABLE, TO_CONVERT, AudioFile, audio_files, files_below
from seral.corpora.reading.utterance import Skipped, Utterance, Vote
from seral.corpora.reading.votes import joined_votes
from seral.errors import PoolError, ReaderError
from seral.schema import RATED

AUDIO = DECODABLE | TO_CONVERT
UPLOAD = re.compile(r"[0-9a-f]{8}-(?P<name>.+)")
"""Name of an uploaded file: a prefix, and the name that it had."""
Times = tuple[float | None, float | None]


def read_label_studio(root: Path, **choices: Unpack[Choices]) -> Iterator[Utterance | Skipped]:
    """The clips of an export's tasks, or of the one JSON export in a folder; columns are the fields of the tasks."""
    file = _export(root)
    folder = file.resolve().parent
    reading, present = Reading(choices, folder.name, None), set[str]()
    names = {file.path.name: file for file in audio_files(folder, AUDIO)}
    items: list[Utterance | Skipped] = []
    for location, data, answers in _tasks(file):
        address = _address(data)
        if address is None:
            raise ReaderError(f"{file}, {location}: no audio among {', '.join(sorted(data)) or 'no fields'}")
        audio = _audio(address, folder, names)
        for (start_s, end_s), (votes, text) in answers.items():
            values = {name: value for name, value in data.items() if value != address and not isinstance(value, dict)}
            values |= {"start_s": start_s, "end_s": end_s} | ({"text": text} if text else {})
            present |= set(values)
            fields = reading.fields(str(file), Row(location=location, values=values))
            items.append(reading.record(replace(fields, votes=votes) if votes else fields, audio))
    reading.check(str(file), present)
    yield from sorted(items, key=lambda item: item.source)
    yield from reading.remainder()


def is_label_studio(file: Path) -> bool:
    """Whether a JSON file has a task of Label Studio, or a row of JSON-MIN, first."""
    try:
        row = next((row.values for row in read_rows(file)), {})
    except PoolError:
        return False
    whole = isinstance(row.get("data"), dict) and isinstance(row.get("annotations"), list)
    return whole or {"annotation_id", "annotator", "id"} <= row.keys()


def _export(root: Path) -> Path:
    if not root.exists():
        raise ReaderError(f"there is no folder and no file at {root}")
    files = [root] if root.is_file() else [*filter(is_label_studio, files_below(root, r"[^/]+\.json(\.gz)?"))]
    if len(files) != 1:
        several = ", ".join(file.name for file in files)
        hint = f"has several: {several}; name one" if files else "expected its JSON, for example project-1.json"
        raise ReaderError(f"no export of Label Studio in {root}: {hint}" if not files else f"{root} {hint}")
    return files[0]


Answers = dict[Times, tuple[tuple[Vote, ...], str | None]]
"""Part of the audio -> votes on it, and its transcript."""


def _tasks(file: Path) -> Iterator[tuple[str, Mapping[str, Any], Answers]]:
    """Location, fields and answers of each task; the rows of JSON-MIN about one task are one."""
    minimal: dict[str, tuple[str, dict[str, Any], Answers]] = {}
    for row in read_rows(file):
        data = row.values.get("data")
        if isinstance(data, dict):
            yield row.location, _of_task(row.values), _whole(row.values.get("annotations") or [])
            continue
        _, fields, answers = minimal.setdefault(str(row.values.get("id")), (row.location, {}, {}))
        controls = {name: _plain(value) for name, value in row.values.items()}
        rater = row.values.get("annotator")
        for times, answer in _of_row(row.values, None if rater is None else str(rater)).items():
            _merge(answers, times, answer)
        rated = {*RATED, *_emotion_controls(controls), "id"} if rater is not None else {"id"}
        fields |= {name: value for name, value in controls.items() if name not in rated and name not in OF_EXPORT}
    yield from minimal.values()


OF_EXPORT = {"annotator", "annotation_id", "created_at", "updated_at", "lead_time"}
"""Fields of JSON-MIN that say nothing of the clip."""


def _of_task(task: Mapping[str, Any]) -> dict[str, Any]:
    data: dict[str, Any] = task["data"]
    return data | ({"id": data["utterance_id"]} if "utterance_id" in data else {})


def _whole(annotations: list[Mapping[str, Any]]) -> Answers:
    answers: Answers = {}
    for annotation in annotations:
        if annotation.get("was_cancelled"):
            continue
        parts: dict[Times, dict[str, Any]] = {}
        for result in annotation.get("result") or []:
            value = result.get("value") or {}
            controls = parts.setdefault((value.get("start"), value.get("end")), {})
            controls[str(result.get("from_name"))] = _plain(value)
        for times, controls in parts.items():
            _merge(answers, times, _answer(controls, _person(annotation.get("completed_by"))))
    if len(answers) > 1:  # what was said of the whole is no utterance beside its regions
        answers.pop((None, None), None)
    return answers or {(None, None): ((), None)}


def _of_row(row: Mapping[str, Any], rater: str | None) -> Answers:
    regions = [part for value in row.values() if isinstance(value, list) for part in value if isinstance(part, dict)]
    parts = {(part["start"], part["end"]): part for part in regions if {"start", "end"} <= part.keys()}
    answers: Answers = {}
    for times, part in parts.items():
        _merge(answers, times, _answer({"emotion": _plain(part)}, rater))
    if not parts:
        plain = {name: _plain(value) for name, value in row.items() if name not in {*OF_EXPORT, "id"}}
        answers[None, None] = _answer(plain if rater is not None else {}, rater)
    return answers


def _merge(answers: Answers, times: Times, more: tuple[tuple[Vote, ...], str | None]) -> None:
    votes, text = answers.get(times, ((), None))
    answers[times] = joined_votes(votes, more[0]), text or more[1]


def _plain(value: Any) -> Any:
    """Answer of a control: its words as a list, or its number."""
    if not isinstance(value, dict):
        return value
    return next((value[name] for name in ("choices", "labels", "rating", "number", "text") if name in value), None)


def _answer(controls: Mapping[str, Any], rater: str | None) -> tuple[tuple[Vote, ...], str | None]:
    """The vote in the controls of one annotation, none where it names no emotion and no rating; and the transcript."""
    words = next((_words(controls[name]) for name in _emotion_controls(controls)), [])
    ratings: dict[str, Any] = {name: _number(controls[name]) for name in RATED if name in controls}
    texts = [_words(controls[name]) for name in ALIASES["text"] if name in controls]
    text = " ".join(texts[0]) if texts else None
    if not words and not any(rating is not None for rating in ratings.values()):
        return (), text
    more = [*words[1:], *_words(controls.get("secondary"))]
    vote = Vote(rater=rater, emotion=words[0] if words else None, secondary=tuple(more))
    return (replace(vote, **ratings),), text


def _emotion_controls(controls: Mapping[str, Any]) -> list[str]:
    """Controls that say the emotion: the one that is called so, else the only one with words."""
    named = [name for alias in ALIASES["emotion"] for name in controls if name.lower() == alias]
    listed = [name for name, value in controls.items() if isinstance(value, list) and name not in ALIASES["text"]]
    return named or (listed if len(listed) == 1 else [])


def _words(value: Any) -> list[str]:
    values = value if isinstance(value, list) else [value]
    return [word for word in values if isinstance(word, str) and word]


def _number(value: Any) -> float | None:
    return float(value) if isinstance(value, int | float) and not isinstance(value, bool) else None


def _person(user: Any) -> str | None:
    """An email or a name where the export tells one, else the number of the user."""
    person = (user.get("email") or user.get("username") or user.get("id")) if isinstance(user, dict) else user
    return None if person is None else str(person)


def _address(data: Mapping[str, Any]) -> str | None:
    texts = {name: value for name, value in data.items() if isinstance(value, str)}
    named = [name for name in ALIASES["audio"] if name in texts]
    suffixed = [name for name, value in texts.items() if PurePosixPath(_path(value)).suffix.lower() in AUDIO]
    return next((texts[name] for name in [*named, *suffixed]), None)


def _path(address: str) -> str:
    """The path in an address: `/data/local-files/?d=PATH` names one by its question."""
    parts = urlsplit(address)
    return parse_qs(parts.query).get("d", [unquote(parts.path)])[0]


def _audio(address: str, folder: Path, names: Mapping[str, AudioFile]) -> AudioFile:
    if "://" in address and not address.startswith(("http://", "https://")):
        return located(address, [folder], folder)
    path = PurePosixPath(_path(address))
    upload = UPLOAD.fullmatch(path.name)
    for name in (path.name, upload["name"] if upload else ""):
        if name in names:
            inside = folder / path.as_posix().lstrip("/")
            whole = located(inside.as_posix(), [folder], folder)
            return whole if inside.is_file() else names[name]
    return located(path.as_posix().lstrip("/"), [folder], folder)
