"""A real S3 server behind a door that can fail (jobs.bench.s3_door), for tests in this process."""

from __future__ import annotations

from pathlib import Path
from urllib.parse import quote

import pytest

from jobs.bench.s3_door import Door, Faults, environment, put, s3_server

__all__ = ["Door", "Faults", "environment", "s3_server", "upload", "use"]


def use(door: Door, monkeypatch: pytest.MonkeyPatch) -> None:
    """Lead this process to the server."""
    for name, value in environment(door).items():
        monkeypatch.setenv(name, value)


def upload(folder: Path, prefix: str, door: Door) -> None:
    """Put all files of a folder into the bucket, as they are, past the door."""
    for path in sorted(path for path in folder.rglob("*") if path.is_file()):
        put(door, quote(f"/speech/{prefix}/{path.relative_to(folder).as_posix()}"), path.read_bytes())
