"""WebDataset: tar files whose members with the same key are one sample, such as `clip7.wav` and `clip7.json`.

The key is the member's path up to the first dot of its name. Beside the audio, `.json` holds fields under their usual
names (`fields.ALIASES`), `.txt` the transcript and `.cls` the label. The audio stays in the tar, which may be packed as
`.tar.gz`, `.tar.zst` or `.tar.bz2`. A split is told by the path of the tar (`train/000.tar`, `data-test-000.tar`).
Convention: github.com/webdataset/webdataset, README.
"""

from __future__ import annotations

import json
import re
import tarfile
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Any

import pyarrow as pa

from seral.audio.containers import PACKED, Span, unpack
from seral.corpora.reading.fields import Fields, chosen_columns, known_columns, share_columns, split_of_path
from seral.corpora.reading.tree import DECODABLE, TO_CONVERT, AudioFile, audio_files
from seral.corpora.reading.utterance import Skipped, Utterance
from seral.errors import ReaderError

AUDIO = frozenset(suffix[1:] for suffix in DECODABLE | TO_CONVERT)
LABELS = {"cls": "emotion", "txt": "text"}
"""Members that hold one field, as text."""
TEXT_BYTES = 1 << 24
"""A member with text is no larger."""
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


def read_webdataset(
    root: Path, *, columns: Mapping[str, str] | None = None, corpus: str | None = None
) -> Iterator[Utterance | Skipped]:
    """Every sample of a tar, or of the tars below a folder. `columns` and `corpus` are as for the reader `manifest`."""
    if root.is_file():
        files: Sequence[AudioFile] = [AudioFile(path=root.resolve(), source=root.name)]
    else:
        files = [file for file in audio_files(root, SUFFIXES) if TAR.fullmatch(file.source)]
    if not files:
        raise ReaderError(f"no tar file below {root}: expected files named *.tar, for example train-000.tar")
    folder = root.resolve() if root.is_dir() else root.resolve().parent
    present = set[str]()
    for file in files:
        shard = _Shard(file, columns or {}, corpus or folder.name)
        yield from shard.items()
        present |= shard.present
    # Not every sample needs to have a field, but one that none has is a mistake.
    chosen_columns(str(root), present, columns or {})


class _Shard:
    """One tar; `present` collects the fields that its samples have."""

    def __init__(self, file: AudioFile, columns: Mapping[str, str], corpus: str) -> None:
        self.file = file
        self.columns = columns
        self.corpus = corpus
        self.packed = PACKED.get(PurePosixPath(file.source.lower()).suffix)
        self.present: set[str] = set()

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
        except (tarfile.TarError, OSError, EOFError, pa.ArrowInvalid) as error:
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
        text = None
        if extension in (*LABELS, "json"):
            if info.size > TEXT_BYTES:
                raise ReaderError(f"{self.file.path}, {info.name}: {info.size} bytes of text, at most {TEXT_BYTES}")
            file = tar.extractfile(info)
            text = file.read().decode("utf-8", errors="replace").strip() if file is not None else ""
        return _Member(name=info.name, offset=info.offset_data, size=info.size, text=text)

    def _sample(self, key: str, members: Mapping[str, _Member]) -> Iterator[Utterance | Skipped]:
        clips = [member for extension, member in members.items() if extension in AUDIO]
        if not clips:
            member = next(iter(members.values()))
            yield Skipped(
                source=f"{self.file.source}/{member.name}",
                corpus=self.corpus,
                reason="missing",
                detail=f"no audio among {', '.join(sorted(members))} of the sample {key}",
                size=member.size,
            )
        metadata = self._metadata(members) if clips else {}
        for clip in clips:
            yield Utterance(
                audio=self.file.path,
                inside=Span(offset=clip.offset, size=clip.size, packed=self.packed),
                source=f"{self.file.source}/{clip.name}",
                corpus=self.corpus,
                name=key if len(clips) == 1 else clip.name,
                **metadata,
            )

    def _metadata(self, members: Mapping[str, _Member]) -> dict[str, Any]:
        """Metadata from the members beside the audio; a field of the JSON counts more than a member of its own."""
        values = self._json(members["json"]) if "json" in members else {}
        self.present |= set(values)
        column_of = {field: column for field, column in (known_columns(values) | dict(self.columns)).items() if column}
        shares = () if "emotion" in self.columns else share_columns(values, column_of)
        location = f"{self.file.path}, {next(iter(members.values())).name}"
        metadata = Fields(location=location, values=values, named=column_of, shares=shares).metadata()
        for extension, field in LABELS.items():
            if extension in members and metadata[field] is None and self.columns.get(field) != "":
                metadata[field] = members[extension].text or None
        return metadata | {"split": metadata["split"] or split_of_path(self.file.source)}

    def _json(self, member: _Member) -> dict[str, Any]:
        try:
            values = json.loads(member.text or "")
        except json.JSONDecodeError as error:
            raise ReaderError(f"{self.file.path}, {member.name}: not valid JSON: {error}") from None
        if not isinstance(values, dict):
            kind = type(values).__name__
            raise ReaderError(f"{self.file.path}, {member.name}: expected an object {{...}}, got {kind}")
        return values


def _key(name: str) -> tuple[str, str]:
    """`a/clip7.seg.json` -> (`a/clip7`, `seg.json`): the convention's first dot, lower-case extension."""
    path = PurePosixPath(name)
    stem, _, extension = path.name.partition(".")
    return str(path.with_name(stem)), extension.lower()
