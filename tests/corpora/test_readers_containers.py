"""Clips inside tars and Parquet files, and the shapes of other toolkits' tables."""

from __future__ import annotations

import bz2
import gzip
import json
import re
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from corpus_layouts.containers import (
    HEADER,
    SCHEMA,
    clip,
    write_audformat,
    write_audiofolder,
    write_hf_arrow,
    write_hf_parquet,
    write_tar,
    write_webdataset,
)

from seral.audio.containers import BATCH_ROWS, Cell, Span, open_clip, restore
from seral.audio.decode import BadAudio, decode
from seral.corpora import READERS
from seral.corpora.keywords import find_reader
from seral.corpora.options import CorpusOptions, read_corpus
from seral.corpora.reading.utterance import NO_AGREEMENT, Skipped, Utterance
from seral.errors import OptionError, ReaderError
from seral.pool.check import check_pool
from seral.pool.chunks import plan_chunks
from seral.pool.ingest import import_corpus
from seral.pool.listing import Listing, Source
from seral.pool.options import ImportOptions
from seral.pool.shards import open_pool

Write = Callable[[Path], None]


def read(reader: str, root: Path) -> list[Utterance]:
    return [item for item in READERS[reader](root) if isinstance(item, Utterance)]


@pytest.mark.parametrize(
    ("reader", "write"),
    [("webdataset", write_webdataset), ("hf-parquet", write_hf_parquet), ("hf-arrow", write_hf_arrow)],
)
class TestClipsInside:
    def test_the_bytes_are_those_that_were_put_in(self, tmp_path: Path, reader: str, write: Write) -> None:
        write(tmp_path)
        stored = {clip(seed, *kind) for seed in range(7) for kind in ((0.2, "WAV"), (0.2, "FLAC"), (0.5, "MP3"))}
        utterances = read(reader, tmp_path)
        assert len(utterances) > 1
        for utterance in reversed(utterances):
            with open_clip(utterance.audio, utterance.inside) as file:
                assert file.read() in stored
        opened = {decode(u.audio, inside=u.inside).samples.tobytes() for u in utterances}
        assert len(opened) == len(utterances)

    @pytest.mark.ray
    @pytest.mark.usefixtures("ray_session")
    def test_an_import_is_that_of_the_unpacked_files(self, tmp_path: Path, reader: str, write: Write) -> None:
        write(tmp_path / "packed")
        utterances = read(reader, tmp_path / "packed")
        for number, utterance in enumerate(utterances):
            with open_clip(utterance.audio, utterance.inside) as file:
                (tmp_path / f"{number:04d}.wav").write_bytes(file.read())
        lines = [json.dumps({"audio": f"{n:04d}.wav", "id": u.name}) for n, u in enumerate(utterances)]
        (tmp_path / "manifest.jsonl").write_text("\n".join(lines))
        pools = []
        for name, root in (("manifest", tmp_path), (reader, tmp_path / "packed")):
            settings = {"reader": name, "root": str(root), "corpus": "calls", "out": str(tmp_path / f"pool-{name}")}
            import_corpus(ImportOptions.model_validate(settings))
            assert check_pool(settings["out"]) == []
            pools.append(open_pool(settings["out"]))
        assert pools[0].metadata["utterance_id"].to_pylist() == pools[1].metadata["utterance_id"].to_pylist()
        assert pools[0].rows == len(utterances)


@pytest.mark.parametrize("inside", [None, Span(offset=3, size=7), Cell(row_group=1, row=2, column="audio", size=9)])
def test_places_survive_the_way_to_the_workers(inside: Span | Cell | None) -> None:
    assert restore(json.loads(json.dumps(inside, default=vars))) == inside


def test_chunks_of_parquet_hold_neighbouring_rows(tmp_path: Path) -> None:
    """Names that sort otherwise than the rows would make every clip read a row group of its own."""
    write_hf_parquet(tmp_path, rows=12)
    utterances = read("hf-parquet", tmp_path)
    with Listing(Source(utterance=utterance, size=1) for utterance in reversed(utterances)) as listing:
        rows = [row for chunk in plan_chunks(listing, np.arange(12), shard_bytes=4) for row in chunk.rows.tolist()]
        cells = [listing.source(row).utterance.inside for row in rows]
    assert cells == [utterance.inside for utterance in utterances]


def test_rows_of_parquet_are_found_in_any_order(tmp_path: Path) -> None:
    """Row groups of several batches, read forward by design: jumps and steps back must not lose count."""
    rows = 3 * BATCH_ROWS + 1
    write_hf_parquet(tmp_path, rows=rows, row_group=2 * BATCH_ROWS + 1)
    utterances = read("hf-parquet", tmp_path)
    for row in np.random.default_rng(0).integers(rows, size=60):
        with open_clip(utterances[row].audio, utterances[row].inside) as file:
            assert file.read() == clip(row)


def test_a_segment_inside_a_tar_is_cut(tmp_path: Path) -> None:
    whole, fields = clip(0, 1.0), {"start": 0.25, "end": 0.5}
    write_tar(tmp_path / "a.tar", {"u.wav": whole, "u.json": json.dumps(fields).encode()})
    (utterance,) = read("webdataset", tmp_path)
    (tmp_path / "u.wav").write_bytes(whole)
    cut = decode(utterance.audio, inside=utterance.inside, start_s=utterance.start_s, end_s=utterance.end_s)
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
        ({"a.wav": b"", "a.json": b"{"}, r"a\.json: not valid JSON"),
        ({"a.wav": b"", "a.json": b"[1]"}, r"a\.json: expected an object .* got list"),
    ],
)
def test_a_sample_whose_text_cannot_be_read_is_left_out(
    tmp_path: Path, members: dict[str, bytes], message: str
) -> None:
    write_tar(tmp_path / "a.tar", members)
    (skipped,) = READERS["webdataset"](tmp_path)
    assert isinstance(skipped, Skipped)
    assert (skipped.source, skipped.reason) == ("a.tar/a.wav", "bad-text")
    assert re.match(message, skipped.detail)


def test_webdataset_errors_name_the_member(tmp_path: Path) -> None:
    write_tar(tmp_path / "a.tar", {"a.wav": b"", "a.json": b'{"gender": "x"}'})
    with pytest.raises(ReaderError, match=r"a\.tar, a\.wav, column 'gender': unknown word 'x'"):
        read("webdataset", tmp_path)


PACKERS: dict[str, Callable[[bytes], bytes]] = {
    "tar.gz": gzip.compress,
    "tgz": gzip.compress,
    "tar.bz2": bz2.compress,
    "tar.zst": lambda data: pa.Codec("zstd").compress(data, asbytes=True),
}


@pytest.mark.parametrize("suffix", PACKERS)
def test_a_packed_tar_holds_what_it_holds_unpacked(tmp_path: Path, suffix: str) -> None:
    """Clips read in any order, and shuffled as shards for training are."""
    order = np.random.default_rng(0).permutation(40).tolist()
    members = {f"c{n:02d}.{kind}": clip(n) if kind == "wav" else b"anger" for n in order for kind in ("wav", "cls")}
    tar = write_tar(tmp_path / "plain" / "train-0.tar", members)
    (tmp_path / "packed").mkdir()
    (tmp_path / "packed" / f"train-0.{suffix}").write_bytes(PACKERS[suffix](tar.read_bytes()))
    (tmp_path / "packed" / "notes.gz").write_bytes(b"no tar")
    plain, packed = read("webdataset", tmp_path / "plain"), read("webdataset", tmp_path / "packed")
    assert [(u.name, u.emotion, u.split) for u in packed] == [(u.name, u.emotion, u.split) for u in plain]
    for row in [*range(40), 7, 39, 0]:
        with open_clip(packed[row].audio, packed[row].inside) as file:
            assert file.read() == clip(order[row])


@pytest.mark.ray
@pytest.mark.usefixtures("ray_session")
def test_a_packed_tar_makes_the_same_pool(tmp_path: Path) -> None:
    tar = write_tar(tmp_path / "calls.tar", {f"{n}.wav": clip(n, 1.0) for n in (3, 1, 2, 0)})
    (tmp_path / "calls.tar.gz").write_bytes(gzip.compress(tar.read_bytes()))
    hashes = []
    for name in ("calls.tar", "calls.tar.gz"):
        out = str(tmp_path / f"pool-{name}")
        import_corpus(ImportOptions(reader="webdataset", root=str(tmp_path / name), corpus="c", out=out))
        hashes.append(open_pool(out).hash)
    assert hashes[0] == hashes[1]


@pytest.mark.parametrize(
    ("name", "data"),
    [
        ("a.tar", gzip.compress(bytes(600))),
        ("a.tar.gz", b"\x1f\x8b" + bytes(600)),
        ("a.tar.gz", gzip.compress(bytes(range(256)) * 40)[:-200]),
        ("a.tar.zst", b"no frame" * 100),
    ],
    ids=["compressed-without-saying-so", "no-stream", "cut-off", "no-frame"],  # bytes that hold the time are no name
)
def test_damaged_tars_are_refused(tmp_path: Path, name: str, data: bytes) -> None:
    (tmp_path / name).write_bytes(data)
    with pytest.raises(ReaderError, match=rf"{name} is no tar that can be read .* packed one is called .tar.gz"):
        read("webdataset", tmp_path)


def test_a_bomb_in_a_tar_is_refused(tmp_path: Path) -> None:
    members = {"a.wav": clip(1), "a.json": bytes(2_000_001), "b.wav": clip(2), "b.json": b"[" * 100_000}
    tar = write_tar(tmp_path / "bomb", members | {"c.wav": clip(3), "c.json": b'{"speaker": "x"}'})
    (tmp_path / "a.tar.gz").write_bytes(gzip.compress(tar.read_bytes()))
    bomb, nested, fine = read_corpus(CorpusOptions(reader="webdataset", root=str(tmp_path), max_text_mb=2))
    assert isinstance(bomb, Skipped)
    assert isinstance(nested, Skipped)
    assert isinstance(fine, Utterance)
    assert (bomb.reason, nested.reason) == ("bad-text", "bad-text")
    assert "a.json: 2,000,001 bytes of text, more than max_text_mb" in bomb.detail
    assert "b.json: not valid JSON: nested deeper than 64 levels" in nested.detail
    assert fine.speaker == "x"


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


def test_arrow_files_that_are_none_or_say_too_little_are_named(tmp_path: Path) -> None:
    with pytest.raises(ReaderError, match=r"me/emotions is not a folder.* hf download me/emotions --repo-type dataset"):
        read("hf-arrow", Path("me/emotions"))
    write_hf_arrow(tmp_path / "set")
    with pytest.raises(ReaderError, match=r"no \.parquet file below .*; its \.arrow files are for the reader hf-arrow"):
        read("hf-parquet", tmp_path / "set")
    file = tmp_path / "set" / "test" / "data-00000-of-00001.arrow"
    state = file.parent / "state.json"
    state.write_text(state.read_text().replace("{", '{"_indices_data_files": [{"filename": "i.arrow"}],', 1))
    with pytest.raises(ReaderError, match=r"test has an order of its own; save it after flatten_indices\(\)"):
        read("hf-arrow", tmp_path / "set")
    for name, data in (("a", b"no arrow"), ("b", b""), ("c", file.read_bytes()[:-900])):
        (tmp_path / f"{name}.arrow").write_bytes(data)
        with pytest.raises(ReaderError, match=rf"{name}\.arrow is no Arrow stream"):
            read("hf-arrow", tmp_path / f"{name}.arrow")
    table = pa.Table.from_pylist([{"audio": {"bytes": clip(0, 1.0), "path": "a.wav"}}])
    packed = pa.ipc.IpcWriteOptions(compression="zstd")
    with pa.ipc.new_stream(tmp_path / "d.arrow", table.schema, options=packed) as stream:
        stream.write_table(table)
    with pytest.raises(ReaderError, match=r"d\.arrow is compressed; save it again with save_to_disk"):
        read("hf-arrow", tmp_path / "d.arrow")


def test_rows_of_arrow_without_bytes_are_the_files_they_name(tmp_path: Path) -> None:
    (tmp_path / "a.wav").write_bytes(clip(0))
    paths = [str(tmp_path / "a.wav"), str(tmp_path / "gone.wav")]
    rows = [{"audio": {"bytes": None, "path": path}, "label": 1} for path in paths] + [{"audio": None, "label": 0}]
    table = pa.Table.from_pylist(rows, SCHEMA)
    with pa.ipc.new_stream(tmp_path / "x.arrow", table.schema) as stream:
        stream.write_table(table)
    first, *others = READERS["hf-arrow"](tmp_path / "x.arrow")
    assert isinstance(first, Utterance)
    assert (first.audio, first.inside, first.emotion) == (tmp_path / "a.wav", None, "neutral")
    assert [(other.source, getattr(other, "reason", None)) for other in others] == [
        ("x.arrow/00000001", "missing"),
        ("x.arrow/00000002", "missing"),
    ]


COLUMNS = {"hf-arrow": "speaker_id", "hf-parquet": "speaker_id", "audiofolder": "speaker", "webdataset": "speaker"}


@pytest.mark.parametrize("reader", COLUMNS)
def test_columns_can_be_named(tmp_path: Path, reader: str) -> None:
    for write in (write_hf_parquet, write_hf_arrow, write_webdataset, write_audiofolder):
        write(tmp_path)
    (tmp_path / "test" / "metadata.jsonl").unlink()
    expected = {utterance.source: utterance.speaker for utterance in read(reader, tmp_path)}
    read_with = find_reader(reader, {"columns": {"session": COLUMNS[reader], "emotion": ""}, "corpus": "calls"})
    utterances = [item for item in read_with(tmp_path) if isinstance(item, Utterance)]
    assert {utterance.source: utterance.session for utterance in utterances} == expected
    assert {utterance.corpus for utterance in utterances} == {"calls"}
    assert {utterance.emotion for utterance in utterances} == {None}
    with pytest.raises(ReaderError, match=r"has no column 'mood' for emotion; it has: .*speaker"):
        list(find_reader(reader, {"columns": {"emotion": "mood"}})(tmp_path))


def test_audiofolder_without_a_table_labels_by_folder(tmp_path: Path) -> None:
    write_audiofolder(tmp_path)
    for table in ("train/metadata.csv", "test/metadata.jsonl"):
        (tmp_path / table).unlink()
    for name in ("train/anger/a.wav", "validation/neutral/b.flac", "c.wav"):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_bytes(clip(0))
    split_and_emotion = {u.source: (u.split, u.emotion) for u in read("audiofolder", tmp_path)}
    expected = {"c.wav": (None, None), "train/anger/a.wav": ("train", "anger")}
    assert split_and_emotion == expected | {"validation/neutral/b.flac": ("dev", "neutral")}


def test_audiofolder_needs_file_names(tmp_path: Path) -> None:
    (tmp_path / "metadata.csv").write_text("audio,label\na.wav,anger\n")
    with pytest.raises(ReaderError, match=r"metadata\.csv has no column file_name; it has: audio, label"):
        read("audiofolder", tmp_path)


def test_audformat_segments_stand_for_their_file(tmp_path: Path) -> None:
    """Segments keep the file's speaker and split; what raters said of the whole file says nothing of a part."""
    write_audformat(tmp_path)
    _, first, second, _ = read("audformat", tmp_path)
    assert [first.source, second.source] == ["audio/b.wav#0.000-0.050", "audio/b.wav#0.050-"]
    assert (first.start_s, first.end_s, second.start_s, second.end_s) == (0.0, 0.05, 0.05, None)
    assert [(u.speaker, u.gender, u.split, u.emotion, u.votes) for u in (first, second)] == [
        ("s2", "male", "train", "neutral", ()),
        ("s2", "male", "train", "anger", ()),
    ]


def test_audformat_tables_may_be_parquet(tmp_path: Path) -> None:
    items = []
    for suffix in (".csv", ".parquet"):
        root = tmp_path / suffix[1:]
        root.mkdir()
        write_audformat(root, suffix)
        items.append([replace(utterance, audio=Path()) for utterance in read("audformat", root)])
    assert items[0] == items[1]


def test_audformat_speakers_may_be_labels_of_their_scheme(tmp_path: Path) -> None:
    write_audformat(tmp_path)
    labels = "{dtype: str, labels: {s1: {gender: female, language: deu, age: 31}, s2: {}}}"
    (tmp_path / "db.yaml").write_text(HEADER.replace("{dtype: str, labels: speaker}", labels))
    genders = {u.speaker: (u.gender, u.language) for u in read("audformat", tmp_path)}
    assert genders == {"s1": ("female", "de"), "s2": (None, "de")}


@pytest.mark.parametrize(
    ("header", "message"),
    [
        (
            HEADER.replace("  files:\n", "  others:\n"),
            r"lists the table 'others', but there is no db\.others",
        ),
        ("name: [", r"db\.yaml is not valid YAML"),
        ("- name", r"db\.yaml: expected a mapping, got list"),
        ("name: empty", r"db\.yaml has no table of files or segments"),
    ],
)
def test_damaged_audformat_headers_are_named(tmp_path: Path, header: str, message: str) -> None:
    write_audformat(tmp_path)
    (tmp_path / "db.yaml").write_text(header)
    with pytest.raises(ReaderError, match=message):
        read("audformat", tmp_path)


EMOBOX = {"key": "Ses01F_F000", "dataset": "iemocap", "wav": "a.wav", "type": "raw", "sample_rate": 16000,
          "num_frame": 31129, "length": 1.9, "task": "category", "emo": "neutral", "channel": 1}  # fmt: skip
SHAPES = {
    "emobox.jsonl": (json.dumps(EMOBOX), {"name": "Ses01F_F000", "corpus": "iemocap", "emotion": "neutral"}),
    "speechbrain.json": (
        json.dumps({"Ses01F_F000": {"wav": "{data_root}/a.wav", "length": 1.9, "emo": "neu"}}),
        {"name": "Ses01F_F000", "emotion": "neu", "end_s": None},
    ),
    "s3prl.json": (
        json.dumps({"labels": {"neu": 0}, "meta_data": [{"path": "a.wav", "label": "neu", "speaker": "Ses01F"}]}),
        {"name": "a", "emotion": "neu", "speaker": "Ses01F"},
    ),
    "peft-ser.json": (
        json.dumps({"train": [], "dev": [["u1", "s1", "female", "a.wav", "neu"]], "test": []}),
        {"name": "u1", "emotion": "neu", "speaker": "s1", "gender": "female", "split": "dev"},
    ),
    "nkululeko.csv": (
        "file,start,end,speaker,emotion,gender,language\na.wav,0 days,0 days 00:00:01.500000,s1,neutral,male,german\n",
        {"emotion": "neutral", "speaker": "s1", "gender": "male", "language": "de", "end_s": 1.5},
    ),
    "emo-superb.csv": (
        "FileName,Angry,Sad,Neutral,EmoAct,EmoVal,EmoDom,SpkrID,Gender,Split_Set\n"
        "a.wav,0.00625,0.95,0.04375,2.4,3.0,2.8,127,Female,Development\n",
        {"emotion": "Sad", "arousal": 2.4, "valence": 3.0, "speaker": "127", "split": "dev"},
    ),
}


@pytest.mark.parametrize("name", SHAPES)
def test_manifests_of_other_toolkits(tmp_path: Path, name: str) -> None:
    text, expected = SHAPES[name]
    (tmp_path / name).write_text(text)
    (utterance,) = read("manifest", tmp_path / name)
    assert utterance.audio == tmp_path / "a.wav"
    assert {field: getattr(utterance, field) for field in expected} == expected


def test_the_greatest_share_is_the_label_and_a_tie_is_none(tmp_path: Path) -> None:
    lines = ["path,Angry,Sad,Neutral", "a.wav,0.4,0.4,0.2", "b.wav,0,0,0", "c.wav,0.2,0,0.8"]
    (tmp_path / "m.csv").write_text("\n".join(lines))
    assert [u.emotion for u in read("manifest", tmp_path / "m.csv")] == [NO_AGREEMENT, None, "Neutral"]
    without = find_reader("manifest", {"columns": {"emotion": ""}})(tmp_path / "m.csv")
    assert {u.emotion for u in without if isinstance(u, Utterance)} == {None}


def write_rated(root: Path, reader: str) -> None:
    """Three clips, three raters each, as a reader has them; paths say the speaker, a table the session."""
    words = (("W", "W", "N"), ("N", "W", "T"), ("N", "N", "T"))
    paths = [f"clips/s{number % 2}_{number}.wav" for number in range(3)]
    rows = [dict(zip(("a1", "a2", "a3"), row, strict=True)) | {"v1": 1.0, "v2": 2.0, "v3": 6.0} for row in words]
    if reader == "webdataset":
        members = dict[str, bytes]()
        for number, (path, row) in enumerate(zip(paths, rows, strict=True)):
            members |= {path: clip(number), path.replace(".wav", ".json"): json.dumps(row).encode()}
        write_tar(root / "train-000.tar", members)
    else:
        audio = [{"audio": {"bytes": clip(number), "path": path}} for number, path in enumerate(paths)]
        table = pa.Table.from_pylist([one | row for one, row in zip(audio, rows, strict=True)])
        if reader == "hf-parquet":
            pq.write_table(table, root / "train.parquet")
        else:
            with pa.ipc.new_stream(root / "train.arrow", table.schema) as stream:
                stream.write_table(table)
    (root / "sessions.csv").write_text(
        "file,session\n" + "".join(f"{Path(p).name},day{i}\n" for i, p in enumerate(paths))
    )


@pytest.mark.parametrize("reader", ["hf-arrow", "hf-parquet", "webdataset"])
def test_paths_words_raters_and_tables_say_more_of_clips_inside(tmp_path: Path, reader: str) -> None:
    write_rated(tmp_path, reader)
    choices = {
        "pattern": r"(?P<speaker>s\d)_\d+",
        "maps": {"emotion": {"W": "anger", "N": "neutral", "T": "other"}},
        "votes": ["a1", "a2", "a3"],
        "ratings": {"valence": ["v1", "v2", "v3"]},
        "join": {str(tmp_path / "sessions.csv"): ""},
    }
    utterances = list(find_reader(reader, choices)(tmp_path))
    assert [utterance.speaker for utterance in utterances] == ["s0", "s1", "s0"]
    assert [utterance.session for utterance in utterances] == ["day0", "day1", "day2"]
    assert [utterance.emotion for utterance in utterances] == ["anger", None, "neutral"], "the winner, no tie"
    assert [[vote.emotion for vote in utterance.votes] for utterance in utterances] == [
        ["anger", "anger", "neutral"],
        ["neutral", "anger", "other"],
        ["neutral", "neutral", "other"],
    ]
    assert [vote.rater for vote in utterances[0].votes] == ["a1", "a2", "a3"]
    assert {utterance.valence for utterance in utterances} == {3.0}
    for utterance in utterances:
        with open_clip(utterance.audio, utterance.inside) as file:
            assert file.read() in {clip(number) for number in range(3)}
    with pytest.raises(ReaderError, match=r"no table has all the raters' columns a1, a9; there is: a1, a2, a3"):
        list(find_reader(reader, {"votes": ["a1", "a9"]})(tmp_path))
    with pytest.raises(ReaderError, match=r"the pattern .* fits no path, such as clips/s0_0.wav"):
        list(find_reader(reader, {"pattern": r"(?P<speaker>x\d)"})(tmp_path))
    with pytest.raises(OptionError, match="has a row a clip, not a row a rater"):
        list(find_reader(reader, {"votes": {"rater": "a1", "emotion": "a2"}})(tmp_path))
    misfit = list(find_reader(reader, {"pattern": r"(?P<speaker>s0)_\d+"})(tmp_path))
    assert [getattr(item, "reason", None) for item in misfit] == [None, "unreadable-name", None]
    assert len({item.source for item in misfit}) == 3
