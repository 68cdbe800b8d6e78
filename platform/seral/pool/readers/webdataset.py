"""WebDataset: tar files whose members with the same key are one sample, such as `clip7.wav` and `clip7.json`.

The key is the member's path up to the first dot of its name. Beside the audio, `.json` holds fields under their usual
names (`fields.ALIASES`), `.txt` the transcript and `.cls` the label. The audio stays in the tar. A split is told by the
path of the tar (`train/000.tar`, `data-test-000.tar`). Convention: github.com/webdataset/webdataset, README.
"""

from __future__ import annotations

import json
import tarfile
from collections.abc import Iterator
from pathlib import Path, PurePosixPath
from typing import Any

from seral.errors import ReaderError
from seral.pool.containers import Span
from seral.pool.readers.fields import Fields, known_columns, share_columns, split_of_path
from seral.pool.readers.folder import DECODABLE, TO_CONVERT
from seral.pool.readers.tree import AudioFile, audio_files
from seral.pool.readers.utterance import Skipped, Utterance

AUDIO = frozenset(suffix[1:] for suffix in DECODABLE | TO_CONVERT)
LABELS = {"cls": "emotion", "txt": "text"}
"""Members that hold one field, as text."""


def read_webdataset(root: Path, *, corpus: str | None = None) -> Iterator[Utterance | Skipped]:
    """Every sample of a tar, or of the tars below a folder. The corpus is `corpus`, else the folder's name."""
    if root.is_file():
        shards = [AudioFile(path=root.resolve(), source=root.name)]
    else:
        shards = audio_files(root, frozenset({".tar"}))
    if not shards:
        raise ReaderError(f"no tar file below {root}: expected files named *.tar, for example train-000.tar")
    folder = root.resolve() if root.is_dir() else root.resolve().parent
    found = [item for shard in shards for item in _read_shard(shard, corpus or folder.name)]
    yield from sorted(found, key=lambda item: item.source)


def _read_shard(shard: AudioFile, corpus: str) -> Iterator[Utterance | Skipped]:
    try:
        # Uncompressed only: the place of a clip in a compressed tar means nothing.
        with tarfile.open(shard.path, "r:") as tar:
            samples: dict[str, dict[str, tarfile.TarInfo]] = {}
            for member in tar:
                if member.isfile() and not PurePosixPath(member.name).name.startswith("."):
                    key, extension = _key(member.name)
                    samples.setdefault(key, {})[extension] = member
            for key, members in samples.items():
                yield from _sample(shard, tar, key, members, corpus)
    except tarfile.ReadError as error:
        raise ReaderError(f"{shard.path} is no tar that can be read ({error}); unpack it if it is compressed") from None


def _sample(
    shard: AudioFile, tar: tarfile.TarFile, key: str, members: dict[str, tarfile.TarInfo], corpus: str
) -> Iterator[Utterance | Skipped]:
    clips = [member for extension, member in members.items() if extension in AUDIO]
    if not clips:
        member = next(iter(members.values()))
        detail = f"no audio among {', '.join(sorted(members))} of the sample {key}"
        yield Skipped(
            source=f"{shard.source}/{member.name}", corpus=corpus, reason="missing", detail=detail, size=member.size
        )
    known = _known(shard, tar, members)
    for clip in clips:
        yield Utterance(
            audio=shard.path,
            inside=Span(offset=clip.offset_data, size=clip.size),
            source=f"{shard.source}/{clip.name}",
            corpus=corpus,
            name=key if len(clips) == 1 else clip.name,
            **known,
        )


def _known(shard: AudioFile, tar: tarfile.TarFile, members: dict[str, tarfile.TarInfo]) -> dict[str, Any]:
    values = _json(shard, tar, members["json"]) if "json" in members else {}
    named = {field: column for field, column in known_columns(values).items() if field not in {"audio", "name"}}
    place = f"{shard.path}, {next(iter(members.values())).name}"
    fields = Fields(place=place, values=values, named=named, shares=share_columns(values, named))
    known = fields.known()
    told = {field: _text(tar, members[extension]) for extension, field in LABELS.items() if extension in members}
    known = told | {field: value for field, value in known.items() if value is not None or field not in told}
    return known | {"split": known["split"] or split_of_path(shard.source)}


def _json(shard: AudioFile, tar: tarfile.TarFile, member: tarfile.TarInfo) -> dict[str, Any]:
    try:
        values = json.loads(_text(tar, member))
    except json.JSONDecodeError as error:
        raise ReaderError(f"{shard.path}, {member.name}: not valid JSON: {error}") from None
    if not isinstance(values, dict):
        raise ReaderError(f"{shard.path}, {member.name}: expected an object {{...}}, got {type(values).__name__}")
    return values


def _text(tar: tarfile.TarFile, member: tarfile.TarInfo) -> str:
    file = tar.extractfile(member)
    return file.read().decode("utf-8", errors="replace").strip() if file is not None else ""


def _key(name: str) -> tuple[str, str]:
    """`a/clip7.seg.json` -> (`a/clip7`, `seg.json`): the convention's first dot, lower-case extension."""
    path = PurePosixPath(name)
    stem, _, extension = path.name.partition(".")
    return str(path.with_name(stem)), extension.lower()
