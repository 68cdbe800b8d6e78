"""Lhotse: `cuts.jsonl.gz`, a cut with one supervision a clip, and `recordings` and `supervisions` of the same.

Paths start in the folder of the export: `CutSet.from_file(...).with_recording_path_prefix(DIR)`. Emotion, ratings,
votes, split and the like are custom fields of the supervision.
"""

from __future__ import annotations

import gzip
import io
import json
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import soundfile as sf

from seral.exports.clips import About, Clip, write_clip
from seral.schema import SAMPLE_RATE

MANIFESTS = ("recordings", "supervisions", "cuts")
OWN = ("text", "language", "speaker", "gender")
"""Fields that a supervision has itself."""


def write_lhotse(clips: Iterator[Clip], out: Path, about: About) -> None:
    """Write the clips and the three manifests, a line a clip each."""
    with ExitStack() as stack:
        manifests = {}
        for name in MANIFESTS:
            raw = stack.enter_context((out / f"{name}.jsonl.gz").open("wb"))
            manifests[name] = stack.enter_context(gzip.GzipFile("", "wb", fileobj=raw, mtime=0))
        for clip in clips:
            for name, row in zip(MANIFESTS, _rows(clip, write_clip(out, clip)), strict=True):
                manifests[name].write(json.dumps(row, ensure_ascii=False).encode() + b"\n")


def _rows(clip: Clip, path: str) -> tuple[dict[str, Any], ...]:
    samples = sf.info(io.BytesIO(clip.flac)).frames
    duration_s = samples / SAMPLE_RATE
    recording = {
        "id": clip.id,
        "sources": [{"type": "file", "channels": [0], "source": path}],
        "sampling_rate": SAMPLE_RATE,
        "num_samples": samples,
        "duration": duration_s,
        "channel_ids": [0],
    }
    part = {"id": clip.id, "recording_id": clip.id, "start": 0.0, "duration": duration_s, "channel": 0}
    supervision = part | {name: clip.values[name] for name in OWN if name in clip.values}
    supervision |= {"custom": {name: value for name, value in clip.values.items() if name not in OWN}}
    cut = {"id": clip.id, "start": 0.0, "duration": duration_s, "channel": 0, "supervisions": [supervision]}
    return recording, supervision, cut | {"recording": recording, "type": "MonoCut"}
