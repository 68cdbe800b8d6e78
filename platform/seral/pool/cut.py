"""Long recordings made into utterances that can be imported: where somebody speaks, or clips of one length."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

import ray
import soundfile as sf
from pydantic import Field, model_validator

from seral import storage
from seral.audio.segments import recording_voice, utterances
from seral.audio.voice import FRAME_S
from seral.cluster import ClusterOptions, connect
from seral.corpora.reading.tree import DECODABLE, AudioFiles, audio_files
from seral.errors import ReaderError
from seral.options import Options
from seral.progress import track

MANIFEST = "manifest.jsonl"
NAMED = 5


class CutOptions(Options):
    """Options of cutting long recordings into utterances or clips."""

    root: str
    """Folder of recordings."""
    out: str
    """Folder to make; its name is the corpus when it is imported. By voice: `manifest.jsonl`, which says where each
    utterance lies in its recording, for the reader `manifest`. With `clip_s`: FLAC files, for the reader `folder`."""
    min_s: float = Field(default=0.5, gt=0)
    """Utterances with less speech are left out."""
    max_s: float = Field(default=15.0, gt=0)
    """Longer utterances are cut where they sound least like speech."""
    gap_s: float = Field(default=0.6, gt=0)
    """A shorter pause does not end an utterance."""
    pad_s: float = Field(default=0.3, ge=0)
    """Part of the pauses around it that an utterance keeps; the detector is right to about a fifth of a second."""
    clip_s: float | None = Field(default=None, gt=0)
    """Cut clips of so many seconds instead, whoever speaks; what is left over at the end is dropped."""
    hop_s: float | None = Field(default=None, gt=0)
    """Seconds from one clip's start to the next; None = clip_s, so that clips do not overlap."""
    cluster: ClusterOptions = ClusterOptions()

    @model_validator(mode="after")
    def _check(self) -> CutOptions:
        if self.max_s < 2 * (self.min_s + self.pad_s):
            raise ValueError(f"max_s must hold two of min_s and pad_s, got {self.max_s}, {self.min_s}, {self.pad_s}")
        if self.hop_s is not None and self.clip_s is None:
            raise ValueError("hop_s is for clips of one length: give clip_s too")
        return self


def cut_recordings(options: CutOptions) -> str:
    """Cut every recording below a folder; says what came of it."""
    files = audio_files(Path(options.root), DECODABLE)
    if not files:
        raise ReaderError(f"no audio below {options.root}")
    if options.clip_s is None:
        return _cut_by_voice(files, options)
    clips = 0
    with track(f"cutting {len(files)} recordings", len(files)) as advance:
        for file in files:
            stem = Path(options.out) / Path(file.source).with_suffix("")
            clips += _cut(file.path, stem, options.clip_s, options.hop_s or options.clip_s)
            advance(1)
    return f"{clips} clips of {len(files)} recordings in {options.out}"


def _cut_by_voice(files: AudioFiles, options: CutOptions) -> str:
    options = options.model_copy(update={"out": str(Path(options.out).resolve())})
    connect(options.cluster)
    items = [{"path": str(file.path.resolve()), "source": file.source} for file in files]
    dataset = ray.data.from_items(items, override_num_blocks=len(items))
    recordings = []
    with track(f"listening to {len(files)} recordings", len(files)) as advance:
        for row in dataset.map(find_utterances, fn_kwargs={"options": options}).iter_rows():
            recordings.append(row)
            advance(1)
    recordings.sort(key=lambda row: str(row["source"]))
    rows = [json.loads(line) for row in recordings for line in row["lines"]]
    manifest = storage.join(options.out, MANIFEST)
    storage.write_bytes(manifest, "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows).encode())
    speech_s = sum(row["end_s"] - row["start_s"] for row in rows if "end_s" in row)
    summary = f"{len(rows)} utterances, {speech_s / 3600:.2f} of {sum(row['hours'] for row in recordings):.2f} hours, "
    summary += f"of {len(files)} recordings in {manifest}"
    for problem, matches in (
        ("nobody speaks in", [row["source"] for row in recordings if not row["lines"]]),
        (
            "not readable, and listed whole for the import to say why",
            [r["source"] for r in recordings if not r["readable"]],
        ),
    ):
        if matches:
            more = f" and {len(matches) - NAMED} more" if len(matches) > NAMED else ""
            summary += f"\n{problem}: {', '.join(matches[:NAMED])}{more}"
    return summary


def find_utterances(row: dict[str, Any], options: CutOptions) -> dict[str, Any]:
    """The lines of the manifest about one recording, {"path", "source"} -> {"source", "lines", "hours", "readable"}."""
    path = Path(row["path"])
    stem = row["source"].removesuffix(path.suffix)
    metadata = {"audio": os.path.relpath(path, options.out), "session": stem}
    try:
        voice_T = recording_voice(path)
    except (OSError, sf.LibsndfileError):
        lines = [json.dumps({"id": stem, **metadata})]
        return {"source": row["source"], "lines": lines, "hours": 0.0, "readable": False}
    limits = {"min_s": options.min_s, "max_s": options.max_s, "gap_s": options.gap_s, "pad_s": options.pad_s}
    lines = [
        json.dumps({"id": f"{stem}-{start_s:08.2f}", **metadata, "start_s": start_s, "end_s": end_s})
        for start_s, end_s in utterances(voice_T, **limits)
    ]
    return {"source": row["source"], "lines": lines, "hours": len(voice_T) * FRAME_S / 3600, "readable": True}


def _cut(path: Path, stem: Path, clip_s: float, hop_s: float) -> int:
    with sf.SoundFile(path) as recording:
        length, hop = round(clip_s * recording.samplerate), round(hop_s * recording.samplerate)
        starts = range(0, recording.frames - length + 1, hop)
        for number, start in enumerate(starts):
            recording.seek(start)
            target = stem.parent / f"{stem.name}-{number:03d}.flac"
            target.parent.mkdir(parents=True, exist_ok=True)
            sf.write(target, recording.read(length), recording.samplerate, subtype="PCM_16")
    return len(starts)
