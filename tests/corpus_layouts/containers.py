"""Writes small data sets in the containers of the field: WebDataset, those of Hugging Face, audformat."""

from __future__ import annotations

import io
import json
import tarfile
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
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


def hf_row(number: int) -> dict[str, Any]:
    """A row of a data set of the `datasets` library."""
    return {
        "audio": {"bytes": clip(number), "path": f"clip{number}.wav"},
        "label": (0, 1, -1)[number % 3],
        "speaker_id": f"s{number % 2}",
        "gender": number % 2,
        "transcription": f"Text {number}.",
        "scores": [0.5, 0.5],
    }


def write_hf_parquet(root: Path, rows: int = 7, row_group: int = 3) -> None:
    """One file in row groups, as `Dataset.to_parquet` of the `datasets` library writes it; -1 is no label."""
    table = [hf_row(number) for number in range(rows)]
    path = root / "data" / "train-00000-of-00001.parquet"
    path.parent.mkdir(parents=True, exist_ok=True)
    pq.write_table(pa.Table.from_pylist(table, SCHEMA), path, row_group_size=row_group)


def write_hf_arrow(root: Path, rows: int = 7, batch: int = 3) -> None:
    """Two splits as `DatasetDict.save_to_disk` of the `datasets` library writes them; -1 is no label."""
    for split, numbers in (("test", range(2)), ("train", range(2, rows))):
        folder = root / split
        folder.mkdir(parents=True, exist_ok=True)
        name = "data-00000-of-00001.arrow"
        with pa.ipc.new_stream(folder / name, SCHEMA.with_metadata(None)) as stream:
            table = pa.Table.from_pylist([hf_row(number) for number in numbers], SCHEMA)
            stream.write_table(table.replace_schema_metadata(None), max_chunksize=batch)
        (folder / "state.json").write_text(json.dumps({"_data_files": [{"filename": name}], "_split": split}))
        (folder / "dataset_info.json").write_text(json.dumps({"features": FEATURES}))
        with pa.ipc.new_stream(folder / "cache-5f1d.arrow", pa.schema([("indices", pa.uint64())])) as stream:
            stream.write_table(pa.table({"indices": pa.array([1, 0], pa.uint64())}))
    (root / "dataset_dict.json").write_text('{"splits": ["train", "test"]}')


def write_audiofolder(root: Path) -> None:
    """A table in each split's folder; one file stands in none."""
    for split, table in (("train", "file_name,label,speaker\nx/a.wav,anger,s1\n"), ("test", "")):
        (root / split).mkdir(parents=True, exist_ok=True)
        if table:
            (root / split / "metadata.csv").write_text(table)
    (root / "test" / "metadata.jsonl").write_text(json.dumps({"file_name": "c.wav", "label": "neutral"}) + "\n")


HEADER = """name: corpus
source: ''
usage: research
languages: [deu]
raters:
  gold: {type: ground truth}
  model: {type: machine}
  r1: {type: human}
  r2: {type: human}
schemes:
  arousal: {dtype: float, minimum: 1, maximum: 5}
  confidence: {dtype: float}
  emotion:
    dtype: str
    labels: [anger, neutral]
  gender:
    dtype: str
    labels: [female, male]
  speaker: {dtype: str, labels: speaker}
  transcription:
    dtype: str
    labels: {t1: Hallo., t2: Ja.}
splits:
  test: {type: test}
  train: {type: train}
tables:
  emotion:
    type: filewise
    columns:
      emotion.model: {scheme_id: emotion, rater_id: model}
      emotion.r1: {scheme_id: emotion, rater_id: r1}
      arousal.r1: {scheme_id: arousal, rater_id: r1}
      emotion.r2: {scheme_id: emotion, rater_id: r2}
      arousal.r2: {scheme_id: arousal, rater_id: r2}
  emotion.test.gold_standard:
    type: filewise
    split_id: test
    columns:
      emotion: {scheme_id: emotion, rater_id: gold}
      confidence.emotion: {scheme_id: confidence, rater_id: gold}
  emotion.train.gold_standard:
    type: filewise
    split_id: train
    columns:
      emotion: {scheme_id: emotion, rater_id: gold}
      confidence.emotion: {scheme_id: confidence, rater_id: gold}
  files:
    type: filewise
    columns:
      speaker: {scheme_id: speaker}
      transcription: {scheme_id: transcription}
  segments:
    type: segmented
    columns:
      emotion: {scheme_id: emotion, rater_id: gold}
misc_tables:
  speaker:
    levels: {speaker: str}
    columns:
      gender: {scheme_id: gender}
"""
AUDFORMAT_TABLES = {
    "emotion": """file,emotion.model,emotion.r1,arousal.r1,emotion.r2,arousal.r2
audio/a.wav,neutral,anger,4.0,anger,5.0
audio/b.wav,neutral,neutral,2.0,,2.0
audio/c.wav,neutral,neutral,,neutral,
""",
    "emotion.test.gold_standard": "file,emotion,confidence.emotion\naudio/c.wav,neutral,1.0\n",
    "emotion.train.gold_standard": "file,emotion,confidence.emotion\naudio/a.wav,anger,1.0\naudio/b.wav,neutral,0.5\n",
    "files": "file,speaker,transcription\naudio/a.wav,s1,t1\naudio/b.wav,s2,\naudio/c.wav,s1,t2\n",
    "segments": """file,start,end,emotion
audio/b.wav,0 days 00:00:00.000000,0 days 00:00:00.050000,neutral
audio/b.wav,0 days 00:00:00.050000,,anger
""",
    "speaker": "speaker,gender\ns1,female\ns2,male\n",
}


def write_audformat(root: Path, suffix: str = ".csv") -> None:
    """A database as `Database.save` of audformat writes it: three files, one of them in two segments."""
    (root / "db.yaml").write_text(HEADER)
    for name, text in AUDFORMAT_TABLES.items():
        if suffix == ".csv":
            (root / f"db.{name}.csv").write_text(text)
            continue
        frame = pd.read_csv(io.StringIO(text))
        for column in {"start", "end"} & set(frame.columns):
            frame[column] = pd.to_timedelta(frame[column])
        pq.write_table(pa.Table.from_pandas(frame, preserve_index=False), root / f"db.{name}.parquet")
