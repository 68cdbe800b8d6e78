"""Writes small data sets as other toolkits keep them: Kaldi, Lhotse, Label Studio."""

from __future__ import annotations

import gzip
import json
from pathlib import Path
from typing import Any


def write_kaldi(root: Path) -> None:
    """Two data folders; audio as a path, from two commands that unpack a file, and in segments."""
    tables = {
        "train/wav.scp": "a audio/a.wav\nb flac -c -d -s audio/b.flac |\n",
        "train/segments": "s1-u1 a 0.01 0.05\ns1-u2 a 0.05 -1\ns2-u3 b 0.0 0.1\n",
        "train/utt2spk": "s1-u1 s1\ns1-u2 s1\ns2-u3 s2\ns2-u4 s2\n",
        "train/spk2utt": "s1 s1-u1 s1-u2\ns2 s2-u3 s2-u4\n",
        "train/spk2gender": "s1 f\ns2 m\n",
        "train/text": "s1-u1 Not today.\n",
        "train/utt2emo": "s1-u1\tanger\ns2-u3 joy\n",
        "train/utt2lang": "s1-u1 en\n",
        "train/utt2dur": "s1-u1 0.04\n",
        "train/utt2votes": 's1-u1 [{"rater": "r1", "emotion": "anger"}, '
        '{"rater": "r2", "emotion": "anger", "arousal": 4}]\n',
        "test/wav.scp": "b sox audio/b.flac -t wav -r 16k - |\n",
        "test/utt2spk": "b b\n",
    }
    for name, text in tables.items():
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_text(text)


def recording(name: str, source: str, kind: str = "file") -> dict[str, Any]:
    """A recording of a tenth of a second, in Lhotse's words."""
    sources = [{"type": kind, "channels": [0], "source": source}]
    return {"id": name, "sources": sources, "sampling_rate": 16000, "num_samples": 1600, "duration": 0.1}


def write_jsonl_gz(path: Path, rows: list[dict[str, Any]]) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(gzip.compress("".join(json.dumps(row) + "\n" for row in rows).encode(), mtime=0))
    return path


def write_lhotse(root: Path) -> None:
    """Recordings and their supervisions, one of audio that a command gives."""
    recordings = [recording("a", "audio/a.wav"), recording("b", "audio/b.flac"), recording("c", "cat c.wav", "command")]
    about = {"channel": 0, "text": "No.", "language": "en", "speaker": "s1", "gender": "F"}
    supervisions = [
        {"id": "a-1", "recording_id": "a", "start": 0.0, "duration": 0.04, "custom": {"emotion": "anger"}, **about},
        {"id": "a-2", "recording_id": "a", "start": 0.04, "duration": 0.06, "custom": {"emotion": "joy"}, **about},
    ]
    write_jsonl_gz(root / "recordings.jsonl.gz", recordings)
    write_jsonl_gz(root / "supervisions.jsonl.gz", supervisions)


def write_label_studio(root: Path) -> None:
    """A JSON export: two raters on the first task, regions on the second, a skip on the third."""

    def choice(*words: str, **where: float) -> dict[str, Any]:
        return {"from_name": "emotion", "to_name": "audio", "type": "choices", "value": {"choices": [*words], **where}}

    def rating(value: int) -> dict[str, Any]:
        return {"from_name": "arousal", "to_name": "audio", "type": "rating", "value": {"rating": value}}

    tasks = [
        {
            "id": 1,
            "data": {"audio": "/data/upload/1/0a1b2c3d-a.wav", "speaker": "s1"},
            "annotations": [
                {"completed_by": {"id": 1, "email": "ann@example.org"}, "result": [choice("anger", "fear"), rating(4)]},
                {"completed_by": 2, "result": [choice("anger"), rating(3)]},
            ],
        },
        {
            "id": 2,
            "data": {"audio": "/data/local-files/?d=upload/1/b.wav"},
            "annotations": [
                {"completed_by": 1, "result": [choice("joy", start=0.0, end=0.04), choice("fear", start=0.05, end=0.1)]}
            ],
        },
        {
            "id": 3,
            "data": {"audio": "/data/upload/1/c.wav"},
            "annotations": [{"completed_by": 1, "was_cancelled": True, "result": [choice("joy")]}],
        },
    ]
    (root / "project-1.json").write_text(json.dumps(tasks))
