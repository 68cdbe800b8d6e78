"""A table of any corpus: JSONL, JSON, CSV, TSV (also `.gz`) or Parquet.

One row is an utterance, or a segment of a longer recording.

Columns are found by their usual names (`fields.ALIASES`, whatever the case; the first alias that is there wins) or
named by the caller: `columns={"emotion": "my_label"}`, with an empty name to leave a column out. Only the audio is
required. The manifests of EmoBox, SpeechBrain, s3prl, peft-ser, nkululeko and EMO-SUPERB are read as they are.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Unpack

from seral.audio.address import path_of
from seral.corpora.reading.choices import Choices, Reading
from seral.corpora.reading.fields import ALIASES, Fields
from seral.corpora.reading.rows import PACKED, TABLE_FORMATS, columns_present, read_rows
from seral.corpora.reading.tree import AudioFile
from seral.corpora.reading.utterance import Skipped, Utterance
from seral.errors import ReaderError

MANIFEST_STEMS = ("manifest", "metadata")
DATA_ROOT = "{data_root}/"
"""SpeechBrain's word for the folder of the corpus; taken for the folder that relative paths start in."""


class ManifestChoices(Choices, total=False):
    """Reader options of `manifest`."""

    audio_root: str | None
    """Folder that relative paths of audio start in, instead of the table's."""


def read_manifest(root: Path, **choices: Unpack[ManifestChoices]) -> Iterator[Utterance | Skipped]:
    """Utterances of a manifest file, or of the one in a folder, in the order of the rows.

    Relative audio paths start at the manifest, or in `audio_root`. The corpus is `corpus` if given, else the row's,
    else the folder's name.
    """
    file = _manifest_file(root)
    present = columns_present(file)
    folder = file.resolve().parent
    audio_root = choices.get("audio_root")
    base = folder if audio_root is None else path_of(audio_root).resolve()
    if not base.is_dir():
        raise ReaderError(f"audio_root {base} is not a folder")
    reading = Reading(choices, folder.name or "manifest", present)
    columns = reading.table(str(file), present)
    if "audio" not in columns.named:
        raise ReaderError(
            f"{file} has no column for the audio, which may be called {', '.join(ALIASES['audio'])}; "
            f"it has: {', '.join(sorted(present))}. Name it: --column audio=COLUMN"
        )
    for fields in columns.clips(lambda: read_rows(file)):  # a second time: nothing of a long list is kept
        yield reading.record(fields, audio_of(fields, base, base))
    yield from reading.remainder()


def audio_of(fields: Fields, start: Path, base: Path) -> AudioFile:
    """The audio that a row names, relative to `start`; its source is the path inside `base`, if it lies there."""
    path = _audio(fields)
    audio = path_of(path) if "://" in path or Path(path).is_absolute() else start / path
    return AudioFile(path=audio, source=(audio.relative_to(base) if audio.is_relative_to(base) else audio).as_posix())


def _manifest_file(root: Path) -> Path:
    if not root.is_dir():
        return root
    names = [f"{stem}{suffix}" for stem in MANIFEST_STEMS for suffix in TABLE_FORMATS]
    for name in [*names, *(f"{name}{PACKED}" for name in names)]:
        if (root / name).is_file():
            return root / name
    raise ReaderError(f"no manifest in {root}: expected a file named {', '.join(names)}, for example {root / names[0]}")


def _audio(fields: Fields) -> str:
    value = fields.value("audio")
    if value is None or value == "":
        fields.fail("audio", "no path")
    if not isinstance(value, str):
        fields.fail("audio", f"expected a path, got {type(value).__name__} (for audio in Parquet: reader hf-parquet)")
    return value.removeprefix(DATA_ROOT)
