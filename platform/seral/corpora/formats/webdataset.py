"""WebDataset: tar files whose members with the same key are one sample, such as `clip7.wav` and `clip7.json`.

The key is the member's path up to the first dot of its name. Beside the audio, `.json` holds fields under their usual
names (`fields.ALIASES`), `.txt` the transcript and `.cls` the label. The audio stays in the tar. A split is told by the
path of the tar (`train/000.tar`, `data-test-000.tar`). Convention: github.com/webdataset/webdataset, README.
"""

from __future__ import annotations

import json
import tarfile
from collections.abc import Iterator, Mapping
from pathlib import Path, PurePosixPath
from typing import Any

from seral.audio.containers import Span
from seral.corpora.formats.folder import DECODABLE, TO_CONVERT
from seral.corpora.reading.fields import Fields, chosen_columns, known_columns, share_columns, split_of_path
from seral.corpora.reading.tree import AudioFile, audio_files
from seral.corpora.reading.utterance import Skipped, Utterance
from seral.errors import ReaderError

AUDIO = frozenset(suffix[1:] for suffix in DECODABLE | TO_CONVERT)
LABELS = {"cls": "emotion", "txt": "text"}
"""Members that hold one field, as text."""


def read_webdataset(
    root: Path, *, columns: Mapping[str, str] | None = None, corpus: str | None = None
) -> Iterator[Utterance | Skipped]:
    """Every sample of a tar, or of the tars below a folder. `columns` and `corpus` are as for the reader `manifest`."""
    if root.is_file():
        files = [AudioFile(path=root.resolve(), source=root.name)]
    else:
        files = audio_files(root, frozenset({".tar"}))
    if not files:
        raise ReaderError(f"no tar file below {root}: expected files named *.tar, for example train-000.tar")
    folder = root.resolve() if root.is_dir() else root.resolve().parent
    shards = [_Shard(file, columns or {}, corpus or folder.name) for file in files]
    items = [item for shard in shards for item in shard.items()]
    # Not every sample needs to have a field, but one that none has is a mistake.
    chosen_columns(str(root), {column for shard in shards for column in shard.present}, columns or {})
    yield from sorted(items, key=lambda item: item.source)


class _Shard:
    """One tar; `present` collects the fields that its samples have."""

    def __init__(self, file: AudioFile, columns: Mapping[str, str], corpus: str) -> None:
        self.file = file
        self.columns = columns
        self.corpus = corpus
        self.present: set[str] = set()

    def items(self) -> Iterator[Utterance | Skipped]:
        """The samples, in the order of the tar."""
        try:
            # Uncompressed only: the place of a clip in a compressed tar means nothing.
            with self.file.path.open("rb") as file, tarfile.open(fileobj=file, mode="r:") as tar:
                samples: dict[str, dict[str, tarfile.TarInfo]] = {}
                for member in tar:
                    if member.isfile() and not PurePosixPath(member.name).name.startswith("."):
                        key, extension = _key(member.name)
                        samples.setdefault(key, {})[extension] = member
                for key, members in samples.items():
                    yield from self._sample(tar, key, members)
        except tarfile.ReadError as error:
            raise ReaderError(
                f"{self.file.path} is no tar that can be read ({error}); unpack it if it is compressed"
            ) from None

    def _sample(
        self, tar: tarfile.TarFile, key: str, members: Mapping[str, tarfile.TarInfo]
    ) -> Iterator[Utterance | Skipped]:
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
        metadata = self._metadata(tar, members) if clips else {}
        for clip in clips:
            yield Utterance(
                audio=self.file.path,
                inside=Span(offset=clip.offset_data, size=clip.size),
                source=f"{self.file.source}/{clip.name}",
                corpus=self.corpus,
                name=key if len(clips) == 1 else clip.name,
                **metadata,
            )

    def _metadata(self, tar: tarfile.TarFile, members: Mapping[str, tarfile.TarInfo]) -> dict[str, Any]:
        """Metadata from the members beside the audio; a field of the JSON counts more than a member of its own."""
        values = self._json(tar, members["json"]) if "json" in members else {}
        self.present |= set(values)
        column_of = {field: column for field, column in (known_columns(values) | dict(self.columns)).items() if column}
        shares = () if "emotion" in self.columns else share_columns(values, column_of)
        location = f"{self.file.path}, {next(iter(members.values())).name}"
        metadata = Fields(location=location, values=values, named=column_of, shares=shares).metadata()
        for extension, field in LABELS.items():
            if extension in members and metadata[field] is None and self.columns.get(field) != "":
                metadata[field] = _text(tar, members[extension]) or None
        return metadata | {"split": metadata["split"] or split_of_path(self.file.source)}

    def _json(self, tar: tarfile.TarFile, member: tarfile.TarInfo) -> dict[str, Any]:
        try:
            values = json.loads(_text(tar, member))
        except json.JSONDecodeError as error:
            raise ReaderError(f"{self.file.path}, {member.name}: not valid JSON: {error}") from None
        if not isinstance(values, dict):
            kind = type(values).__name__
            raise ReaderError(f"{self.file.path}, {member.name}: expected an object {{...}}, got {kind}")
        return values


def _text(tar: tarfile.TarFile, member: tarfile.TarInfo) -> str:
    file = tar.extractfile(member)
    return file.read().decode("utf-8", errors="replace").strip() if file is not None else ""


def _key(name: str) -> tuple[str, str]:
    """`a/clip7.seg.json` -> (`a/clip7`, `seg.json`): the convention's first dot, lower-case extension."""
    path = PurePosixPath(name)
    stem, _, extension = path.name.partition(".")
    return str(path.with_name(stem)), extension.lower()
