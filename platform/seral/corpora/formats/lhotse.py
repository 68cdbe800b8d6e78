"""Lhotse manifests: cuts, or recordings with supervisions, in `.jsonl` or `.jsonl.gz`; the package is not needed.

A supervision is an utterance, and one without a supervision is the whole cut or recording. Custom fields, such as
`emotion`, are columns; those of a supervision count before those of its cut. A recording's path starts where the file
is there: beside the manifest, or in the folder above. Mixed cuts, and audio from commands or out of memory, are set
aside. Convention: lhotse.readthedocs.io, "Representing a corpus".
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, Unpack

from seral.corpora.formats.kaldi import located
from seral.corpora.reading.choices import Choices, Reading
from seral.corpora.reading.fields import split_of_path
from seral.corpora.reading.rows import Row, read_rows
from seral.corpora.reading.tree import audio_files, files_below
from seral.corpora.reading.utterance import Skipped, Utterance
from seral.errors import PoolError, ReaderError

MANIFEST = r"(.*/)?[^/]*\.jsonl(\.gz)?"
CHANNELS = ("left", "right")
NEAR_S = 0.001
"""Difference at which an end is that of the recording: numbers of manifests are rounded."""


def read_lhotse(root: Path, **choices: Unpack[Choices]) -> Iterator[Utterance | Skipped]:
    """The utterances of a manifest, or of those below a folder: its cuts, where there are any."""
    if root.is_file():
        folder, files = root.resolve().parent, [root.resolve()]
    else:
        audio_files(root, frozenset())  # refuses what is no folder
        folder, files = root.resolve(), files_below(root, MANIFEST)
    by_kind: dict[str, list[Path]] = {}
    for file in files:
        by_kind.setdefault(kind_of(file) or "", []).append(file)
    if root.is_file() and "supervision" in by_kind:
        beside = [file for file in sorted(folder.iterdir()) if file.name.endswith((".jsonl", ".jsonl.gz"))]
        by_kind["recording"] = [file for file in beside if kind_of(file) == "recording"]
    if not by_kind.keys() & {"cut", "recording"}:
        raise ReaderError(f"no manifest of Lhotse in {root}: expected cuts or recordings, for example cuts.jsonl.gz")
    reading = Reading(choices, folder.name, None)
    manifests = _Manifests(folder, reading)
    items = [*(manifests.cuts(by_kind["cut"]) if "cut" in by_kind else manifests.recordings(by_kind))]
    reading.check(str(root), manifests.present)
    yield from sorted(items, key=lambda item: (item.source, getattr(item, "name", "")))
    yield from reading.remainder()


def kind_of(file: Path) -> str | None:
    """The kind of Lhotse's manifests that a file is: cut, recording or supervision; None for any other."""
    try:
        row = next((row.values for row in read_rows(file)), {})
    except PoolError:
        return None
    if str(row.get("type", "")).endswith("Cut"):
        return "cut"
    if {"sources", "sampling_rate", "num_samples"} <= row.keys():
        return "recording"
    return "supervision" if {"id", "recording_id", "start", "duration"} <= row.keys() else None


class _Manifests:
    """Manifests of one folder; `present` collects the columns."""

    def __init__(self, folder: Path, reading: Reading) -> None:
        self.folder, self.reading = folder, reading
        self.present: set[str] = set()

    def cuts(self, files: Sequence[Path]) -> Iterator[Utterance | Skipped]:
        """Utterances of cuts."""
        for file in files:
            for row in read_rows(file):
                cut = row.values
                if cut.get("type") not in ("MonoCut", "MultiCut") or not cut.get("recording"):
                    detail = f"{file.name}, {row.location}: a {cut.get('type')} is not one part of one recording"
                    yield self._skipped(str(cut.get("id")), detail)
                    continue
                for part in cut.get("supervisions") or [{}]:
                    start_s = float(cut["start"]) + float(part.get("start", 0.0))
                    channel = part.get("channel", cut.get("channel"))
                    duration = part.get("duration", cut["duration"])
                    about = _about(cut) | _about(part) | {"start": start_s, "duration": duration, "channel": channel}
                    yield self._utterance(file, row.location, cut["recording"], about)

    def recordings(self, by_kind: Mapping[str, Sequence[Path]]) -> Iterator[Utterance | Skipped]:
        """Utterances of recordings and their supervisions; those of a supervision without a recording are left out."""
        parts: dict[str, list[dict[str, Any]]] = {}
        for file in by_kind.get("supervision", ()):
            for row in read_rows(file):
                about = _about(row.values) | {name: row.values.get(name) for name in ("start", "duration", "channel")}
                parts.setdefault(str(row.values["recording_id"]), []).append(about)
        for file in by_kind["recording"]:
            for row in read_rows(file):
                whole = {"id": row.values["id"], "start": 0.0, "duration": row.values.get("duration")}
                for about in parts.pop(str(row.values["id"]), [whole]):
                    yield self._utterance(file, row.location, row.values, about)
        for name, left in parts.items():
            yield from (self._skipped(str(about["id"]), f"there is no recording {name}", "no-audio") for about in left)

    def _utterance(
        self, file: Path, location: str, recording: Mapping[str, Any], about: dict[str, Any]
    ) -> Utterance | Skipped:
        sources = recording.get("sources") or [{}]
        name = str(about.get("id"))
        if len(sources) != 1 or sources[0].get("type") not in ("file", "url"):
            kinds = " and ".join(str(source.get("type")) for source in sources)
            return self._skipped(name, f"its audio is of the kind {kinds}; save the audio to files by Lhotse first")
        if problem := _no_numbers(about, recording):
            raise ReaderError(f"{file}, {location}: {problem}")
        start_s, end_s = float(about.pop("start")), None
        if about.get("duration") is not None:
            end_s = start_s + float(about["duration"])
        if end_s is not None and abs(end_s - float(recording.get("duration", -1.0))) < NEAR_S:
            end_s = None
        about.pop("duration", None)
        about |= {"start_s": start_s or None, "end_s": end_s if end_s is None else round(end_s, 6)}
        channels, channel = sources[0].get("channels") or [0], about.pop("channel", None)
        channel = channel[0] if isinstance(channel, list) and len(channel) == 1 else channel
        if len(channels) > 1 and isinstance(channel, int) and 0 <= channel < len(CHANNELS):
            about["audio_channel"] = CHANNELS[channel]
        if end_s is not None and not start_s:
            about["start_s"] = 0.0
        self.present |= set(about)
        fields = self.reading.fields(str(file), Row(location=location, values=about))
        audio = located(str(sources[0]["source"]), [file.parent, self.folder, self.folder.parent], self.folder)
        inside = file.relative_to(self.folder).as_posix() if file.is_relative_to(self.folder) else file.name
        return self.reading.record(fields, audio, split=split_of_path(inside))

    def _skipped(self, name: str, detail: str, reason: str = "missing") -> Skipped:
        return Skipped(source=name, corpus=self.reading.corpus, reason=reason, detail=detail, size=-1)


def _about(item: Mapping[str, Any]) -> dict[str, Any]:
    """The custom fields of a cut or a supervision, and those that say who speaks and what."""
    usual = {name: item[name] for name in ("id", "speaker", "gender", "language", "text") if item.get(name) is not None}
    custom = item.get("custom")
    return {name: value for name, value in (custom or {}).items() if not isinstance(value, dict)} | usual


def _no_numbers(about: Mapping[str, Any], recording: Mapping[str, Any]) -> str | None:
    for name, value in {
        **{key: about.get(key) for key in ("start", "duration")},
        "whole": recording.get("duration"),
    }.items():
        if value is not None and not isinstance(value, int | float):
            return f"{name}: expected a number, got {value!r}"
    return None
