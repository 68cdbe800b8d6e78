"""Data sets of other toolkits, in the forms that they have besides those of the layouts."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from corpus_layouts.toolkits import recording, write_jsonl_gz, write_label_studio
from corpus_layouts.written import touch

from seral.corpora import READERS
from seral.corpora.reading.utterance import Skipped, Utterance
from seral.errors import ReaderError

UPLOADS = ("upload/1/0a1b2c3d-a.wav", "upload/1/b.wav", "upload/1/c.wav")


def utterances(reader: str, root: Path) -> list[Utterance]:
    return [item for item in READERS[reader](root) if isinstance(item, Utterance)]


def write_json_min(root: Path) -> None:
    """The answers of write_label_studio, a row an annotation; its skipped one has no row there."""
    first = {"id": 1, "audio": "/data/upload/1/0a1b2c3d-a.wav", "speaker": "s1"}
    times = {"created_at": "2026-11-01T00:00:00Z", "updated_at": "2026-11-01T00:00:09Z", "lead_time": 9.0}
    regions = [
        {"start": 0.0, "end": 0.04, "labels": ["joy"]},
        {"start": 0.05, "end": 0.1, "labels": ["fear"]},
    ]
    rows: list[dict[str, Any]] = [
        first | {"emotion": {"choices": ["anger", "fear"]}, "arousal": 4, "annotator": "ann@example.org"},
        first | {"emotion": "anger", "arousal": 3, "annotator": 2},
        {"id": 2, "audio": "/data/local-files/?d=upload/1/b.wav", "emotion": regions, "annotator": 1},
    ]
    rows = [row | {"annotation_id": number, **times} for number, row in enumerate(rows)]
    (root / "project-1-min.json").write_text(json.dumps(rows))


def test_json_min_says_of_answers_what_json_says(tmp_path: Path) -> None:
    whole, minimal = (touch(tmp_path / form / "corpus", *UPLOADS) for form in ("json", "min"))
    write_label_studio(whole)
    write_json_min(minimal)
    expected = [replace(item, audio=Path()) for item in utterances("label-studio", whole) if item.votes]
    read = [replace(item, audio=Path()) for item in utterances("label-studio", minimal)]
    assert len(read) == 3
    assert [(item.source, item.emotion, item.arousal) for item in read] == [
        (item.source, item.emotion, item.arousal) for item in expected
    ]
    assert [item.votes for item in read] == [item.votes for item in expected]
    (minimal / "another.json").write_text((minimal / "project-1-min.json").read_text())
    with pytest.raises(ReaderError, match=r"has several: another\.json, project-1-min\.json; name one"):
        utterances("label-studio", minimal)
    assert len(utterances("label-studio", minimal / "another.json")) == 3


def test_every_supervision_of_a_cut_is_an_utterance(tmp_path: Path) -> None:
    root = touch(tmp_path / "corpus", "audio/a.wav")
    parts = [
        {"id": "a-1", "recording_id": "a", "start": 0.0, "duration": 0.03, "custom": {"emotion": "anger"}},
        {"id": "a-2", "recording_id": "a", "start": 0.03, "duration": 0.05, "speaker": "s2"},
    ]
    about = {"recording": recording("a", "audio/a.wav"), "channel": 0, "custom": {"emotion": "joy", "split": "test"}}
    cut = {"type": "MonoCut", "id": "cut", "start": 0.02, "duration": 0.08, "supervisions": parts, **about}
    bare = {"type": "MonoCut", "id": "bare", "start": 0.0, "duration": 0.1, "supervisions": [], **about}
    mixed = {"type": "MixedCut", "id": "mixed", "tracks": []}
    write_jsonl_gz(root / "cuts.jsonl.gz", [cut, bare, mixed])
    assert [
        (item.name, item.start_s, item.end_s, item.speaker, item.emotion, item.split)
        for item in utterances("lhotse", root)
    ] == [
        ("bare", None, None, None, "joy", "test"),
        ("a-1", 0.02, 0.05, None, "anger", "test"),
        ("a-2", 0.05, None, "s2", "joy", "test"),
    ]
    (skipped,) = (item for item in READERS["lhotse"](root) if isinstance(item, Skipped))
    assert "MixedCut" in skipped.detail
