"""Clips inside tars and Parquet files, and the shapes of other toolkits' tables."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from corpora.containers import SCHEMA, clip, write_audiofolder, write_hf_parquet, write_tar, write_webdataset

from seral.errors import ReaderError
from seral.pool.containers import Cell, Span, open_clip, restore
from seral.pool.decode import BadAudio, decode
from seral.pool.ingest import ImportOptions, Source, import_corpus, plan_chunks
from seral.pool.readers import READERS
from seral.pool.readers.utterance import Skipped, Utterance
from seral.pool.shards import check_pool, open_pool

Write = Callable[[Path], None]


def read(reader: str, root: Path) -> list[Utterance]:
    return [item for item in READERS[reader](root) if isinstance(item, Utterance)]


@pytest.mark.parametrize(("reader", "write"), [("webdataset", write_webdataset), ("hf-parquet", write_hf_parquet)])
class TestClipsInside:
    def test_the_bytes_are_those_that_were_put_in(self, tmp_path: Path, reader: str, write: Write) -> None:
        write(tmp_path)
        stored = {clip(seed, *kind) for seed in range(7) for kind in ((0.2, "WAV"), (0.2, "FLAC"), (0.5, "MP3"))}
        found = read(reader, tmp_path)
        assert len(found) > 1
        for utterance in reversed(found):
            with open_clip(utterance.audio, utterance.inside) as file:
                assert file.read() in stored
        opened = {decode(u.audio, inside=u.inside).samples.tobytes() for u in found}
        assert len(opened) == len(found)

    @pytest.mark.ray
    @pytest.mark.usefixtures("ray_session")
    def test_an_import_is_that_of_the_unpacked_files(self, tmp_path: Path, reader: str, write: Write) -> None:
        write(tmp_path / "packed")
        found = read(reader, tmp_path / "packed")
        for number, utterance in enumerate(found):
            with open_clip(utterance.audio, utterance.inside) as file:
                (tmp_path / f"{number:04d}.wav").write_bytes(file.read())
        lines = [json.dumps({"audio": f"{n:04d}.wav", "id": u.name}) for n, u in enumerate(found)]
        (tmp_path / "manifest.jsonl").write_text("\n".join(lines))
        pools = []
        for name, root in (("manifest", tmp_path), (reader, tmp_path / "packed")):
            given = {"reader": name, "root": str(root), "corpus": "calls", "out": str(tmp_path / f"pool-{name}")}
            import_corpus(ImportOptions.model_validate(given))
            assert check_pool(given["out"]) == []
            pools.append(open_pool(given["out"]))
        assert pools[0].metadata["utterance_id"].to_pylist() == pools[1].metadata["utterance_id"].to_pylist()
        assert pools[0].rows == len(found)


@pytest.mark.parametrize("place", [None, Span(offset=3, size=7), Cell(row_group=1, row=2, column="audio", size=9)])
def test_places_survive_the_way_to_the_workers(place: Span | Cell | None) -> None:
    assert restore(json.loads(json.dumps(place, default=vars))) == place


def test_chunks_of_parquet_hold_neighbouring_rows(tmp_path: Path) -> None:
    """Names that sort otherwise than the rows would make every clip read a row group of its own."""
    write_hf_parquet(tmp_path, rows=12)
    found = read("hf-parquet", tmp_path)
    sources = [Source(utterance=utterance, size=1) for utterance in found]
    chunks = plan_chunks(list(reversed(sources)), shard_bytes=4)
    places = [source.utterance.inside for chunk in chunks for source in chunk.sources]
    assert places == [utterance.inside for utterance in found]


def test_a_segment_inside_a_tar_is_cut(tmp_path: Path) -> None:
    whole, fields = clip(0, 1.0), {"start": 0.25, "end": 0.5}
    write_tar(tmp_path / "a.tar", {"u.wav": whole, "u.json": json.dumps(fields).encode()})
    (found,) = read("webdataset", tmp_path)
    (tmp_path / "u.wav").write_bytes(whole)
    cut = decode(found.audio, inside=found.inside, start_s=found.start_s, end_s=found.end_s)
    np.testing.assert_array_equal(cut.samples, decode(tmp_path / "u.wav").samples[4_000:8_000])


@pytest.mark.parametrize(
    ("data", "reason"), [(b"", "empty"), (b"no sound" * 9, "not-audio"), (clip(0)[:999], "truncated")]
)
def test_bad_clips_in_a_tar_are_told_apart(tmp_path: Path, data: bytes, reason: str) -> None:
    write_tar(tmp_path / "a.tar", {"a.wav": clip(1), "b.wav": data, "c.wav": clip(2)})
    _, bad, _ = read("webdataset", tmp_path)
    with pytest.raises(BadAudio, match=reason):
        decode(bad.audio, inside=bad.inside)


def test_bad_cells_of_parquet_are_told_apart(tmp_path: Path) -> None:
    rows = [{"audio": {"bytes": None, "path": "a.wav"}}, {"audio": None}]
    path = tmp_path / "a.parquet"
    pq.write_table(pa.Table.from_pylist(rows, SCHEMA), path)
    for utterance in read("hf-parquet", tmp_path):
        with pytest.raises(BadAudio, match=r"missing: row . of row group 0 .* holds no audio"):
            decode(utterance.audio, inside=utterance.inside)
    path.write_bytes(path.read_bytes()[:100])
    with pytest.raises(BadAudio, match="unreadable"):
        decode(path, inside=Cell(row_group=0, row=0, column="audio", size=1))


def test_samples_without_audio_are_skipped(tmp_path: Path) -> None:
    write_tar(tmp_path / "a.tar", {"a.wav": clip(1), "b.json": b"{}", "b.txt": b"Hm."})
    (skipped,) = (item for item in READERS["webdataset"](tmp_path) if isinstance(item, Skipped))
    assert (skipped.source, skipped.reason, skipped.size) == ("a.tar/b.json", "missing", 2)
    assert skipped.detail == "no audio among json, txt of the sample b"


@pytest.mark.parametrize(
    ("members", "message"),
    [
        ({"a.wav": b"", "a.json": b"{"}, r"a\.tar, a\.json: not valid JSON"),
        ({"a.wav": b"", "a.json": b"[1]"}, r"a\.tar, a\.json: expected an object .* got list"),
        ({"a.wav": b"", "a.json": b'{"gender": "x"}'}, r"a\.tar, a\.wav, column 'gender': unknown word 'x'"),
    ],
)
def test_webdataset_errors_name_the_member(tmp_path: Path, members: dict[str, bytes], message: str) -> None:
    write_tar(tmp_path / "a.tar", members)
    with pytest.raises(ReaderError, match=message):
        read("webdataset", tmp_path)


def test_compressed_tars_are_refused(tmp_path: Path) -> None:
    (tmp_path / "a.tar").write_bytes(b"\x1f\x8b" + bytes(600))
    with pytest.raises(ReaderError, match=r"a\.tar is no tar that can be read .* unpack it"):
        read("webdataset", tmp_path)


def test_one_file_is_read_like_a_folder_of_one(tmp_path: Path) -> None:
    write_hf_parquet(tmp_path)
    parquet = tmp_path / "data" / "train-00000-of-00001.parquet"
    assert read("hf-parquet", parquet) == [replace(u, corpus="data") for u in read("hf-parquet", tmp_path / "data")]
    tar = write_tar(tmp_path / "shards" / "a.tar", {"a.wav": clip(1)})
    assert read("webdataset", tar) == read("webdataset", tmp_path / "shards")


def test_parquet_without_audio_is_refused(tmp_path: Path) -> None:
    pq.write_table(pa.table({"path": ["a.wav"], "label": ["anger"]}), tmp_path / "a.parquet")
    with pytest.raises(ReaderError, match=r"no column of audio: .* there is: path, label\. .* reader `manifest`"):
        read("hf-parquet", tmp_path)
    (tmp_path / "a.parquet").write_bytes(b"not parquet")
    with pytest.raises(ReaderError, match="is not a Parquet file"):
        read("hf-parquet", tmp_path)


def test_columns_of_parquet_can_be_named(tmp_path: Path) -> None:
    write_hf_parquet(tmp_path)
    columns = {"text": "", "session": "speaker_id"}
    (first, *_) = READERS["hf-parquet"](tmp_path, columns=columns, corpus="calls")  # type: ignore[call-arg]
    assert isinstance(first, Utterance)
    assert (first.text, first.session, first.corpus) == (None, "s0", "calls")
    with pytest.raises(ReaderError, match="no column 'scores' for emotion"):
        list(READERS["hf-parquet"](tmp_path, columns={"emotion": "scores"}))  # type: ignore[call-arg]


def test_audiofolder_without_a_table_labels_by_folder(tmp_path: Path) -> None:
    write_audiofolder(tmp_path)
    for table in ("train/metadata.csv", "test/metadata.jsonl"):
        (tmp_path / table).unlink()
    for name in ("train/anger/a.wav", "validation/neutral/b.flac", "c.wav"):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_bytes(clip(0))
    found = {u.source: (u.split, u.emotion) for u in read("audiofolder", tmp_path)}
    expected = {"c.wav": (None, None), "train/anger/a.wav": ("train", "anger")}
    assert found == expected | {"validation/neutral/b.flac": ("dev", "neutral")}


def test_audiofolder_needs_file_names(tmp_path: Path) -> None:
    (tmp_path / "metadata.csv").write_text("audio,label\na.wav,anger\n")
    with pytest.raises(ReaderError, match=r"metadata\.csv has no column file_name; it has: audio, label"):
        read("audiofolder", tmp_path)
