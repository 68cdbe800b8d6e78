import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest
import soundfile as sf

from seral.errors import OptionError, ReaderError
from seral.options import parse
from seral.pool.cut import CutOptions, cut_recordings
from seral.pool.ingest import ImportOptions, import_corpus
from seral.pool.shards import open_pool

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
    summary = cut_recordings(parse(CutOptions, {"root": str(recordings), "out": str(tmp_path / "out"), "clip_s": 2}))
    assert summary.startswith("2 clips of 2 recordings")
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


def test_options_that_contradict_each_other_are_refused() -> None:
    for values, words in (({"max_s": 1}, "max_s must hold two"), ({"hop_s": 1}, "give clip_s too")):
        with pytest.raises(OptionError, match=words):
            parse(CutOptions, {"root": "in", "out": "out", **values})


@pytest.mark.ray
@pytest.mark.usefixtures("ray_session")
def test_utterances_of_recordings_are_listed_and_imported_with_their_place(
    tmp_path: Path, speech: Callable[[float, int], np.ndarray]
) -> None:
    rng = np.random.default_rng(0)
    pause = rng.normal(0, 0.003, (2, 3 * 16_000)).astype(np.float32)
    spoken = [speech(2.0, seed) for seed in (1, 5)]
    call = np.concatenate([pause[0], spoken[0], pause[1], spoken[1], pause[0]])
    (tmp_path / "calls" / "day").mkdir(parents=True)
    sf.write(tmp_path / "calls" / "day" / "one.flac", np.stack([call, call], axis=1), 16_000)
    sf.write(tmp_path / "calls" / "empty.wav", pause[0], 16_000)
    (tmp_path / "calls" / "text.wav").write_text("this is no audio")
    summary = cut_recordings(CutOptions(root=str(tmp_path / "calls"), out=str(tmp_path / "cut")))
    assert "nobody speaks in: empty.wav" in summary
    assert "the import to say why: text.wav" in summary
    rows = [json.loads(line) for line in (tmp_path / "cut" / "manifest.jsonl").read_text().splitlines()]
    assert [row["session"] for row in rows] == ["day/one", "day/one", "text"]
    assert all(row["audio"].startswith("../calls/") for row in rows)
    counts = import_corpus(
        parse(ImportOptions, {"reader": "manifest", "root": str(tmp_path / "cut"), "out": str(tmp_path / "pool")})
    )
    assert (counts["utterances"], counts["reasons"]) == (2, {"not-audio": 1})
    opened = open_pool(str(tmp_path / "pool"))
    pool = pa.concat_tables(map(opened.read, opened.shards)).sort_by("start_s").to_pylist()
    for row, listed, began_s in zip(pool, rows, (3, 8), strict=False):
        assert (row["start_s"], row["end_s"], row["session"]) == (listed["start_s"], listed["end_s"], "day/one")
        assert row["start_s"] < began_s + 1
        assert row["end_s"] > began_s + 1
        assert row["duration_s"] == pytest.approx(row["end_s"] - row["start_s"], abs=1e-3)
