"""Checksums of the files of a folder, beside them, as `sha256sum --check SHA256SUMS` reads them."""

from __future__ import annotations

import hashlib
from pathlib import Path

SUMS = "SHA256SUMS"
BLOCK = 1 << 23


def write_checksums(folder: str | Path) -> None:
    """Write down the checksums of all files in a folder and below."""
    source = Path(folder)
    names = sorted(path.relative_to(source).as_posix() for path in source.rglob("*") if path.is_file())
    lines = [f"{sha256(source / name)}  {name}\n" for name in names if name != SUMS]
    (source / SUMS).write_text("".join(lines), encoding="utf-8")


def check_checksums(folder: str | Path) -> None:
    """Compare the files of a folder with their checksums, where it has any.

    Raises ValueError, which names the first file that is missing or not as it was written.
    """
    source = Path(folder)
    if not (source / SUMS).is_file():
        return
    for line in (source / SUMS).read_text(encoding="utf-8", errors="replace").splitlines():
        digest, _, name = line.partition("  ")
        if not (source / name).is_file():
            raise ValueError(f"{source / name} is missing, which {SUMS} beside it lists")
        if sha256(source / name) != digest:
            raise ValueError(
                f"{source / name} is damaged: its bytes are not those that were written (delete {SUMS} beside it if "
                "they were changed on purpose)"
            )


def sha256(file: Path) -> str:
    """The SHA-256 of a file, in hexadecimal digits."""
    with file.open("rb") as stream:
        digest = hashlib.sha256()
        while block := stream.read(BLOCK):
            digest.update(block)
    return digest.hexdigest()
