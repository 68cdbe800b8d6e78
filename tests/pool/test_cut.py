from pathlib import Path

import numpy as np
import pytest
import soundfile as sf

from seral.errors import ReaderError
from seral.options import parse
from seral.pool.cut import CutOptions, cut_recordings

RATE = 8000


@pytest.fixture
def recordings(tmp_path: Path) -> Path:
    """A ramp of 5 s and one of 1 s, in folders."""
    for name, seconds in (("a/long", 5), ("b/short", 1)):
        file = tmp_path / "in" / f"{name}.flac"
        file.parent.mkdir(parents=True)
        sf.write(file, np.linspace(-0.9, 0.9, seconds * RATE), RATE, subtype="PCM_16")
    return tmp_path / "in"


def test_clips_are_the_recording_piece_by_piece(recordings: Path, tmp_path: Path) -> None:
    told = cut_recordings(parse(CutOptions, {"root": str(recordings), "out": str(tmp_path / "out"), "clip_s": 2}))
    assert told.startswith("2 clips of 2 recordings")
    files = sorted((tmp_path / "out").rglob("*.flac"))
    assert [str(f.relative_to(tmp_path / "out")) for f in files] == ["a/long-000.flac", "a/long-001.flac"]
    whole = sf.read(recordings / "a" / "long.flac")[0]
    assert np.concatenate([sf.read(f)[0] for f in files]).tolist() == whole[: 4 * RATE].tolist()


def test_clips_may_overlap(recordings: Path, tmp_path: Path) -> None:
    values = {"root": str(recordings), "out": str(tmp_path / "out"), "clip_s": 1, "hop_s": 0.5}
    cut_recordings(parse(CutOptions, values))
    assert len(list((tmp_path / "out" / "a").iterdir())) == 9
    third = sf.read(tmp_path / "out" / "a" / "long-003.flac")[0]
    assert third.tolist() == sf.read(recordings / "a" / "long.flac")[0][int(1.5 * RATE) : int(2.5 * RATE)].tolist()


def test_a_folder_without_audio_is_named(tmp_path: Path) -> None:
    with pytest.raises(ReaderError, match="no audio below"):
        cut_recordings(CutOptions(root=str(tmp_path), out=str(tmp_path / "out")))
