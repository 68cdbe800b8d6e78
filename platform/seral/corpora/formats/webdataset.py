"""WebDataset: tar files whose members with the same key are one sample, such as `clip7.wav` and `clip7.json`.

The key is the member's path up to the first dot of its name. Beside the audio, `.json` holds fields under their usual
names (`fields.ALIASES`), `.txt` the transcript and `.cls` the label. The audio stays in the tar, which may be packed as
`.tar.gz`, `.tar.zst` or `.tar.bz2`. A split is told by the path of the tar (`train/000.tar`, `data-test-000.tar`).
Convention: github.com/webdataset/webdataset, README.
"""

from __future__ import annotations

import re
import tarfile
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path, PurePosixPath
from typing import Any, Unpack

import pyarrow as pa

from seral.audio.containers import PACKED, Span, unpack
from seral.corpora.reading.choices import Choices, Reading
from seral.corpora.reading.fields import split_of_path
from seral.corpora.reading.rows import Row
from seral.corpora.reading.tree import DECODABLE, TO_CONVERT, AudioFile, audio_files
from seral.corpora.reading.utterance import Skipped, Utterance
from seral.errors import ReaderError
from seral.security.text import limits, parse_json

AUDIO = frozenset(suffix[1:] for suffix in DECODABLE | TO_CONVERT)
LABELS = {"cls": "emotion", "txt": "text"}
"""Members that hold one field, as text."""
TEXTS_BYTES = 1 << 28
"""All members with text of one tar are no larger together: they stay in memory until its end."""
SUFFIXES = frozenset({".tar", *PACKED})
TAR = re.compile(r".*\.(tar(\.(gz|zst|bz2))?|tgz|tzst)", re.IGNORECASE)
"""Paths of tars, packed or not."""


@dataclass(frozen=True, kw_only=True)
class _Member:
    """One file in a tar."""

    name: str
    offset: int
    """Bytes before it in the tar, as that is when unpacked."""
    size: int
    text: str | None
    """Content of a member with fields; None for audio."""
    fault: str | None = None
    """Reason why a member with fields is not read."""


def read_webdataset(root: Path, **choices: Unpack[Choices]) -> Iterator[Utterance | Skipped]:
    """Every sample of a tar, or of the tars below a folder. Columns are the fields of its JSON."""
    if root.is_file():
        files: Sequence[AudioFile] = [AudioFile(path=root.resolve(), source=root.name)]
    else:
        files = [file for file in audio_files(root, SUFFIXES) if TAR.fullmatch(file.source)]
    if not files:
        raise ReaderError(f"no tar file below {root}: expected files named *.tar, for example train-000.tar")
    folder = root.resolve() if root.is_dir() else root.resolve().parent
    reading = Reading(choices, folder.name, None)
    reading.check_a_row_a_clip(str(root))
    present = set[str]()
    for file in files:
        shard = _Shard(file, reading)
        yield from shard.items()
        present |= shard.present
    # Not every sample needs to have a field, but one that none has is a mistake.
    reading.check(str(root), present)
    yield from reading.remainder()


class _Shard:
    """One tar; `present` collects the fields that its samples have."""

    def __init__(self, file: AudioFile, reading: Reading) -> None:
        self.file = file
        self.reading = reading
        self.packed = PACKED.get(PurePosixPath(file.source.lower()).suffix)
        self.present: set[str] = set()
        self._texts_bytes = 0

    def items(self) -> Iterator[Utterance | Skipped]:
        """The samples, in the order of the tar."""
        samples: dict[str, dict[str, _Member]] = {}
        try:
            with self._open() as tar:
                for info in tar:
                    if info.isfile() and not PurePosixPath(info.name).name.startswith("."):
                        key, extension = _key(info.name)
                        samples.setdefault(key, {})[extension] = self._member(tar, info, extension)
                    tar.members = []  # type: ignore[attr-defined]  # tarfile keeps every header it has read
        except (tarfile.TarError, OSError, EOFError, ValueError, OverflowError, pa.ArrowInvalid) as error:
            kinds = "a packed one is called .tar.gz, .tar.zst or .tar.bz2"
            raise ReaderError(f"{self.file.path} is no tar that can be read ({error}); {kinds}") from None
        for key, members in samples.items():
            yield from self._sample(key, members)

    @contextmanager
    def _open(self) -> Iterator[tarfile.TarFile]:
        with self.file.path.open("rb") as file:
            if self.packed is None:
                with tarfile.open(fileobj=file, mode="r:") as tar:
                    yield tar
            else:
                with unpack(file, self.packed) as stream, tarfile.open(fileobj=stream, mode="r|") as tar:
                    yield tar

    def _member(self, tar: tarfile.TarFile, info: tarfile.TarInfo, extension: str) -> _Member:
        text, fault = None, None
        if info.issparse():
            fault = "a sparse file, which takes more room than it has in the tar"
        elif extension in (*LABELS, "json"):
            if info.size > limits().characters:
                fault = f"{info.size:,} bytes of text, more than max_text_mb"
            else:
                file = tar.extractfile(info)
                text = file.read().decode("utf-8", errors="replace").strip() if file is not None else ""
                self._texts_bytes += info.size
        if self._texts_bytes > TEXTS_BYTES:
            raise ReaderError(
                f"{self.file.path} has more than {TEXTS_BYTES >> 20} MB of text: divide it into several tars"
            )
        return _Member(name=info.name, offset=info.offset_data, size=info.size, text=text, fault=fault)

    def _sample(self, key: str, members: Mapping[str, _Member]) -> Iterator[Utterance | Skipped]:
        clips = [member for extension, member in members.items() if extension in AUDIO]
        if not clips:
            member = next(iter(members.values()))
            yield Skipped(
                source=f"{self.file.source}/{member.name}",
                corpus=self.reading.corpus,
                reason="missing",
                detail=f"no audio among {', '.join(sorted(members))} of the sample {key}",
                size=member.size,
            )
        for clip in clips:
            source = f"{self.file.source}/{clip.name}"
            item = self._record(clip, members)
            if isinstance(item, Skipped):
                yield replace(item, source=source, size=clip.size)
                continue
            yield replace(
                item,
                inside=Span(offset=clip.offset, size=clip.size, packed=self.packed),
                source=source,
                name=key if len(clips) == 1 else clip.name,
                split=item.split or split_of_path(self.file.source),
            )

    def _record(self, clip: _Member, members: Mapping[str, _Member]) -> Utterance | Skipped:
        """A clip by the members beside it; a field of the JSON counts more than a member of its own."""
        values, fault = self._json(members["json"]) if "json" in members else ({}, None)
        for extension, member in members.items():
            if member is clip or extension in (*LABELS, "json"):
                fault = fault or (member.fault and f"{member.name}: {member.fault}")
        if fault is not None:
            return Skipped(
                source=clip.name, corpus=self.reading.corpus, reason="bad-text", detail=fault, size=clip.size
            )
        self.present |= set(values)
        values = dict.fromkeys(self.reading.rater_columns) | values
        columns = self.reading.table(str(self.file.path), set(values))
        fields = columns.fields(Row(location=next(iter(members.values())).name, values=values))
        weaker = {
            field: members[extension].text or None
            for extension, field in LABELS.items()
            if extension in members
            and self.reading.columns.get(field) != ""
            and not (field == "emotion" and columns.shares)
        }
        return self.reading.record(fields, AudioFile(path=self.file.path, source=clip.name), **weaker)

    def _json(self, member: _Member) -> tuple[dict[str, Any], str | None]:
        """The fields of a JSON member, or none and the reason."""
        if member.fault is not None:
            return {}, f"{member.name}: {member.fault}"
        try:
            values = parse_json(member.text or "")
        except ValueError as error:
            return {}, f"{member.name}: not valid JSON: {error}"
        if not isinstance(values, dict):
            return {}, f"{member.name}: expected an object {{...}}, got {type(values).__name__}"
        return values, None


def _key(name: str) -> tuple[str, str]:
    """`a/clip7.seg.json` -> (`a/clip7`, `seg.json`): the convention's first dot, lower-case extension."""
    path = PurePosixPath(name)
    stem, _, extension = path.name.partition(".")
    return str(path.with_name(stem)), extension.lower()
