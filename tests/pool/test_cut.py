import json
from collections.abc import Callable
from importlib.util import find_spec
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest
import soundfile as sf

from seral.errors import OptionError, ReaderError
from seral.options import parse
from seral.pool.cut import cut_recordings, join_speakers, part_name
from seral.pool.ingest import import_corpus
from seral.pool.options import CutOptions, ImportOptions
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
    values = {"reader": "manifest", "root": str(tmp_path / "cut"), "out": str(tmp_path / "pool")}
    counts = import_corpus(parse(ImportOptions, values | {"allow_outside": True}))
    assert (counts["utterances"], counts["reasons"]) == (2, {"not-audio": 1})
    opened = open_pool(str(tmp_path / "pool"))
    pool = pa.concat_tables(map(opened.read, opened.shards)).sort_by("start_s").to_pylist()
    for row, listed, began_s in zip(pool, rows, (3, 8), strict=False):
        assert (row["start_s"], row["end_s"], row["session"]) == (listed["start_s"], listed["end_s"], "day/one")
        assert row["start_s"] < began_s + 1
        assert row["end_s"] > began_s + 1
        assert row["duration_s"] == pytest.approx(row["end_s"] - row["start_s"], abs=1e-3)


def test_options_of_speakers_that_cannot_work_are_refused() -> None:
    for values, words in (
        ({"clip_s": 2, "speakers": "recording"}, "leave out clip_s"),
        ({"speakers": "all"}, "takes voices=ge2e"),
        ({"speakers": "all", "voices": "ge2e", "channel": "apart"}, "one channel"),
    ):
        with pytest.raises(OptionError, match=words):
            parse(CutOptions, {"root": "in", "out": "out", **values})


def test_weights_that_are_not_installed_are_named_with_the_command(recordings: Path, tmp_path: Path) -> None:
    if find_spec("resemblyzer") is not None:
        pytest.skip("they are installed")
    with pytest.raises(OptionError, match="pip install --no-deps resemblyzer"):
        cut_recordings(CutOptions(root=str(recordings), out=str(tmp_path), speakers="recording", voices="ge2e"))


def test_a_part_has_another_name_where_options_or_the_recording_change(recordings: Path, tmp_path: Path) -> None:
    item = {"path": str(recordings / "b" / "short.flac"), "source": "b/short.flac"}
    options = CutOptions(root=str(recordings), out=str(tmp_path))
    names = {part_name(item, options), part_name(item, options.model_copy(update={"max_s": 9.0}))}
    sf.write(recordings / "b" / "short.flac", np.zeros(2 * RATE), RATE)
    assert len(names | {part_name(item, options)}) == 3
    assert part_name(item, options) == part_name(item, options.model_copy(update={"likeness": 0.5}))


def test_speakers_of_all_recordings_have_the_first_ones_name() -> None:
    recordings = [
        {"stem": stem, "centres": centres, "rows": [{"speaker": f"{stem}#{n}"} for n in (1, 2)]}
        for stem, centres in (("a", [[1.0, 0.0], [0.0, 1.0]]), ("b", [[0.0, 1.0], [-1.0, 0.0]]))
    ]
    join_speakers(recordings, 0.8)
    assert [row["speaker"] for recording in recordings for row in recording["rows"]] == ["a#1", "a#2", "a#2", "b#2"]


@pytest.mark.ray
@pytest.mark.usefixtures("ray_session")
def test_parties_and_voices_are_speakers_of_a_pool_and_a_second_run_listens_to_nothing(
    tmp_path: Path, speech: Callable[[float, int], np.ndarray], monkeypatch: pytest.MonkeyPatch
) -> None:
    pause = np.random.default_rng(0).normal(0, 0.001, 2 * 16_000).astype(np.float32)
    first, second = speech(3.0, 1), speech(3.0, 5)
    left = np.concatenate([pause, first, pause, 0.05 * second, pause])
    right = np.concatenate([pause, 0.05 * first, pause, second, pause])
    calls, out = tmp_path / "calls", tmp_path / "cut"
    calls.mkdir()
    sf.write(calls / "one.wav", np.stack([left, right], axis=1), 16_000)
    sf.write(calls / "two.wav", left, 16_000)
    options = CutOptions(root=str(calls), out=str(out), channel="apart", speakers="recording")
    summary = cut_recordings(options)
    assert "without two channels that differ, and so without parties: two.wav" in summary
    written = (out / "manifest.jsonl").read_bytes()
    rows = [json.loads(line) for line in written.splitlines()]
    assert {row["speaker"]: row["speaker_source"] for row in rows}.items() >= {
        ("one#left", "channel"),
        ("one#right", "channel"),
        ("two#1", "voice"),
    }
    assert all((row["start_s"] < 6) == (row["audio_channel"] == "left") for row in rows if row["session"] == "one")
    values = {"reader": "manifest", "root": str(out), "out": str(tmp_path / "pool"), "allow_outside": True}
    import_corpus(parse(ImportOptions, values))
    opened = open_pool(str(tmp_path / "pool"))
    pool = pa.concat_tables(map(opened.read, opened.shards)).to_pylist()
    loudness_db = {row["speaker"]: row["loudness_db"] for row in pool if row["session"] == "one"}
    assert loudness_db.keys() == {"one#left", "one#right"}
    assert all(level > -30 for level in loudness_db.values())  # the party, and not its leak
    monkeypatch.setattr("seral.pool.cut.ray.data.from_items", None)
    assert cut_recordings(options) == summary
    assert (out / "manifest.jsonl").read_bytes() == written
