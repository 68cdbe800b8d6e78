"""Any file in a folder of recordings ends in the pool or in quarantine exactly as docs/pools.md says."""

from __future__ import annotations

import json
import os
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import soundfile as sf

from seral.options import parse
from seral.pool.check import check_pool
from seral.pool.ingest import import_corpus
from seral.pool.options import ImportOptions
from seral.pool.shards import Pool, open_pool

pytestmark = [pytest.mark.ray, pytest.mark.usefixtures("ray_session")]

DOCUMENT = Path(__file__).resolve().parents[2] / "docs" / "pools.md"
RATE_HZ = 16_000


def voice(seconds: float = 1.0, rate: int = RATE_HZ, seed: int = 0) -> Any:
    """A buzz with syllables, (S,)."""
    time_s = np.arange(int(seconds * rate)) / rate
    buzz = sum(np.sin(2 * np.pi * (110 + 7 * seed) * k * time_s) / k for k in range(1, 9))
    return (0.1 * buzz * np.clip(np.sin(2 * np.pi * 4 * time_s), 0.01, None)).astype(np.float32)


def write(path: Path, samples: Any, rate: int = RATE_HZ, **how: Any) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    sf.write(path, samples, rate, **how)


def halve(path: Path) -> None:
    os.truncate(path, path.stat().st_size // 2)


def channels(*columns: Any) -> Any:
    return np.stack(columns, axis=1)


def truncated(path: Path) -> None:
    write(path, np.random.default_rng(1).normal(0, 0.1, RATE_HZ), subtype="PCM_16")
    halve(path)


def with_nan(path: Path) -> None:
    samples = voice(seed=1)
    samples[7] = np.nan
    write(path, samples, subtype="FLOAT")


def three_hours(path: Path) -> None:
    """The header of three hours, and a file that is as long without taking any room."""
    write(path, np.zeros(800, np.int16), 8_000, subtype="PCM_16")
    seconds = 3 * 3600
    with path.open("r+b") as file:
        data = bytearray(file.read())
        offset = data.index(b"data") + 4
        data[offset : offset + 4] = (seconds * 8_000 * 2).to_bytes(4, "little")
        data[4:8] = (seconds * 8_000 * 2 + offset - 4).to_bytes(4, "little")
        file.seek(0)
        file.write(data)
    os.truncate(path, offset + 4 + seconds * 8_000 * 2)


def surround(path: Path) -> None:
    """Speech in the centre, a murmur all around."""
    murmur = np.random.default_rng(2).normal(0, 0.005, (RATE_HZ, 6))
    murmur[:, 2] += voice(seed=7)
    write(path, murmur)


def twice(path: Path) -> None:
    pcm = (voice(seed=20) * 32767).astype(np.int16)
    write(path, pcm)
    write(path.with_name("the same audio again.flac"), pcm)


def loop_of_folders(path: Path) -> None:
    write(path, voice(seed=21))
    (path.parent / "inner").mkdir()
    (path.parent / "inner" / "back").symlink_to(path.parent, target_is_directory=True)


def hidden(path: Path) -> None:
    write(path, voice(seed=22))
    path.with_name("._beside.wav").write_bytes(b"\0\5\x16\7 what macOS leaves beside every file")


def other_bytes(path: Path) -> None:
    write(path, voice(seed=23))
    os.rename(path, os.fsencode(path.parent) + b"/caf\xe9.wav")


KINDS: dict[str, tuple[str, Callable[[Path], object]]] = {
    "0 bytes": ("a.wav", lambda path: path.write_bytes(b"")),
    "text under an audio name": ("a.wav", lambda path: path.write_text("no audio at all\n" * 20)),
    "noise of bytes": ("a.flac", lambda path: path.write_bytes(np.random.default_rng(0).bytes(5_000))),
    "a Git LFS pointer": (
        "a.wav",
        lambda path: path.write_text("version https://git-lfs.github.com/spec/v1\noid sha256:4d7a\nsize 9\n"),
    ),
    "a WAV that was cut off": ("a.wav", truncated),
    "a FLAC that was cut off": ("a.flac", truncated),
    "a header and nothing else": ("a.wav", lambda path: write(path, np.zeros(0, np.float32))),
    "an extension that is wrong": ("a.wav", lambda path: write(path, voice(seed=2), format="FLAC")),
    "NaN or infinite samples": ("a.wav", with_nan),
    "float samples scaled like integers": (
        "a.wav",
        lambda path: write(path, voice(seed=3) * 32768, subtype="FLOAT"),
    ),
    "8 bits": ("a.wav", lambda path: write(path, voice(seed=4), subtype="PCM_U8")),
    "24 bits": ("a.wav", lambda path: write(path, voice(seed=5), subtype="PCM_24")),
    "96 kHz": ("a.wav", lambda path: write(path, voice(rate=96_000, seed=6), 96_000)),
    "5.1 channels": ("a.wav", surround),
    "one channel of two dead": ("a.wav", lambda path: write(path, channels(voice(seed=8), np.zeros(RATE_HZ)))),
    "stereo in opposite phase": ("a.wav", lambda path: write(path, channels(voice(seed=9), -voice(seed=9)))),
    "two microphones apart": (
        "a.wav",
        lambda path: write(path, channels(voice(seed=24), 0.6 * np.roll(voice(seed=24), 19))),
    ),
    "a constant offset": ("a.wav", lambda path: write(path, voice(seed=10) + np.float32(0.2))),
    "nothing but an offset": ("a.wav", lambda path: write(path, np.full(RATE_HZ, 0.2, np.float32))),
    "silence": ("a.wav", lambda path: write(path, np.zeros(RATE_HZ, np.float32))),
    "one sample": ("a.wav", lambda path: write(path, voice()[4:5])),
    "three hours": ("a.wav", three_hours),
    "a name in any script": ("çağrı 第一 'a' #1?%20 ✆.wav", lambda path: write(path, voice(seed=11))),
    "a line break in the name": ("a\nb.wav", lambda path: write(path, voice(seed=12))),
    "a name that is not UTF-8": ("a.wav", other_bytes),
    "the same audio under two names": ("a.wav", twice),
    "a loop of linked folders": ("a.wav", loop_of_folders),
    "a link to itself": ("a.wav", lambda path: path.symlink_to(path)),
    "a link to nothing": ("a.wav", lambda path: path.symlink_to(path.with_name("gone.wav"))),
    "a hidden file beside it": ("a.wav", hidden),
    "a named pipe": ("a.wav", os.mkfifo),
}
"""Row of the document's table on folders -> a file of that kind, in a folder of its own."""

ROWS: dict[str, tuple[list[dict[str, Any]], int]] = {
    "a row twice": ([{"id": "r", "audio": "a.wav", "emotion": "anger"}] * 2, 30),
    "one id for two recordings": ([{"id": "r", "audio": name, "emotion": "anger"} for name in ("a.wav", "b.wav")], 31),
    "a label without audio": ([{"id": "r", "audio": "gone.wav", "emotion": "anger"}], 33),
    "audio without a label": ([{"id": "r", "audio": "a.wav", "emotion": None}], 34),
    "a segment outside its recording": ([{"id": "r", "audio": "a.wav", "start": 0.5, "end": 7}], 35),
}
"""Row of the table on manifests -> its rows, and the seed of its recordings."""


def documented() -> dict[str, str]:
    """The table of docs/pools.md: kind -> what becomes of it."""
    section = DOCUMENT.read_text().split("## What becomes of what", 1)[1].split("\n## ", 1)[0]
    rows = re.findall(r"^\| (.+?) \| (.+?) \|$", section, re.MULTILINE)
    return {kind: outcome for kind, outcome in rows if not kind.startswith("--") and outcome != "ends in"}


def outcomes(pool: Pool, folder: str) -> str:
    """Outcomes of the files of one folder, in the document's words."""
    results = [f"quarantine: `{row['reason']}`" for row in pool.quarantine.to_pylist() if inside(row, folder)]
    for shard in pool.shards:
        for row in pool.read(shard).drop_columns("audio").to_pylist():
            if inside(row, folder):
                assert row["duration_s"] == pytest.approx(1.0, abs=0.01)
                notes = [f"`{row['channel_fault']}`"] * bool(row["channel_fault"])
                notes += ["marked as duplicate"] * bool(row["duplicate_of"])
                results.append("; ".join(["pool", *notes]))
    return ", ".join(sorted(results))


def inside(row: dict[str, Any], folder: str) -> bool:
    return bool(row["source"].startswith(f"{folder}/"))


def test_files_end_as_documented(tmp_path: Path) -> None:
    root = tmp_path / "calls"
    for number, (name, make) in enumerate(KINDS.values()):
        (root / f"{number:02d}").mkdir(parents=True)
        make(root / f"{number:02d}" / name)
    settings = {
        "reader": "folder",
        "root": str(root),
        "out": str(tmp_path / "pool"),
        "max_bad_share": 1,
        "voice": False,
    }
    import_corpus(parse(ImportOptions, settings))
    pool = open_pool(str(tmp_path / "pool"))
    expected = {kind: outcome for kind, outcome in documented().items() if kind not in ROWS}
    assert {kind: outcomes(pool, f"{number:02d}") for number, kind in enumerate(KINDS)} == expected
    assert check_pool(pool.uri) == []


def test_rows_end_as_documented(tmp_path: Path) -> None:
    rows = []
    for number, (settings, seed) in enumerate(ROWS.values()):
        for name, shift in (("a.wav", 0), ("b.wav", 10)):
            write(tmp_path / "calls" / str(number) / name, voice(seed=seed + shift))
        rows += [row | {"id": f"{number}{row['id']}", "audio": f"{number}/{row['audio']}"} for row in settings]
    manifest = tmp_path / "calls" / "manifest.jsonl"
    manifest.write_text("".join(json.dumps(row) + "\n" for row in rows))
    settings = {"reader": "manifest", "root": str(manifest), "out": str(tmp_path / "pool"), "voice": False}
    import_corpus(parse(ImportOptions, settings))
    pool = open_pool(str(tmp_path / "pool"))
    expected = {kind: outcome for kind, outcome in documented().items() if kind in ROWS}
    assert {kind: outcomes(pool, str(number)) for number, kind in enumerate(ROWS)} == expected
    assert check_pool(pool.uri) == []
