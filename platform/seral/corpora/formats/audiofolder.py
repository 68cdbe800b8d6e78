"""Hugging Face audiofolder: audio in folders, beside it `metadata.csv`, `.jsonl` or `.parquet` with a `file_name`.

A table holds for the folder it lies in and for those below; there may be one for every split. Without a table the
folder's name is the label, as in `train/angry/clip7.wav`. Folders called train, validation or test are splits. Audio
that no table lists is read unlabelled. Convention: Hugging Face datasets, "Create an audio dataset".
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import replace
from pathlib import Path, PurePosixPath

from seral.corpora.formats.folder import DECODABLE, TO_CONVERT
from seral.corpora.formats.manifest import columns_present, listed_utterance
from seral.corpora.reading.fields import SPLITS, Fields, chosen_columns, share_columns, split_of_path
from seral.corpora.reading.rows import read_rows
from seral.corpora.reading.tree import AudioFile, audio_files
from seral.corpora.reading.utterance import Skipped, Utterance
from seral.errors import ReaderError

TABLES = ("metadata.csv", "metadata.jsonl", "metadata.parquet")
TABLE_SUFFIXES = frozenset(Path(name).suffix for name in TABLES)


def read_audiofolder(
    root: Path, *, columns: Mapping[str, str] | None = None, corpus: str | None = None
) -> Iterator[Utterance | Skipped]:
    """Every audio file below a folder, with what is told of it. `columns` and `corpus` are as for `manifest`."""
    files = audio_files(root, DECODABLE | TO_CONVERT)
    base = root.resolve()
    tables = [file.path for file in audio_files(root, TABLE_SUFFIXES) if file.path.name in TABLES]
    if not files and not tables:
        raise ReaderError(f"no audio below {root}: expected audio files and {TABLES[0]}, for example train/{TABLES[0]}")
    corpus = corpus or base.name
    listed = [item for table in tables for item in _read_table(table, base, columns or {}, corpus)]
    listed_files = {item.audio for item in listed}
    unlisted = [_from_folders(file, corpus, labelled=not tables) for file in files if file.path not in listed_files]
    yield from sorted([*listed, *unlisted], key=lambda item: (item.source, item.name))


def _read_table(table: Path, base: Path, columns: Mapping[str, str], corpus: str) -> Iterator[Utterance]:
    present = columns_present(table)
    if "file_name" not in present:
        raise ReaderError(f"{table} has no column file_name; it has: {', '.join(sorted(present))}")
    column_of = chosen_columns(str(table), present, columns) | {"audio": "file_name"}
    shares = () if "emotion" in columns else share_columns(present, column_of)
    for row in read_rows(table):
        fields = Fields(location=f"{table}, {row.location}", values=row.values, named=column_of, shares=shares)
        item = listed_utterance(fields, table.parent, corpus)
        inside = PurePosixPath(table.parent.relative_to(base).as_posix())
        split = item.split or split_of_path(PurePosixPath(inside, item.source).parent.as_posix())
        name = item.name if fields.text("name") else (inside / item.name).as_posix()
        yield replace(item, source=(inside / item.source).as_posix(), split=split, name=name)


def _from_folders(file: AudioFile, corpus: str, *, labelled: bool) -> Utterance:
    folders = PurePosixPath(file.source).parent
    label = folders.name if labelled and folders.name.lower() not in SPLITS else ""
    return Utterance(
        audio=file.path,
        source=file.source,
        corpus=corpus,
        name=file.source.removesuffix(file.path.suffix),
        split=split_of_path(folders.as_posix()),
        emotion=label or None,
    )
