"""Hugging Face audiofolder: a folder a split, with clips and their `metadata.parquet`; `README.md` names the splits."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import yaml

from seral.exports.clips import COLUMNS, About, Clip, write_clip
from seral.schema import RATED

SCHEMA = pa.schema(
    [("file_name", pa.string()), ("id", pa.string()), ("duration_s", pa.float32())]
    + [(name, pa.float32() if name in RATED else pa.string()) for name in COLUMNS]
)
BATCH_ROWS = 1024
FOLDERS = {"dev": "validation"}
"""Split -> its name in data sets of Hugging Face, where that is another."""


def write_audiofolder(clips: Iterator[Clip], out: Path, about: About) -> None:
    """Write the clips, a row a clip; every table has every column, and its type, whatever is known."""
    rows: dict[str, list[dict[str, Any]]] = {split: [] for split in about.splits}
    with ExitStack() as stack:
        tables: dict[str, pq.ParquetWriter] = {}
        for split in about.splits:
            (out / folder_of(split)).mkdir(parents=True)
            tables[split] = stack.enter_context(pq.ParquetWriter(out / folder_of(split) / "metadata.parquet", SCHEMA))
        for clip in clips:
            path = write_clip(out / folder_of(clip.split), clip, "clips")
            rows[clip.split].append({"file_name": path, "id": clip.id, "duration_s": clip.duration_s, **clip.values})
            if len(rows[clip.split]) == BATCH_ROWS:
                tables[clip.split].write_table(pa.Table.from_pylist(rows[clip.split], SCHEMA))
                rows[clip.split] = []
        for split, last in rows.items():
            tables[split].write_table(pa.Table.from_pylist(last, SCHEMA))
    files = [{"split": folder_of(split), "path": f"{folder_of(split)}/**"} for split in about.splits]
    card: dict[str, Any] = {"license": about.licence} if about.licence else {}
    card |= {"configs": [{"config_name": "default", "data_files": files}]}
    (out / "README.md").write_text(
        f"---\n{yaml.safe_dump(card, sort_keys=False)}---\n# {about.name}\n", encoding="utf-8"
    )


def folder_of(split: str) -> str:
    """The folder of a split."""
    return FOLDERS.get(split, split)
