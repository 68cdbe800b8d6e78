"""Hugging Face datasets as `save_to_disk` writes them: Arrow streams, a folder for every split.

Written without the library, a few clips at a time; `datasets.load_from_disk` opens it.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pyarrow as pa

from seral.exports.audiofolder import folder_of
from seral.exports.clips import COLUMNS, About, Clip
from seral.schema import RATED, SAMPLE_RATE

AUDIO = pa.struct([("bytes", pa.binary()), ("path", pa.string())])
DTYPES = {"duration_s": "float32"} | dict.fromkeys(RATED, "float32")
NAMES = ("id", "duration_s", *COLUMNS)
FEATURES: dict[str, Any] = {
    "audio": {"sampling_rate": SAMPLE_RATE, "_type": "Audio"},
    **{name: {"dtype": DTYPES.get(name, "string"), "_type": "Value"} for name in NAMES},
}
SCHEMA = pa.schema(
    [("audio", AUDIO), *((name, pa.float32() if name in DTYPES else pa.string()) for name in NAMES)],
    metadata={"huggingface": json.dumps({"info": {"features": FEATURES}})},
)
BATCH_ROWS = 64


def write_hf(clips: Iterator[Clip], out: Path, about: About) -> None:
    """Write a DatasetDict: `dataset_dict.json`, and every split with its streams, their list and the features."""
    splits = {split: _Split(out / folder_of(split), about) for split in about.splits}
    for clip in clips:
        splits[clip.split].add(clip)
    for split, written in splits.items():
        written.finish(folder_of(split))
    _write_json(out / "dataset_dict.json", {"splits": [folder_of(split) for split in splits]})


@dataclass
class _Split:
    """The streams of one split, the last of which is being written."""

    folder: Path
    about: About
    rows: list[dict[str, Any]] = field(default_factory=list)
    files: list[Path] = field(default_factory=list)
    stream_bytes: int = 0
    stream: pa.ipc.RecordBatchStreamWriter | None = None

    def add(self, clip: Clip) -> None:
        """Append a row; a full stream is closed."""
        if self.stream is not None and self.stream_bytes + len(clip.flac) > self.about.shard_bytes:
            self._close()
        audio = {"bytes": clip.flac, "path": f"{clip.id}.flac"}
        self.rows.append({"audio": audio, "id": clip.id, "duration_s": clip.duration_s, **clip.values})
        self.stream_bytes += len(clip.flac)
        if self.stream is None:
            self._open()
        if len(self.rows) == BATCH_ROWS:
            self._flush()

    def finish(self, split: str) -> None:
        """Close the last stream, call all by their number, and write what stands beside them."""
        if self.stream is None:
            self._open()
        self._close()
        names = [f"data-{number:05d}-of-{len(self.files):05d}.arrow" for number in range(len(self.files))]
        for file, name in zip(self.files, names, strict=True):
            file.rename(self.folder / name)
        info = {
            "citation": "",
            "description": "",
            "features": FEATURES,
            "homepage": "",
            "license": self.about.licence or "",
        }
        state: dict[str, Any] = {
            "_data_files": [{"filename": name} for name in names],
            "_fingerprint": hashlib.sha256(f"{self.about.version} {split}".encode()).hexdigest()[:16],
            "_format_columns": None,
            "_format_kwargs": {},
            "_format_type": None,
            "_output_all_columns": False,
            "_split": split,
        }
        _write_json(self.folder / "dataset_info.json", info)
        _write_json(self.folder / "state.json", state)

    def _open(self) -> None:
        self.folder.mkdir(parents=True, exist_ok=True)
        self.files.append(self.folder / f"{len(self.files)}.arrow")
        self.stream = pa.ipc.new_stream(str(self.files[-1]), SCHEMA)

    def _flush(self) -> None:
        if self.rows and self.stream is not None:
            self.stream.write_table(pa.Table.from_pylist(self.rows, SCHEMA))
        self.rows = []

    def _close(self) -> None:
        self._flush()
        if self.stream is not None:
            self.stream.close()
        self.stream, self.stream_bytes = None, 0


def _write_json(file: Path, content: dict[str, Any]) -> None:
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text(json.dumps(content, indent=2, sort_keys=True), encoding="utf-8")
