"""A table of any corpus: JSONL, JSON, CSV, TSV or Parquet, one row an utterance (or a segment of a longer recording).

Columns are found by their usual names (`fields.ALIASES`, whatever the case; the first alias that is there wins) or
named by the caller: `columns={"emotion": "my_label"}`, with an empty name to leave a column out. Only the audio is
required. The manifests of EmoBox, SpeechBrain, s3prl, peft-ser, nkululeko and EMO-SUPERB are read as they are.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path

from seral.audio.address import path_of
from seral.corpora.reading.fields import ALIASES, Fields, chosen_columns, segment_name, share_columns
from seral.corpora.reading.rows import TABLE_FORMATS, read_rows
from seral.corpora.reading.utterance import Skipped, Utterance
from seral.errors import ReaderError

MANIFEST_STEMS = ("manifest", "metadata")
DATA_ROOT = "{data_root}/"
"""SpeechBrain's word for the folder of the corpus; taken for the folder of the manifest."""


def read_manifest(
    root: Path, *, columns: Mapping[str, str] | None = None, corpus: str | None = None
) -> Iterator[Utterance | Skipped]:
    """Utterances of a manifest file, or of the one in a folder, in the order of the rows.

    Relative audio paths start at the manifest. The corpus is `corpus` if given, else the row's, else the folder's name.
    """
    file = _manifest_file(root)
    present = columns_present(file)
    column_of = _columns(file, present, columns or {})
    shares = () if "emotion" in (columns or {}) else share_columns(present, column_of)
    base = file.resolve().parent
    for row in read_rows(file):  # a second time: nothing of a long list is kept
        fields = Fields(location=f"{file}, {row.location}", values=row.values, named=column_of, shares=shares)
        yield listed_utterance(fields, base, corpus or fields.corpus(base.name or "manifest"))


def columns_present(file: Path) -> set[str]:
    """The columns that rows of a table have. Raises ReaderError for a table without rows."""
    present, empty = set[str](), True
    for row in read_rows(file):
        present.update(row.values)
        empty = False
    if empty:
        raise ReaderError(f"{file} has no rows")
    return present


def listed_utterance(fields: Fields, base: Path, corpus: str) -> Utterance:
    """The utterance of a row that names its audio, relative to `base`."""
    path = _audio(fields)
    metadata = fields.metadata()
    audio = path_of(path) if "://" in path or Path(path).is_absolute() else base / path
    inside = audio.relative_to(base) if audio.is_relative_to(base) else audio
    segment = segment_name(metadata["start_s"], metadata["end_s"])
    name = fields.text("name") or inside.with_suffix("").as_posix() + segment
    return Utterance(audio=audio, source=inside.as_posix() + segment, corpus=corpus, name=name, **metadata)


def _manifest_file(root: Path) -> Path:
    if not root.is_dir():
        return root
    names = [f"{stem}{suffix}" for stem in MANIFEST_STEMS for suffix in TABLE_FORMATS]
    for name in names:
        if (root / name).is_file():
            return root / name
    raise ReaderError(f"no manifest in {root}: expected a file named {', '.join(names)}, for example {root / names[0]}")


def _columns(file: Path, present: set[str], choice: Mapping[str, str]) -> dict[str, str]:
    """Our name -> the file's column; the audio must be among them."""
    column_of = chosen_columns(str(file), present, choice)
    if "audio" not in column_of:
        raise ReaderError(
            f"{file} has no column for the audio, which may be called {', '.join(ALIASES['audio'])}; "
            f"it has: {', '.join(sorted(present))}. Name it: --column audio=COLUMN"
        )
    return column_of


def _audio(fields: Fields) -> str:
    value = fields.value("audio")
    if value is None or value == "":
        fields.fail("audio", "no path")
    if not isinstance(value, str):
        fields.fail("audio", f"expected a path, got {type(value).__name__} (for audio in Parquet: reader hf-parquet)")
    return value.removeprefix(DATA_ROOT)
