"""Kaldi data folders: `wav.scp` and, beside it, `segments`, `utt2spk`, `text`, `spk2gender` and other `utt2X`, `spk2X`.

What `utt2X` says is the column X of an utterance, what `spk2X` says that of all of a speaker: `utt2emo`, `utt2lang`,
`utt2votes` (JSON). A folder for every split may lie below the root. No command of a `wav.scp` is run: one that only
unpacks a file (`flac -c -d -s FILE |`, `sox FILE -t wav - |`) is that file, any other is an error. Paths start where
the file is there: in the data folder, in the root, or beside that. Convention: kaldi-asr.org/doc/data_prep.html.
"""

from __future__ import annotations

import re
import shlex
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Unpack

from seral.audio.address import path_of
from seral.corpora.reading.choices import Choices, Reading
from seral.corpora.reading.fields import split_of_path
from seral.corpora.reading.rows import Row, open_text
from seral.corpora.reading.tree import AudioFile, files_below
from seral.corpora.reading.utterance import Skipped, Utterance
from seral.errors import ReaderError
from seral.security.text import lines_of

AUDIO_LIST = "wav.scp"
NAMED = {"text": "text", "utt2lang": "language", "utt2uniq": None, "utt2num_frames": None}
"""Files with names of their own -> our name, None for those that say nothing of the speech."""
TABLE = re.compile(r"(?P<of>utt|spk)2(?P<column>\w+)")
UNPACKING = re.compile(
    r"flac( -[cds]+| --(?:stdout|decode|silent))* (?P<flac>\S+) \|"
    r"|sox( -[GV]\d?)* (?P<sox>\S+)( -(?:t|b|r|c|e) [\w.-]+)* - \||cat (?P<cat>\S+) \|"
)
"""Commands that give the audio of one file, in words divided by one space."""


def read_kaldi(root: Path, **choices: Unpack[Choices]) -> Iterator[Utterance | Skipped]:
    """The utterances of a data folder, or of all below a folder, by their sources; columns are the X of `utt2X`."""
    if not root.exists():
        raise ReaderError(f"{root} is not a folder")
    lists = files_below(root, rf"(.*/)?{re.escape(AUDIO_LIST)}") if root.is_dir() else []
    if not lists:
        raise ReaderError(f"no Kaldi data below {root}: expected a file {AUDIO_LIST}, for example train/{AUDIO_LIST}")
    reading, items, present = Reading(choices, root.resolve().name, None), list[Utterance | Skipped](), set[str]()
    for file in lists:
        data = _Data(file, root.resolve())
        split = split_of_path(file.parent.relative_to(root.resolve()).as_posix())
        items += data.items(reading, split)
        present |= data.columns
    reading.check(str(root), present)
    yield from sorted(items, key=lambda item: (item.source, getattr(item, "name", "")))
    yield from reading.remainder()


class _Data:
    """One data folder."""

    def __init__(self, file: Path, root: Path) -> None:
        self.file, self.folder, self.root = file, file.parent, root
        self.recordings = {key: self._audio(number, address) for number, key, address in _lines(file)}
        self.segments = self._segments()
        by_utterance, by_speaker = dict[str, dict[str, str]](), dict[str, dict[str, str]]()
        for table in sorted(self.folder.iterdir()):
            match = TABLE.fullmatch(table.name)
            column = NAMED.get(table.name, match["column"] if match else None)
            if column is None or column == "utt":
                continue
            rows = by_speaker if match and match["of"] == "spk" else by_utterance
            column = {"spk": "speaker", "dur": None}.get(column, column) if match else column
            for _, key, value in _lines(table) if column else ():
                rows.setdefault(key, {})[str(column)] = value
        self.values, self.of_speaker = by_utterance, by_speaker
        self.columns = {column for rows in (by_utterance, by_speaker) for values in rows.values() for column in values}

    def items(self, reading: Reading, split: str | None) -> Iterator[Utterance | Skipped]:
        """The utterances, then those that a table names and that have no audio."""
        for name, (recording, times) in self.segments.items():
            audio = self.recordings.get(recording)
            values = self.values.get(name, {})
            if audio is None:
                detail = f"segments in {self.folder.name} names the recording {recording}, which {AUDIO_LIST} does not"
                yield Skipped(source=name, corpus=reading.corpus, reason="no-audio", detail=detail, size=-1)
                continue
            values = self.of_speaker.get(values.get("speaker", name), {}) | values | times | {"id": name}
            if values.get("speaker") == name:  # the convention for one who is not known
                del values["speaker"]
            fields = reading.fields(str(self.folder), Row(location=f"utterance {name}", values=values))
            yield reading.record(fields, audio, split=split)
        for name in sorted(self.values.keys() - self.segments.keys()):
            detail = f"a table in {self.folder.name} says something of {name}, which has no audio"
            yield Skipped(source=name, corpus=reading.corpus, reason="no-audio", detail=detail, size=-1)

    def _segments(self) -> dict[str, tuple[str, dict[str, Any]]]:
        """Utterance -> its recording, and start and end where it is a part of that."""
        file = self.folder / "segments"
        if not file.is_file():
            return {name: (name, {}) for name in self.recordings}
        segments = {}
        for number, name, words in _lines(file):
            parts = words.split()
            if len(parts) != 3:
                raise ReaderError(f"{file}, line {number}: expected utterance, recording, start and end")
            times = {"start_s": parts[1], "end_s": None if parts[2] == "-1" else parts[2]}
            segments[name] = parts[0], times
        return segments

    def _audio(self, number: int, address: str) -> AudioFile:
        words = " ".join(address.split())
        match = UNPACKING.fullmatch(words)
        path = next(filter(None, match.group("flac", "sox", "cat")), "") if match else address.strip()
        if path.endswith("|") or re.search(r"\.ark:\d+$", path) or path == "-":
            raise ReaderError(
                f"{self.file}, line {number}: {path!r} is no file, and no command is run: "
                "write its audio to a file (wav-copy of Kaldi does), and name that"
            )
        (path,) = shlex.split(path) if match else (path,)
        return located(path, [self.folder, self.root, self.root.parent], self.root)


def located(path: str, starts: list[Path], root: Path) -> AudioFile:
    """The audio of a path, which starts in the first of some folders where there is such a file, else in the first."""
    whole = "://" in path or Path(path).is_absolute()
    candidates = [path_of(path)] if whole else [start / path for start in starts]
    audio = next((file for file in candidates[1:] if not candidates[0].is_file() and file.is_file()), candidates[0])
    return AudioFile(path=audio, source=(audio.relative_to(root) if audio.is_relative_to(root) else audio).as_posix())


def _lines(file: Path) -> Iterator[tuple[int, str, str]]:
    """Number, key and value of every line."""
    try:
        with open_text(file) as text:
            for number, line in enumerate(lines_of(text), start=1):
                key, _, value = line.strip().partition(" ")
                key, value = line.split(maxsplit=1) if "\t" in key else (key, value)
                if key and value.strip():
                    yield number, key, value.strip()
    except UnicodeDecodeError as error:
        raise ReaderError(f"{file} is not UTF-8 text ({error.reason}); save it as UTF-8") from None
    except ValueError as error:
        raise ReaderError(f"{file}: {error}") from None
