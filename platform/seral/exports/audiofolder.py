"""Hugging Face audiofolder: a folder for every split, with clips and their `metadata.jsonl`; `README.md` names them."""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import yaml

from seral.exports.clips import COLUMNS, About, Clip, write_clip

FOLDERS = {"dev": "validation"}
"""Split -> its name in data sets of Hugging Face, where that is another."""


def write_audiofolder(clips: Iterator[Clip], out: Path, about: About) -> None:
    """Write the clips, a row a clip; every row has every column, null where nothing is known."""
    with ExitStack() as stack:
        tables = {}
        for split in about.splits:
            (out / folder_of(split)).mkdir(parents=True)
            file = (out / folder_of(split) / "metadata.jsonl").open("w", encoding="utf-8")
            tables[split] = stack.enter_context(file)
        for clip in clips:
            path = write_clip(out / folder_of(clip.split), clip, "clips")
            row = {"file_name": path, "id": clip.id} | {name: clip.values.get(name) for name in COLUMNS}
            tables[clip.split].write(json.dumps(row, ensure_ascii=False) + "\n")
    files = [{"split": folder_of(split), "path": f"{folder_of(split)}/**"} for split in about.splits]
    card: dict[str, Any] = {"license": about.licence} if about.licence else {}
    card |= {"configs": [{"config_name": "default", "data_files": files}]}
    (out / "README.md").write_text(
        f"---\n{yaml.safe_dump(card, sort_keys=False)}---\n# {about.name}\n", encoding="utf-8"
    )


def folder_of(split: str) -> str:
    """The folder of a split."""
    return FOLDERS.get(split, split)
