"""Writes small data sets in the containers of the field: WebDataset, Hugging Face Parquet and audiofolder."""

from __future__ import annotations

import io
import json
import tarfile
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import soundfile as sf

CLIPS = ("audio/a.wav", "audio/b.wav", "audio/c.wav")


def clip(seed: int, seconds: float = 0.2, kind: str = "WAV") -> bytes:
    """The bytes of a sound file of noise, another one for every seed."""
    buffer = io.BytesIO()
    samples = np.random.default_rng(seed).normal(0, 0.1, int(16_000 * seconds))
    sf.write(buffer, samples, 16_000, format=kind)
    return buffer.getvalue()


def write_tar(path: Path, members: dict[str, bytes]) -> Path:
    """A tar of these members, in this order."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with tarfile.open(path, "w") as tar:
        for name, data in members.items():
            info = tarfile.TarInfo(name)
            info.size = len(data)
            tar.addfile(info, io.BytesIO(data))
    return path


def write_webdataset(root: Path) -> None:
    """Two shards as webdataset.TarWriter makes them; one sample has two dots in its extension."""
    fields = {"label": "anger", "speaker": "s1", "gender": "F"}
    train = {
        "clip0.cls": b"0",
        "clip0.json": json.dumps(fields).encode(),
        "clip0.txt": "Tschüss.".encode(),
        "clip0.wav": clip(0),
        "clip1.cls": b"neutral",
        "clip1.flac": clip(1, kind="FLAC"),
        "clip1.seg.json": b"[]",
    }
    write_tar(root / "train" / "000.tar", train)
    write_tar(root / "calls-test-000.tar", {"a/clip0.mp3": clip(2, 0.5, "MP3"), "a/clip0.json": b'{"speaker": "s2"}'})


FEATURES: dict[str, Any] = {
    "audio": {"sampling_rate": 16000, "_type": "Audio"},
    "label": {"names": ["anger", "neutral"], "_type": "ClassLabel"},
    "speaker_id": {"dtype": "string", "_type": "Value"},
    "gender": {"names": ["female", "male"], "_type": "ClassLabel"},
    "transcription": {"dtype": "string", "_type": "Value"},
    "scores": {"feature": {"dtype": "float32", "_type": "Value"}, "_type": "List"},
}
SCHEMA = pa.schema(
    [
        ("audio", pa.struct([("bytes", pa.binary()), ("path", pa.string())])),
        ("label", pa.int64()),
        ("speaker_id", pa.string()),
        ("gender", pa.int64()),
        ("transcription", pa.string()),
        ("scores", pa.list_(pa.float32())),
    ],
    metadata={"huggingface": json.dumps({"info": {"features": FEATURES}})},
)


def write_hf_parquet(root: Path, rows: int = 7) -> None:
    """One file in row groups of three, as `Dataset.to_parquet` of the `datasets` library writes it; -1 is no label."""
    table = [
        {
            "audio": {"bytes": clip(number), "path": f"clip{number}.wav"},
            "label": (0, 1, -1)[number % 3],
            "speaker_id": f"s{number % 2}",
            "gender": number % 2,
            "transcription": f"Text {number}.",
            "scores": [0.5, 0.5],
        }
        for number in range(rows)
    ]
    path = root / "data" / "train-00000-of-00001.parquet"
    path.parent.mkdir(parents=True, exist_ok=True)
    pq.write_table(pa.Table.from_pylist(table, SCHEMA), path, row_group_size=3)


def write_audiofolder(root: Path) -> None:
    """A table in each split's folder; one file stands in none."""
    for split, table in (("train", "file_name,label,speaker\nx/a.wav,anger,s1\n"), ("test", "")):
        (root / split).mkdir(parents=True, exist_ok=True)
        if table:
            (root / split / "metadata.csv").write_text(table)
    (root / "test" / "metadata.jsonl").write_text(json.dumps({"file_name": "c.wav", "label": "neutral"}) + "\n")
