"""WebDataset: tars named after their split, each sample a clip `ID.flac` and what is known of it, `ID.json`."""

from __future__ import annotations

import io
import json
import tarfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from seral.exports.audiofolder import folder_of
from seral.exports.clips import About, Clip


def write_webdataset(clips: Iterator[Clip], out: Path, about: About) -> None:
    """Write `train-000000.tar` and so on, a new one when it would be larger than a shard."""
    tars = {split: _Tars(out, folder_of(split), about.shard_bytes) for split in about.splits}
    for clip in clips:
        tars[clip.split].add(clip)
    for written in tars.values():
        written.close()


@dataclass
class _Tars:
    """The tars of one split, the last of which is being written."""

    out: Path
    split: str
    limit: int
    count: int = 0
    size: int = 0
    tar: tarfile.TarFile | None = None

    def add(self, clip: Clip) -> None:
        """Append a sample."""
        about = json.dumps({"id": clip.id, "duration_s": clip.duration_s, **clip.values}, ensure_ascii=False).encode()
        if self.tar is None or (self.size and self.size + len(clip.flac) + len(about) > self.limit):
            self.close()
            self.tar = tarfile.TarFile(
                self.out / f"{self.split}-{self.count:06d}.tar", "w", format=tarfile.USTAR_FORMAT
            )
            self.count += 1
        for suffix, data in (("flac", clip.flac), ("json", about)):
            member = tarfile.TarInfo(f"{clip.id}.{suffix}")  # of no user and no time, so that its bytes are the same
            member.size = len(data)
            self.tar.addfile(member, io.BytesIO(data))
            self.size += len(data)

    def close(self) -> None:
        """End the tar that is being written."""
        if self.tar is not None:
            self.tar.close()
        self.tar, self.size = None, 0
