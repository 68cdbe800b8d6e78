"""Hugging Face audiofolder: audio in folders, beside it `metadata.csv`, `.jsonl` or `.parquet` with a `file_name`.

A table holds for the folder it lies in and for those below; there may be one for every split. Without a table the
folder's name is the label, as in `train/angry/clip7.wav`. Folders called train, validation or test are splits. Audio
that no table lists is read unlabelled. What a table does not say, a joined table or a pattern of paths may.
Convention: Hugging Face datasets, "Create an audio dataset".
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path, PurePosixPath
from typing import Unpack

from seral.corpora.formats.manifest import audio_of
from seral.corpora.reading.choices import Choices, Reading
from seral.corpora.reading.fields import SPLITS, split_of_path
from seral.corpora.reading.rows import columns_present, read_rows
from seral.corpora.reading.tree import DECODABLE, TO_CONVERT, AudioFile, audio_files
from seral.corpora.reading.utterance import Skipped, Utterance
from seral.errors import ReaderError

TABLES = ("metadata.csv", "metadata.jsonl", "metadata.parquet")
TABLE_SUFFIXES = frozenset(Path(name).suffix for name in TABLES)


def read_audiofolder(root: Path, **choices: Unpack[Choices]) -> Iterator[Utterance | Skipped]:
    """Every audio file below a folder, with what is told of it. The corpus is `corpus`, else as for `manifest`."""
    files = audio_files(root, DECODABLE | TO_CONVERT)
    base = root.resolve()
    tables = [file.path for file in audio_files(root, TABLE_SUFFIXES) if file.path.name in TABLES]
    if not files and not tables:
        raise ReaderError(f"no audio below {root}: expected audio files and {TABLES[0]}, for example train/{TABLES[0]}")
    present_in = {table: columns_present(table) for table in tables}
    reading = Reading(choices, base.name, set().union(*present_in.values()))
    items: list[Utterance | Skipped] = []
    listed_files = set[Path]()
    for table, present in present_in.items():
        for file, item in _read_table(table, present, base, reading):
            listed_files.add(file.path)
            items.append(item)
    items += [_from_folders(file, reading, labelled=not tables) for file in files if file.path not in listed_files]
    yield from sorted(items, key=lambda item: (item.source, getattr(item, "name", "")))
    yield from reading.remainder()


def _read_table(
    table: Path, present: set[str], base: Path, reading: Reading
) -> Iterator[tuple[AudioFile, Utterance | Skipped]]:
    if "file_name" not in present:
        raise ReaderError(f"{table} has no column file_name; it has: {', '.join(sorted(present))}")
    columns = reading.table(str(table), present, audio="file_name")
    for fields in columns.clips(lambda: read_rows(table)):
        file = audio_of(fields, table.parent, base)
        yield file, reading.record(fields, file, split=split_of_path(PurePosixPath(file.source).parent.as_posix()))


def _from_folders(file: AudioFile, reading: Reading, *, labelled: bool) -> Utterance | Skipped:
    folders = PurePosixPath(file.source).parent
    label = folders.name if labelled and folders.name.lower() not in SPLITS else None
    return reading.record(reading.path_fields(file), file, emotion=label, split=split_of_path(folders.as_posix()))
