"""Long recordings cut into clips of one length, so that they can be imported: a folder in, a folder out."""

from __future__ import annotations

from pathlib import Path

import soundfile as sf
from pydantic import Field

from seral.errors import ReaderError
from seral.options import Options
from seral.pool.readers.folder import DECODABLE
from seral.pool.readers.tree import audio_files
from seral.progress import track


class CutOptions(Options):
    """What to cut, and how."""

    root: str
    """Folder of recordings."""
    out: str
    """Folder of clips to make, FLAC; its name is the corpus when it is imported by the reader `folder`."""
    clip_s: float = Field(default=2.0, gt=0)
    """Seconds of a clip; what is left over at the end is dropped."""
    hop_s: float | None = Field(default=None, gt=0)
    """Seconds from one clip's start to the next; None = clip_s, so that clips do not overlap."""


def cut_recordings(options: CutOptions) -> str:
    """Cut every recording below a folder; says how many clips were made of how many."""
    files = audio_files(Path(options.root), DECODABLE)
    if not files:
        raise ReaderError(f"no audio below {options.root}")
    made = 0
    with track(f"cutting {len(files)} recordings", len(files)) as advance:
        for file in files:
            made += _cut(file.path, Path(options.out) / Path(file.source).with_suffix(""), options)
            advance(1)
    return f"{made} clips of {len(files)} recordings in {options.out}"


def _cut(path: Path, stem: Path, options: CutOptions) -> int:
    with sf.SoundFile(path) as recording:
        length = round(options.clip_s * recording.samplerate)
        hop = round((options.hop_s or options.clip_s) * recording.samplerate)
        starts = range(0, recording.frames - length + 1, hop)
        for number, start in enumerate(starts):
            recording.seek(start)
            target = stem.parent / f"{stem.name}-{number:03d}.flac"
            target.parent.mkdir(parents=True, exist_ok=True)
            sf.write(target, recording.read(length), recording.samplerate, subtype="PCM_16")
    return len(starts)
